"""The unfold explorer: a k×k convolution as k² 1×1 convolutions that are moved and added."""

import numpy as np
import torch
import traitlets

from acmix_edu.examples import photograph
from acmix_edu.explorers.explorer import (
    Array,
    Explorer,
    between,
    finite,
    numbers,
    one_image,
    one_of,
    packed,
    place,
)
from acmix_edu.explorers.loader import bundle, source

KERNEL_SIZES = (1, 3, 5, 7)
MOST = 3  # the largest stride and dilation
BRIGHTNESS = (0.30, 0.59, 0.11)  # of red, green and blue


class UnfoldExplorer(Explorer):
    r"""Take a convolution apart: multiply by each cell of the kernel, move, add.

    Map t = p·k + q is $K_{p,q}\, f$, moved by $D(\lfloor k/2\rfloor - p)$ rows and
    $D(\lfloor k/2\rfloor - q)$ columns. The sum of the first ``step`` of them grows into the
    convolution with padding $D\lfloor k/2\rfloor$. The view computes all of it in the browser.

    Args:
        image: floats ``[C, H, W]`` or ``[1, C, H, W]``, C = 1 (grey) or 3, at most 128×128 pixels.
            When left out, it is the brightness of a flower, or its colours if the kernel has 3
            channels.
        kernel: your own, ``[C, k, k]`` or ``[1, C, k, k]`` (one output channel of a layer, such as
            ``conv.weight[:1]``), k = 1, 3, 5 or 7. With three channels, "edge", "sharpen" and
            "blur" act on the brightness.

    Traits:
        - preset: "edge" (Sobel's), "sharpen", "blur" (binomial) or, if a kernel was passed, "own".
        - kernel_size: 1, 3, 5 or 7. Your own kernel is cut to its middle, or gets zeros around it.
        - stride, dilation: 1, 2 or 3.
        - step: how many cells are in the sum, from 1; k² and more mean all.
        - move: whether the maps are moved before they are added; if not, no pixel sees another.
        - pixel: (row, column) of the picture on which the window is centred; with a stride, that of
          the last output pixel before it.

    Raises:
        TypeError, ValueError: an argument or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> explorer = UnfoldExplorer(torch.rand(3, 24, 32), torch.randn(3, 5, 5))
        >>> explorer.observe(lambda change: print(change.new, "of 25 maps"), "step")
        >>> explorer.step = 7
        7 of 25 maps
    """

    _esm = bundle("engine.js", "kit.js", "unfold.js")
    _css = source("explorer.css") + source("unfold.css")

    preset = traitlets.Unicode("edge").tag(sync=True, state=True)
    kernel_size = traitlets.Int(3).tag(sync=True, state=True)
    stride = traitlets.Int(1).tag(sync=True, state=True)
    dilation = traitlets.Int(1).tag(sync=True, state=True)
    step = traitlets.Int(1).tag(sync=True, state=True)
    move = traitlets.Bool(True).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)
    kernels = traitlets.Bytes(read_only=True).tag(sync=True)
    places = traitlets.Dict(read_only=True).tag(sync=True)  # name: [first, one past the last]
    sizes = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, image: Array | None = None, kernel: Array | None = None):
        own = None if kernel is None else _one_kernel(kernel)
        self._image = _picture(image, own)
        channels, height, width = self._image.shape
        self._bounds = {"pixel": (height, width)}
        self._kernels = _all_kernels(channels, own)
        named = {f"{preset}{k}": value for (preset, k), value in self._kernels.items()}
        kernels, places = packed({"kernels": named})
        constants = {
            "image": self._image.numpy().tobytes(),
            "kernels": kernels,
            "places": places["kernels"],
            "sizes": {"channels": channels, "height": height, "width": width},
        }
        rim = 7 if image is None else 2  # one seventh across: the flower's rim; else the middle
        start = {"step": 4, "pixel": (height // 2, width // rim)}
        if own is not None:
            start |= {"preset": "own", "kernel_size": own.shape[-1]}
        super().__init__("unfold", constants, **start)

    def current_kernel(self) -> torch.Tensor:
        """Return the kernel that the view shows now, ``[1, C, k, k]``, without its dilation.

        Example:
            >>> explorer = UnfoldExplorer()
            >>> explorer.preset = "blur"
            >>> explorer.current_kernel()[0, 0] * 16
            tensor([[1., 2., 1.],
                    [2., 4., 2.],
                    [1., 2., 1.]])
        """
        return self._kernels[self.preset, self.kernel_size][None].clone()

    def current_image(self) -> torch.Tensor:
        """Return a copy of the image, ``[C, H, W]``, float32."""
        return self._image.clone()

    @traitlets.validate("preset", "kernel_size", "stride", "dilation")
    def _offered(self, proposal):
        presets, name = sorted({preset for preset, _ in self._kernels}), proposal.trait.name
        offered = {"preset": presets, "kernel_size": KERNEL_SIZES}.get(name, range(1, MOST + 1))
        return one_of(name, proposal.value, offered)

    @traitlets.validate("step")
    def _counted(self, proposal):
        return between("step", proposal.value, 1, max(KERNEL_SIZES) ** 2)


def _picture(image, own) -> torch.Tensor:
    if image is None:
        flower = photograph("flower", 48)[0]
        return flower if own is not None and len(own) == 3 else _brightness(flower)
    if own is not None:
        return one_image(image, len(own), "with the channels of the kernel")
    grey = np.shape(image)[-3:-2] == (1,)
    return one_image(image, 1 if grey else 3, "or [1, H, W] for grey")


def _brightness(image: torch.Tensor) -> torch.Tensor:
    return (image * image.new_tensor(BRIGHTNESS)[:, None, None]).sum(0, keepdim=True)


def _one_kernel(kernel) -> torch.Tensor:
    """Return the kernel as float32 ``[C, k, k]`` on the CPU."""
    tensor = numbers("kernel", kernel, "[C, k, k]")
    own = tensor[0] if tensor.dim() == 4 and len(tensor) == 1 else tensor
    square = own.dim() == 3 and own.shape[1] == own.shape[2]
    if not square or own.shape[0] not in (1, 3) or own.shape[1] not in KERNEL_SIZES:
        raise ValueError(
            f"kernel must have the shape [C, k, k], C = 1 or 3 and k one of {KERNEL_SIZES}, but "
            f"{list(tensor.shape)} came; for one output channel of a layer pass weight[:1], for "
            "a kernel [k, k] pass kernel[None]."
        )
    return finite("kernel", own).clone()


def _all_kernels(channels: int, own) -> dict:
    """Return every kernel that is offered, ``[C, k, k]``, by preset and size."""
    weights = torch.tensor(BRIGHTNESS if channels == 3 else (1.0,))[:, None, None]
    made = {"edge": _edge, "sharpen": _sharpen, "blur": _blur}
    kernels = {(name, k): weights * make(k) for name, make in made.items() for k in KERNEL_SIZES}
    return kernels | ({} if own is None else {("own", k): _resized(own, k) for k in KERNEL_SIZES})


def _binomial(k: int) -> torch.Tensor:
    """Return row k−1 of Pascal's triangle, divided by its sum."""
    row = torch.ones(1)
    for _ in range(k - 1):
        row = (torch.cat([row, torch.zeros(1)]) + torch.cat([torch.zeros(1), row])) / 2
    return row


def _blur(k: int) -> torch.Tensor:
    return torch.outer(_binomial(k), _binomial(k))


def _sharpen(k: int) -> torch.Tensor:
    """Return twice the pixel minus its blur."""
    twice = torch.zeros(k, k)
    twice[k // 2, k // 2] = 2
    return twice - _blur(k)


def _edge(k: int) -> torch.Tensor:
    """Return Sobel's vertical edges for any size; for one pixel, which knows no edge, zero."""
    if k == 1:
        return torch.zeros(1, 1)
    smooth, none = _binomial(k - 2), torch.zeros(2)
    rise = torch.cat([none, smooth]) - torch.cat([smooth, none])
    return torch.outer(_binomial(k), rise) * 2 / rise.abs().sum()


def _resized(own: torch.Tensor, k: int) -> torch.Tensor:
    """Return the middle k×k of a kernel, with zeros around it where it is smaller."""
    ring = (k - own.shape[-1]) // 2
    return torch.nn.functional.pad(own, (ring, ring, ring, ring))
