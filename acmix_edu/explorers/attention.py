"""The attention explorer: what one pixel of a picture attends to, in every head."""

import math

import numpy as np
import torch
import traitlets

from acmix_edu.acmix import ACmix
from acmix_edu.attention import local_attention_weights, split_heads
from acmix_edu.checks import pair, whole_number
from acmix_edu.examples import colour_acmix, colour_features, photograph
from acmix_edu.explorers.explorer import (
    Array,
    Explorer,
    between,
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
from acmix_edu.training import trained_acmix

MODES = ("window", "tile", "whole image")
LEAST, MOST = 0.25, 4.0  # the temperature's bounds
LAYERS = ("conv1_", "conv2_", "conv3_", "conv_p_")


class AttentionExplorer(Explorer):
    r"""Show what a pixel attends to: the weights of its window, or of the whole image.

    $$a_o = \mathop{\mathrm{softmax}}_o\;
    \frac{q_{ij}^{\top}(k_{ij+o} - \mathit{pe}_{ij+o})}{\tau\sqrt d}$$

    The view computes everything in the browser. Every pixel has a query, because a stride of the
    module is ignored.

    Args:
        module: an ``ACmix``, or several by name, of the same sizes, to choose from; the weights are
            copied. When left out: one whose weights are set by hand ("colour"), one that was
            trained to remove noise ("trained"), and a fresh one ("random").
        image: floats ``[C, H, W]`` or ``[1, C, H, W]``, C = ``module.in_planes``, at most 128×128
            pixels; a flower when left out. For a module with four input channels it may also be a
            picture of three, with values 0 … 1, whose ``colour_features`` go in.
        head: the head to look at first, from 0; the last when left out.
        pixel: (row, column) of the first query; the centre when left out.

    Traits:
        - preset: the name of the module; a module without a name is called "own".
        - mode: "window" or, with the same q, k and v, "tile" or "whole image". In "tile" the image
          is cut from its first corner into tiles of kernel_att×kernel_att pixels (Swin); "whole
          image" is global attention.
        - kernel_att, dilation: of the window.
        - temperature: τ, from 0.25 to 4; the logits are divided by it.
        - position: whether pe, the position term, is in the logits.
        - head, channel: whose values and output are shown; the channel is one of the head's d.
        - pixel: (row, column) of the query.
        - key: the key whose numbers are written, in steps of the window from the query. Beyond the
          window or the image it is the nearest one inside.

    Raises:
        TypeError, ValueError: an argument or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = AttentionExplorer(ACmix(3, 8, head=2), torch.rand(3, 24, 32))
        >>> explorer.observe(lambda change: print("the query is", change.new), "pixel")
        >>> explorer.pixel = (0, 5)
        the query is (0, 5)
    """

    _esm = bundle("engine.js", "kit.js", "attention.js")
    _css = source("explorer.css") + source("attention.css")

    preset = traitlets.Unicode().tag(sync=True, state=True)
    mode = traitlets.Unicode("window").tag(sync=True, state=True)
    kernel_att = traitlets.Int(7).tag(sync=True, state=True)
    dilation = traitlets.Int(1).tag(sync=True, state=True)
    temperature = traitlets.Float(1.0).tag(sync=True, state=True)
    position = traitlets.Bool(True).tag(sync=True, state=True)
    head = traitlets.Int(0).tag(sync=True, state=True)
    channel = traitlets.Int(0).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)
    key = place().tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)
    layers = traitlets.Bytes(read_only=True).tag(sync=True)
    places = traitlets.Dict(read_only=True).tag(sync=True)  # preset: name: [first, past the last]
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        module: ACmix | dict[str, ACmix] | None = None,
        image: Array | None = None,
        *,
        head: int | None = None,
        pixel: tuple[int, int] | None = None,
    ):
        self._modules = presets(_examples() if module is None else module)
        preset, first = next(iter(self._modules.items()))
        self._image = _input(image, first.in_planes)
        height, width = self._image.shape[1:]
        self._bounds = {"head": first.head, "channel": first.head_dim, "pixel": (height, width)}
        self._most = most_window(first)
        named = {name: _stage1_weights(module) for name, module in self._modules.items()}
        layers, places = packed(named)
        constants: dict = {"image": self._image.numpy().tobytes()}
        constants |= {"layers": layers, "places": places}
        constants["sizes"] = {"heads": first.head, "d": first.head_dim, "channels": first.in_planes}
        constants["sizes"] |= {"height": height, "width": width, **self._most}
        constants["sizes"]["presets"] = list(self._modules)
        start: dict = {"preset": preset, "kernel_att": first.kernel_att, "dilation": first.dilation}
        start["head"] = first.head - 1 if head is None else whole_number("head", head, 0)
        start["pixel"] = (height // 2, width // 2) if pixel is None else pair("pixel", pixel, 0)
        super().__init__("attention", constants, key=(2, -1), **start)

    def weights(self) -> torch.Tensor:
        """Return the query's attention weights, ``[N, k²]``; ``[N, H·W]`` for the whole image.

        A tile at the right or lower border may have fewer than k² pixels.

        Example:
            >>> explorer = AttentionExplorer()
            >>> explorer.kernel_att = 5
            >>> explorer.weights().shape
            torch.Size([4, 25])
        """
        q, k, _, pe = self._stage1()
        row, column = self.pixel
        if self.mode == "window":
            window = {"kernel_size": self.kernel_att, "dilation": self.dilation}
            return local_attention_weights(q, k, pe=pe, **window)[:, :, row, column]
        query, keys = q[:, :, row, column] / math.sqrt(q.shape[1]), k - pe
        if self.mode == "tile":
            m = self.kernel_att
            top, left = row - row % m, column - column % m
            keys = keys[:, :, top : top + m, left : left + m]
        return torch.einsum("nd,ndp->np", query, keys.flatten(2)).softmax(-1)

    def _stage1(self) -> tuple[torch.Tensor, ...]:
        """Return q / τ, k and v, ``[N, d, H, W]``, and the position term, ``[1, d, H, W]``."""
        module = self._modules[self.preset]
        maps = module.project(self._image[None])
        pe = module.position_term(maps[0]) * self.position
        q, k, v = (split_heads(f, module.head)[0] for f in maps)
        return q / self.temperature, k, v, pe

    @traitlets.validate("preset", "mode")
    def _known(self, proposal):
        offered = {"preset": self._modules, "mode": MODES}[proposal.trait.name]
        return one_of(proposal.trait.name, proposal.value, offered)

    @traitlets.validate("kernel_att", "dilation")
    def _not_too_large(self, proposal):
        return offered_window(proposal.trait.name, proposal.value, self._most)

    @traitlets.validate("temperature")
    def _moderate(self, proposal):
        return between("temperature", proposal.value, LEAST, MOST)


def _examples() -> dict[str, ACmix]:
    """Return weights set by hand, trained ones, and fresh ones, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed CUDA, too
        fresh = ACmix(4, 16, head=4)
        return {"colour": colour_acmix(), "trained": trained_acmix(), "random": fresh}


def _input(image, channels: int) -> torch.Tensor:
    """Return what goes into the module: the image, or the colour features of a picture."""
    image = photograph("flower", 48) if image is None else image
    if channels != 4 or np.shape(image)[-3:-2] != (3,):
        return one_image(image, channels)
    picture = one_image(image, 3)
    if picture.min() < 0 or picture.max() > 1:
        raise ValueError(
            f"image must have values from 0 to 1, but {picture.min():.3g} to {picture.max():.3g} "
            "came; for pixel values from 0 to 255 divide by 255."
        )
    return colour_features(picture)


def _stage1_weights(module: ACmix) -> dict[str, torch.Tensor]:
    return {name: w for name, w in weights_of(module).items() if name.startswith(LAYERS)}
