"""A small network in which one thing changes: the operator that looks at the neighbours."""

from collections.abc import Callable

import torch
from torch import nn

from acmix_edu.acmix import ACmix
from acmix_edu.attention import entropy
from acmix_edu.depthwise import shift_kernels

WIDTHS = (16, 32, 64)  # on maps of 16×16, 8×8, 4×4
WINDOWS = (7, 5, 3)  # each smaller than its map
HEADS = 4


class OnePath(ACmix):
    """ACmix with α or β fixed at zero; the path that is multiplied by it is not computed."""

    def __init__(self, before: int, planes: int, window: int, path: str):
        super().__init__(before, planes, kernel_att=window, head=HEADS)
        self.path = path
        off = self.rate1
        unused: list[nn.Module] = [self.conv_p]
        if path == "attention":
            off, unused = self.rate2, [self.fc, self.dep_conv]
        off.data.zero_()
        for parameter in (off, *(p for module in unused for p in module.parameters())):
            parameter.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.project(x)
        if self.path == "attention":
            rate, out = self.rate1, self.attention_path(*maps)
        else:
            rate, out = self.rate2, self.convolution_path(*maps)
        return rate.type_as(out) * out  # in the path's dtype, as ACmix.mix


RATES = ("rate1", "rate2")  # α and β


def _mixed(alpha: float = 0.5, beta: float = 0.5, lost: bool = False, held: tuple[str, ...] = ()):
    """Make an arm of ACmix. Parameters named in ``held`` do not learn.

    With ``lost``, ``dep_conv`` starts with random numbers instead of shifts, as in the published
    ResNet, whose constructor draws every convolution's weight again.
    """

    def make(before: int, planes: int, window: int) -> ACmix:
        module = ACmix(before, planes, kernel_att=window, head=HEADS)
        module.rate1.data.fill_(alpha)
        module.rate2.data.fill_(beta)
        if lost:
            shifts = module.dep_conv.weight
            nn.init.kaiming_normal_(shifts, mode="fan_out", nonlinearity="relu")
        for name in held:
            module.get_parameter(name).requires_grad_(False)
        return module

    return make


ARMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "conv3x3": lambda before, planes, window: nn.Conv2d(before, planes, 3, padding=1),
    "attention": lambda before, planes, window: OnePath(before, planes, window, "attention"),
    "convolution": lambda before, planes, window: OnePath(before, planes, window, "convolution"),
    "acmix": _mixed(),
    "lost-init": _mixed(lost=True),
    "small-beta": _mixed(beta=0.125),
    "fixed-shift": _mixed(held=("dep_conv.weight",)),
    "half-half": _mixed(held=RATES),
}

# Recorded on match alone: two other ways to small-beta's ratio, and loud random kernels.
CONTROLS = {
    "loud-alpha": _mixed(alpha=2.0),  # β begins at ½ and moves as slowly as in acmix
    "quiet-held": _mixed(beta=0.125, held=RATES),
    "loud-random": _mixed(beta=1.5, lost=True),  # as loud as the path of acmix
}

# Those that mix two paths.
MIXING = [arm for arm in ARMS | CONTROLS if arm not in ("conv3x3", "attention", "convolution")]


class Block(nn.Module):
    """Residual block: the operator, then a 1×1 convolution, each with group norm.

    Group norm treats every picture alone, so a batch that is split over processes gives the same
    numbers as the whole batch. Batch norm's statistics would differ.
    """

    def __init__(self, planes: int, operator: nn.Module):
        super().__init__()
        self.operator = operator
        self.norm1 = nn.GroupNorm(HEADS, planes)
        self.pointwise = nn.Conv2d(planes, planes, 1, bias=False)
        self.norm2 = nn.GroupNorm(HEADS, planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm1(self.operator(x)).relu()
        return (x + self.norm2(self.pointwise(out))).relu()


class Network(nn.Module):
    """A 2×2/2 stem, three stages of one block, a global average and a linear layer.

    Between stages there are a 2×2 average and a 1×1 convolution, so the arm's operator is the only
    learned one that looks at neighbours.

    Args:
        arm: a name from ``ARMS`` or ``CONTROLS``.
        classes: outputs of the linear layer.
        seed: of the initial weights. Arms with the same seed share the weights that they have in
            common up to the first operator.

    Shape:
        ``[B, 3, 32, 32]`` → ``[B, classes]``.

    Example:
        >>> Network("acmix", classes=10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, arm: str, classes: int, seed: int = 0):
        super().__init__()
        arms = ARMS | CONTROLS
        if arm not in arms:
            raise ValueError(f"arm must be one of {', '.join(arms)}, but {arm!r} came.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA, too
            self.stem = nn.Conv2d(3, WIDTHS[0], 2, stride=2)
            self.stages = nn.ModuleList()
            before = WIDTHS[0]
            for planes, window in zip(WIDTHS, WINDOWS, strict=True):
                reduce: nn.Module = nn.Identity()
                if planes != before:
                    reduce = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, planes, 1))
                block = Block(planes, arms[arm](planes, planes, window))
                self.stages.append(nn.Sequential(reduce, block))
                before = planes
            self.fc = nn.Linear(before, classes)
            for module in self.modules():  # as in ResNet; dep_conv, no Conv2d, keeps its start
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(4 * x - 2)
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))

    @torch.no_grad()
    def observe(self, x: torch.Tensor) -> list[dict[str, float]]:
        """Return what each ACmix does on pictures x: α, β, norm share, drift, entropy.

        "share" is ``ACmix.norm_share``, the attention path's part of the two paths' norms. "drift"
        is the distance of ``dep_conv`` from its shift kernels, as a fraction of their norm.
        "entropy" is that of the attention weights, as a fraction of the largest possible.
        """
        layers = []
        x = self.stem(4 * x - 2)
        for stage in self.stages:
            reduce, block = stage.children()
            x = reduce(x)
            if isinstance(block.operator, ACmix):
                layers.append(observe(block.operator, x))
            x = block(x)
        return layers


@torch.no_grad()
def observe(module: ACmix, x: torch.Tensor) -> dict[str, float]:
    """Return what one ACmix does on its input x, under the names of :meth:`Network.observe`."""
    shifts = shift_kernels(module.kernel_conv).to(module.dep_conv.weight)
    shifts = shifts.expand_as(module.dep_conv.weight)
    values = {
        "alpha": module.rate1, "beta": module.rate2, "share": module.norm_share(x),
        "drift": (module.dep_conv.weight - shifts).norm() / shifts.norm(),
        "entropy": entropy(module.explain(x)["att"]).mean(),
    }  # fmt: skip
    return {name: round(float(value), 5) for name, value in values.items()}
