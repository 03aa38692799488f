r"""What each stage costs: parameters, multiply-adds and activations, by formula.

One multiply-add is one multiplication with its addition (a "FLOP" in most papers' tables).
Activations are how many numbers a stage writes in the unfold form, for a batch of one: results,
windows and weights. Sums and copies in between are not counted.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from acmix_edu.acmix import ACmix
from acmix_edu.altered import copied
from acmix_edu.checks import divisible, odd_kernel, whole_numbers
from acmix_edu.deploy import DeployedACmix
from acmix_edu.depthwise import LearnableShift

COUNTED = nn.Conv2d | nn.Linear | nn.BatchNorm2d | LearnableShift  # and ACmix


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-adds and activations (numbers written) of one stage or of a sum."""

    parameters: int = 0
    multiply_adds: int = 0
    activations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.activations + other.activations,
        )

    def activation_bytes(self, batch: int = 1, dtype: torch.dtype = torch.float32) -> int:
        """Return the memory that the activations take, in bytes."""
        return self.activations * batch * dtype.itemsize


def total(costs: dict[str, Cost]) -> Cost:
    """Add up the costs of all stages."""
    if not isinstance(costs, dict):
        raise TypeError(
            f"costs must be a dict of Cost by name, but {costs!r} came; pass acmix_cost(…)."
        )
    return sum(costs.values(), Cost())


