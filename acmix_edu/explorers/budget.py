"""The budget explorer: what ACmix and its rivals cost, stage by stage, for sizes of your choice."""

import functools
import math

import torch
import traitlets

from acmix_edu.acmix import ACmix
from acmix_edu.checks import odd_kernel
from acmix_edu.cost import Cost, acmix_cost, model_cost, total
from acmix_edu.explorers.explorer import Explorer, between, one_of
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.resnet import ResNet, conv3x3

MEASURES = ("multiply-adds", "parameters", "memory")
STAGES = ("convolution", *acmix_cost(4, 4, 1, 1))
NETWORKS = {"ResNet-26": (1, 2, 4, 1), "ResNet-38": (2, 3, 5, 2), "ResNet-50": (3, 4, 6, 3)}
OFFERED = {
    "channels": (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048),
    "heads": (1, 2, 4, 8),
    "kernel_att": tuple(range(1, 16, 2)),
    "kernel_conv": (1, 3, 5, 7),
    "side": (4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224),
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
MOST = {
    "channels": 4096, "heads": 64, "kernel_att": 31, "kernel_conv": 15,
    "side": 512, "batch": 1024, "stride": 8,
}  # fmt: skip


class BudgetExplorer(Explorer):
    """Show what ACmix costs beside a convolution and beside each of its two paths alone.

    The cost is counted in parameters, in multiply-adds for one image, or in the memory of the
    activations in the unfold form. It is shown for one module as stacked bars, and block by block
    for a ResNet on 224×224 pixels.

    Args:
        module: an ``ACmix`` with as many outputs as inputs, whose sizes are shown first; when left
            out, the module in layer 1 of the ResNets.

    Traits:
        measure: ``"multiply-adds"``, ``"parameters"`` or ``"memory"``; channels, heads, kernel_att
        and kernel_conv; side and stride of a square map; batch and precision (bytes of a number, 4
        or 2), which count for memory; network, whose blocks are shown; and stage, which is lit.
        Where heads does not divide channels, the next smaller number that does is counted.

    Raises:
        TypeError, ValueError: the module or a trait's new value cannot be used; the message says
            what can. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = BudgetExplorer(ACmix(128, 128, head=8))
        >>> explorer.observe(lambda change: print("C is", change.new), "channels")
        >>> explorer.channels = 256
        C is 256
        >>> explorer.costs()["stage I"].parameters
        197376
    """

    _esm = bundle("kit.js", "budget.js")
    _css = source("explorer.css") + source("budget.css")

    measure = traitlets.Unicode("multiply-adds").tag(sync=True, state=True)
    channels = traitlets.Int(64).tag(sync=True, state=True)
    heads = traitlets.Int(4).tag(sync=True, state=True)
    kernel_att = traitlets.Int(7).tag(sync=True, state=True)
    kernel_conv = traitlets.Int(3).tag(sync=True, state=True)
    side = traitlets.Int(56).tag(sync=True, state=True)
    stride = traitlets.Int(1).tag(sync=True, state=True)
    batch = traitlets.Int(64).tag(sync=True, state=True)
    precision = traitlets.Int(4).tag(sync=True, state=True)
    network = traitlets.Unicode("ResNet-50").tag(sync=True, state=True)
    stage = traitlets.Unicode("stage I").tag(sync=True, state=True)

    offered = traitlets.Dict(read_only=True).tag(sync=True)  # trait: its values, in their order
    most = traitlets.Dict(read_only=True).tag(sync=True)
    networks = traitlets.Dict(read_only=True).tag(sync=True)  # name: see _network

    def __init__(self, module: ACmix | None = None):
        start = {} if module is None else _sizes(module)
        offered: dict = {t: sorted({*v, start.get(t, v[0])}) for t, v in OFFERED.items()}
        offered["network"] = list(NETWORKS)
        networks = {name: _network(layers) for name, layers in NETWORKS.items()}
        constants = {"offered": offered, "most": MOST, "networks": networks}
        super().__init__("budget", constants, **start)

    def costs(self) -> dict[str, Cost]:
        """Return what ``acmix_cost`` says of the sizes that are shown now.

        Example:
            >>> list(BudgetExplorer().costs())
            ['stage I', 'position', 'attention', 'fc', 'shift and sum', 'mix']
        """
        heads = max(n for n in range(1, self.heads + 1) if self.channels % n == 0)
        return acmix_cost(
            self.channels, self.channels, self.side, self.side, kernel_att=self.kernel_att,
            head=heads, kernel_conv=self.kernel_conv, stride=self.stride,
        )  # fmt: skip

    @traitlets.validate("measure", "network", "stage", "precision")
    def _known(self, proposal):
        name = proposal.trait.name
        known = {"measure": MEASURES, "network": tuple(NETWORKS), "stage": STAGES,
                 "precision": (4, 2)}[name]  # fmt: skip
        return one_of(name, proposal.value, known)

    @traitlets.validate(*MOST)
    def _in_bounds(self, proposal):
        name = proposal.trait.name
        value = between(name, proposal.value, 1, MOST[name])
        return odd_kernel(name, value) if name.startswith("kernel") else value


def _sizes(module: ACmix) -> dict[str, int]:
    """Return the traits that say what a module costs."""
    if not isinstance(module, ACmix):
        raise TypeError(
            f"module must be an acmix_edu.ACmix, but a {type(module).__name__} came; "
            "pass ACmix(64, 64), or one layer of your network."
        )
    if module.in_planes != module.out_planes:
        raise ValueError(
            "module must have as many outputs as inputs, for the convolution beside it has, but "
            f"{module.in_planes} → {module.out_planes} came; pass ACmix({module.out_planes}, "
            f"{module.out_planes})."
        )
    names = ("kernel_att", "kernel_conv", "stride")
    return {"channels": module.out_planes, "heads": module.head} | {
        name: getattr(module, name) for name in names
    }


@functools.cache
def _network(layers: tuple[int, ...]) -> dict:
    """Return the blocks, [layer, C, side, stride] each, and the cost of everything around them."""
    with torch.device("meta"):
        model = ResNet(layers, operator=conv3x3)
    costs = model_cost(model)
    blocks = []
    for name, module in model.named_modules():
        if name.endswith(".conv2"):  # the operator in the middle
            side = math.isqrt(costs[name].multiply_adds // costs[name].parameters)
            stride = module.stride[0]
            blocks.append([int(name[len("layer")]), module.in_channels, side * stride, stride])
    rest = total({name: cost for name, cost in costs.items() if not name.endswith(".conv2")})
    return {
        "blocks": blocks,
        "rest": {
            "multiply-adds": rest.multiply_adds,
            "parameters": rest.parameters,
            "memory": rest.activations,
        },
    }
