"""The mixing explorer: one ACmix, one image, both paths and their mix, live in the browser."""

import math

import torch
import traitlets

from acmix_edu.acmix import ACmix
from acmix_edu.checks import pair, whole_number
from acmix_edu.examples import colour_features
from acmix_edu.explorers.explorer import (
    Array,
    Explorer,
    finite,
    most_window,
    offered_window,
    one_image,
    one_of,
    packed,
    place,
    presets,
    weights_of,
)
from acmix_edu.explorers.loader import bundle, source

KERNEL_CONV_CHOICES = (1, 3, 5, 7)


class MixingExplorer(Explorer):
    """Show both paths of an ACmix on an image, and the effective kernel at one pixel.

    The view computes everything in the browser from the module's weights, so it needs no kernel
    once it is shown. The traits below follow the view, and the view follows them. "Along the edges"
    plays them: it goes from pixel to pixel where the image changes, then shows either path alone.

    Args:
        module: an ``ACmix``, or several by name, of the same sizes, to choose from; the weights are
            copied, so later training does not change the view.
        image: floats ``[C, H, W]`` or ``[1, C, H, W]``, C = ``module.in_planes``, at most 128×128
            pixels. The first three channels are drawn as red, green and blue. If the image is a
            picture (3 channels, values 0 … 1) or the ``colour_features`` of one, the reader can
            open, drop, paste or draw a picture in its place.
        head: the head to look at first, from 0.
        channel: the dimension of that head, from 0; both choose output channel
            ``head * module.head_dim + channel``.
        pixel: (row, column) of the output to look at first; the centre when left out.
        more: show q, k, v and all controls from the start.

    Traits:
        alpha, beta, kernel_att, dilation and kernel_conv, which start as the (first) module has
        them; head, channel and pixel. A new ``preset``, the name of a module, brings that module's
        α and β, even if these are set at the same time (``hold_trait_notifications``). A
        ``kernel_conv`` other than the module's own comes with seeded, untrained weights. The others
        are offset, the cell of the kernels, from their centre, whose values are written below them;
        and more, whether what is folded at first is open. ``current_image()`` follows the reader's
        own picture.

    Raises:
        TypeError, ValueError: an argument or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> module = ACmix(3, 8, head=2)
        >>> explorer = MixingExplorer(module, torch.rand(3, 24, 32))
        >>> explorer.observe(lambda change: print("α is", change.new), "alpha")
        >>> explorer.alpha = 1.0
        α is 1.0
    """

    _esm = bundle("engine.js", "kit.js", "picture.js", "mixing.js")
    _css = source("explorer.css") + source("mixing.css")

    alpha = traitlets.Float(0.5).tag(sync=True, state=True)
    beta = traitlets.Float(0.5).tag(sync=True, state=True)
    kernel_att = traitlets.Int(7).tag(sync=True, state=True)
    dilation = traitlets.Int(1).tag(sync=True, state=True)
    kernel_conv = traitlets.Int(3).tag(sync=True, state=True)
    head = traitlets.Int(0).tag(sync=True, state=True)
    channel = traitlets.Int(0).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)
    offset = place().tag(sync=True, state=True)
    more = traitlets.Bool(False).tag(sync=True, state=True)

    preset = traitlets.Unicode().tag(sync=True, state=True)

    # The view may put the reader's own picture here; it comes as a memoryview.
    image = traitlets.Bytes().tag(sync=True, from_json=lambda value, _: bytes(value))

    # What the view needs besides: constant, and the same for every state of the traits above.
    weights = traitlets.Bytes(read_only=True).tag(sync=True)
    places = traitlets.Dict(read_only=True).tag(sync=True)  # preset: name: [first, past the last]
    rates = traitlets.Dict(read_only=True).tag(sync=True)  # preset: α and β
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        module: ACmix | dict[str, ACmix],
        image: Array,
        *,
        head: int = 0,
        channel: int = 0,
        pixel: tuple[int, int] | None = None,
        more: bool = False,
    ):
        self._modules = presets(module)
        preset, module = next(iter(self._modules.items()))
        self._image = one_image(image, module.in_planes)
        self._seeded_fc = {k: _seeded_fc(module.head, k) for k in KERNEL_CONV_CHOICES}
        height, width = (math.ceil(side / module.stride) for side in self._image.shape[1:])
        self._bounds = {"head": module.head, "channel": module.head_dim, "pixel": (height, width)}
        self._most = most_window(module)
        head, channel = whole_number("head", head, 0), whole_number("channel", channel, 0)
        rates = {name: [m.rate1.item(), m.rate2.item()] for name, m in self._modules.items()}
        start = {
            "alpha": rates[preset][0],
            "beta": rates[preset][1],
            **{name: getattr(module, name) for name in ("kernel_att", "dilation", "kernel_conv")},
            "head": head,
            "channel": channel,
            "pixel": (height // 2, width // 2) if pixel is None else pair("pixel", pixel, 0),
            "more": more,
            "preset": preset,
            "image": self._image.numpy().tobytes(),
        }
        named = {"seeded_fc": {str(k): fc for k, fc in self._seeded_fc.items()}}
        weights, places = packed(named | {n: weights_of(m) for n, m in self._modules.items()})
        sizes = {name: getattr(module, name) for name in ("in_planes", "out_planes", "stride")}
        sizes |= {"heads": module.head, "kernel_conv": module.kernel_conv}
        sizes |= {"height": self._image.shape[1], "width": self._image.shape[2]}
        sizes |= {"lift": _lift(self._image), "presets": list(self._modules)}
        sizes |= {"edges": _edges(self._image, module.stride)}
        constants = {"weights": weights, "places": places, "rates": rates, "sizes": sizes}
        super().__init__("mixing", constants, **start)

    def current_module(self) -> ACmix:
        """Return a new ACmix that computes what the view shows now.

        Example:
            >>> explorer = MixingExplorer(ACmix(3, 8, head=2), torch.rand(3, 24, 32))
            >>> explorer.dilation = 2
            >>> explorer.current_module().dilation
            2
        """
        own = self._modules[self.preset]
        new = ACmix(
            own.in_planes,
            own.out_planes,
            kernel_att=self.kernel_att,
            head=own.head,
            kernel_conv=self.kernel_conv,
            stride=own.stride,
            dilation=self.dilation,
        ).float()
        state = own.state_dict()
        if self.kernel_conv != own.kernel_conv:
            state["fc.weight"] = self._seeded_fc[self.kernel_conv]
            state["dep_conv.weight"] = new.dep_conv.weight
        new.load_state_dict(
            state | {"rate1": torch.tensor([self.alpha]), "rate2": torch.tensor([self.beta])}
        )
        return new.requires_grad_(False)

    def current_image(self) -> torch.Tensor:
        """Return a copy of the image that the view shows now, ``[C, H, W]``, float32."""
        values = torch.frombuffer(bytearray(self.image), dtype=torch.float32)
        return values.view(self._image.shape)

    @traitlets.validate("alpha", "beta")
    def _finite(self, proposal):
        if not math.isfinite(proposal.value):
            raise ValueError(
                f"{proposal.trait.name} must be finite, but {proposal.value} came; "
                f"pass a number such as {proposal.trait.name}=0.5."
            )
        return proposal.value

    @traitlets.validate("preset")
    def _known(self, proposal):
        return one_of("preset", proposal.value, self._modules)

    @traitlets.observe("preset")
    def _own_rates(self, change):
        if "alpha" in self._property_lock:
            return  # the view sets both, and has brought its own
        module = self._modules[change.new]
        self.alpha, self.beta = module.rate1.item(), module.rate2.item()

    @traitlets.validate("image")
    def _same_size(self, proposal):
        if len(proposal.value) != 4 * self._image.numel():
            raise ValueError(
                f"image must be {self._image.numel()} float32 numbers, {list(self._image.shape)}, "
                f"but {len(proposal.value)} bytes came; pass tensor.numpy().tobytes()."
            )
        finite("image", torch.frombuffer(bytearray(proposal.value), dtype=torch.float32))
        return proposal.value

    @traitlets.validate("kernel_att", "dilation")
    def _not_too_large(self, proposal):
        return offered_window(proposal.trait.name, proposal.value, self._most)

    @traitlets.validate("kernel_conv")
    def _offered(self, proposal):
        offered = sorted({*KERNEL_CONV_CHOICES, next(iter(self._modules.values())).kernel_conv})
        return one_of("kernel_conv", proposal.value, offered)


def _seeded_fc(heads: int, kernel: int) -> torch.Tensor:
    """Return an untrained fc weight ``[k², 3N, 1, 1]``, drawn as PyTorch draws it, seeded."""
    bound = 1 / math.sqrt(3 * heads)
    weight = torch.empty(kernel**2, 3 * heads, 1, 1, dtype=torch.float32)
    return weight.uniform_(-bound, bound, generator=torch.Generator().manual_seed(kernel))


def _edges(image: torch.Tensor, stride: int) -> list[list[int]]:
    """Return twelve output pixels: the largest change on each of twelve rays from the middle."""
    sides = torch.tensor(image.shape[1:])
    steps = math.ceil(sides.max() / 2)
    ray = torch.arange(-1, steps + 1) / (steps + 1)
    found = []
    for n in range(12):
        angle = (n / 6 - 3 / 4) * math.pi  # clockwise, from the upper left
        way = torch.tensor([[math.sin(angle)], [math.cos(angle)]])
        places = ((1 + way * ray) * sides[:, None] / 2).long()
        values = image[:, *places]
        change = (values[:, 2:] - values[:, :-2]).norm(dim=0)
        found.append((places[:, change.argmax() + 1] // stride).tolist())
    return found


def _lift(image: torch.Tensor) -> str:
    """Return how a picture becomes such an image: "picture", "colour", or "" for not at all."""
    if len(image) == 3 and 0 <= image.min() and image.max() <= 1:
        return "picture"
    if len(image) == 4 and image[:3].abs().max() <= 0.5:
        if torch.allclose(colour_features(image[:3] + 0.5), image, atol=1e-5):
            return "colour"
    return ""