def conv_cost(
    in_planes: int,
    out_planes: int,
    kernel_size: int,
    height: int,
    width: int,
    groups: int = 1,
    bias: bool = False,
) -> Cost:
    r"""Return the cost of a convolution whose output is height × width.

    $$\text{multiply-adds} = k^2\,\frac{C_{in}}{groups}\,C_{out}\,H\,W$$

    Example:
        >>> conv_cost(64, 64, 3, 56, 56).multiply_adds
        115605504
    """
    in_planes, out_planes, kernel_size, height, width, groups = whole_numbers(
        in_planes=in_planes, out_planes=out_planes, kernel_size=kernel_size,
        height=height, width=width, groups=groups,
    )  # fmt: skip
    divisible("in_planes", in_planes, "groups", groups)
    divisible("out_planes", out_planes, "groups", groups)
    if not isinstance(bias, bool):
        raise TypeError(f"bias must be True or False, but {bias!r} came; has it one?")
    weights = kernel_size**2 * (in_planes // groups) * out_planes
    pixels = height * width
    return Cost(weights + out_planes * bias, weights * pixels, out_planes * pixels)


def decomposed_conv_cost(
    channels: int, kernel_size: int, height: int, width: int
) -> dict[str, Cost]:
    r"""Return the cost of a k×k convolution in two stages, C → C, stride 1.

    Stage I takes k²C² multiply-adds per pixel and makes k² maps. Stage II takes k²C additions per
    pixel, counted here as multiply-adds, as in the paper.

    Example:
        >>> cost = decomposed_conv_cost(64, 3, 1, 1)
        >>> {name: stage.multiply_adds for name, stage in cost.items()}
        {'stage I': 36864, 'stage II': 576}
    """
    channels, kernel_size, height, width = whole_numbers(
        channels=channels, kernel_size=kernel_size, height=height, width=width
    )
    maps, pixels = kernel_size**2 * channels, height * width
    return {
        "stage I": Cost(maps * channels, maps * channels * pixels, maps * pixels),
        "stage II": Cost(0, maps * pixels, channels * pixels),
    }


def attention_cost(
    channels: int, kernel_att: int, head: int, height: int, width: int
) -> dict[str, Cost]:
    r"""Return the cost of local self-attention in two stages, C → C, stride 1, no position term.

    Stage I takes 3C² multiply-adds per pixel, Stage II 2k_a²C.

    Example:
        >>> {name: c.multiply_adds for name, c in attention_cost(64, 7, 4, 1, 1).items()}
        {'stage I': 12288, 'stage II': 6272}
    """
    channels, kernel_att, head, height, width = whole_numbers(
        channels=channels, kernel_att=kernel_att, head=head, height=height, width=width
    )
    divisible("channels", channels, "head", head)
    odd_kernel("kernel_att", kernel_att)
    projection = conv_cost(channels, channels, 1, height, width, bias=True)
    return {
        "stage I": projection + projection + projection,
        "stage II": _window_cost(channels, kernel_att, head, height * width),
    }


def _window_cost(channels: int, kernel_att: int, head: int, pixels: int) -> Cost:
    """Count k² copies of k and v, k² logits and weights a head, and the output of attention."""
    n = kernel_att**2
    written = 2 * n * channels + 2 * n * head + channels
    return Cost(0, 2 * n * channels * pixels, written * pixels)


def acmix_cost(
    in_planes: int,
    out_planes: int,
    height: int,
    width: int,
    kernel_att: int = 7,
    head: int = 4,
    kernel_conv: int = 3,
    stride: int = 1,
) -> dict[str, Cost]:
    r"""Return the cost of ACmix on a height × width input, stage by stage.

    Multiply-adds, with C the output channels, d = C/N, P input pixels and P' output pixels:
    Stage I $3\,C_{in}\,C\,P$; position $2dP$; attention $2k_a^2\,C\,P'$; fc $3k_c^2\,C\,P$; shift
    and sum $k_c^4\,C\,P'$. The multiply-adds of the mix are not counted.

    Args:
        in_planes, out_planes, kernel_att, head, kernel_conv, stride: of the module.
        height, width: of the input.

    Returns:
        ``{"stage I", "position", "attention", "fc", "shift and sum", "mix"}``.

    Example:
        >>> total(acmix_cost(64, 64, 56, 56)).parameters
        17822
    """
    in_planes, out_planes, height, width, kernel_att, head, kernel_conv, stride = whole_numbers(
        in_planes=in_planes, out_planes=out_planes, height=height, width=width,
        kernel_att=kernel_att, head=head, kernel_conv=kernel_conv, stride=stride,
    )  # fmt: skip
    divisible("out_planes", out_planes, "head", head)
    odd_kernel("kernel_att", kernel_att), odd_kernel("kernel_conv", kernel_conv)
    pixels = height * width
    outputs = len(range(0, height, stride)) * len(range(0, width, stride))
    d, n, t = out_planes // head, kernel_att**2, kernel_conv**2
    projection = conv_cost(in_planes, out_planes, 1, height, width, bias=True)
    position = conv_cost(2, d, 1, height, width, bias=True)
    return {
        "stage I": projection + projection + projection,
        "position": position + Cost(activations=n * d * outputs),
        "attention": _window_cost(out_planes, kernel_att, head, outputs),
        "fc": Cost(3 * head * t, 3 * t * out_planes * pixels, t * d * pixels),
        "shift and sum": Cost(
            out_planes * t * t, out_planes * t * t * outputs, out_planes * outputs
        ),
        "mix": Cost(2, 0, out_planes * outputs),
    }


def model_cost(
    model: nn.Module, height: int = 224, width: int = 224, channels: int = 3
) -> dict[str, Cost]:
    """Return the cost of every Conv2d, Linear, BatchNorm2d, LearnableShift and ACmix, by name.

    Other kinds of layers are not counted, nor is a layer that is not called, such as the Linear
    inside ``nn.MultiheadAttention``. To learn the sizes, a copy of the network runs once on the
    meta device, where nothing is computed. As in most papers' tables, multiply-adds are those of
    convolutions, linear layers and attention; for batch norm only its parameters and what it writes
    are counted. A subclass of ACmix counts as an ACmix, whatever it leaves out or adds.

    Args:
        model: takes ``[1, channels, height, width]``. It is left as it is.
        height, width, channels: of the input.

    Raises:
        TypeError: model is not a module, or a size not a whole number.
        ValueError: model is deployed, or has lazy layers that have not run yet, or a size is below
            1.
        RuntimeError: from PyTorch, where the model or a hook before a layer reads numbers: the meta
            device holds none.

    Example:
        >>> from acmix_edu import acmix_resnet50
        >>> total(model_cost(acmix_resnet50())).multiply_adds
        3502300672
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, but a {type(model).__name__} came; pass for "
            "example acmix_resnet50()."
        )
    if any(isinstance(module, DeployedACmix) for module in model.modules()):
        raise ValueError("model is deployed, which is not counted; pass the model before deploy.")
    if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
        raise ValueError("model has sizes that are not known yet; run it once first.")
    shape = whole_numbers(channels=channels, height=height, width=width)
    twin = copied(model).to("meta", torch.float32).eval()
    costs: dict[str, Cost] = {}
    inside = {m for a in twin.modules() if isinstance(a, ACmix) for m in a.modules() if m is not a}
    for name, module in twin.named_modules():
        module._forward_hooks.clear()  # hooks may want to see numbers
        if isinstance(module, ACmix):
            module.backend = None  # no kernel runs on the meta device
        if isinstance(module, ACmix) or (isinstance(module, COUNTED) and module not in inside):
            module.register_forward_hook(_recorder(name, costs), with_kwargs=True)
    twin(torch.empty(1, *shape, device="meta", dtype=torch.float32))
    return costs


def _recorder(name: str, costs: dict[str, Cost]):
    def record(module, inputs, named, output):
        cost = _module_cost(module, (*inputs, *named.values())[0], output)
        if name in costs:  # it runs again: its parameters are counted already
            cost = costs[name] + replace(cost, parameters=0)
        costs[name] = cost

    return record


def _module_cost(module: ACmix | COUNTED, x: torch.Tensor, y: torch.Tensor) -> Cost:
    if isinstance(module, ACmix):
        return total(
            acmix_cost(
                module.in_planes, module.out_planes, x.shape[-2], x.shape[-1], module.kernel_att,
                module.head, module.kernel_conv, module.stride,
            )
        )  # fmt: skip
    parameters = sum(p.numel() for p in module.parameters())
    if isinstance(module, nn.BatchNorm2d):
        return Cost(parameters, 0, y.numel())
    pixels = y.numel() // y.shape[-1 if isinstance(module, nn.Linear) else -3]
    return Cost(parameters, module.weight.numel() * pixels, y.numel())
