"""The kernel explorer: a bench for one kernel."""

import math

import numpy as np
import torch
import torch.nn.functional as F
import traitlets

from acmix_edu.depthwise import shift_kernels
from acmix_edu.examples import photograph
from acmix_edu.explorers.explorer import Array, Explorer, finite, numbers, one_image, place
from acmix_edu.explorers.loader import bundle, source
from acmix_edu.training.released import trained_acmix

SIZES = (3, 5)
LARGEST = 100  # number that a kernel may hold


class KernelExplorer(Explorer):
    r"""Edit a kernel and see whether it is a shift.

    One map is convolved with one k×k kernel; outside the map there are zeros. A kernel with a
    single one at $(\lfloor k/2\rfloor+\Delta_x, \lfloor k/2\rfloor+\Delta_y)$, and zeros elsewhere,
    is the shift by $(\Delta_x, \Delta_y)$ in every bit.

    Args:
        image: floats ``[1, H, W]`` or ``[H, W]``, or colours ``[3, H, W]``, of which the mean is
            taken; at most 128×128 pixels. When left out, it is a temple.
        kernel: your own, ``[k, k]``, k = 3 or 5; the shift by (−1, −1) when left out.

    Traits:
        - kernel: its 9 or 25 numbers, row by row, each from −100 to 100.
        - pixel: (row, column) of the result whose sum is written out.

    Raises:
        TypeError, ValueError: an argument or a trait's new value cannot be used; the message
            says how to mend it. A new value of another type is a ``traitlets.TraitError``.

    Example:
        >>> from acmix_edu import shift_kernels
        >>> explorer = KernelExplorer(torch.rand(24, 32), shift_kernels(3)[5])
        >>> explorer.observe(lambda change: print("sum", sum(change.new)), "kernel")
        >>> explorer.displacement()
        (0, 1)
        >>> explorer.kernel = [0.25] * 9
        sum 2.25
    """

    _esm = bundle("engine.js", "kit.js", "kernel.js")
    _css = source("explorer.css") + source("kernel.css")

    kernel = traitlets.List(traitlets.Float()).tag(sync=True, state=True)
    pixel = place().tag(sync=True, state=True)

    image = traitlets.Bytes(read_only=True).tag(sync=True)
    sizes = traitlets.Dict(read_only=True).tag(sync=True)
    # a trained kernel: name, numbers
    learnt = traitlets.List(traitlets.Any(), read_only=True).tag(sync=True)

    def __init__(self, image: Array | None = None, kernel: Array | None = None):
        self._image = _one_map(photograph("china", 48)[0] if image is None else image)
        height, width = self._image.shape[1:]
        self._bounds = {"pixel": (height, width)}
        start = [1.0] + [0.0] * 8 if kernel is None else _numbers(kernel)
        constants = {
            "image": self._image.numpy().tobytes(),
            "sizes": {"height": height, "width": width},
            "learnt": _typical(trained_acmix().dep_conv.weight.detach()),
        }
        super().__init__("kernel", constants, kernel=start, pixel=(height // 2, width // 2))

    def current_image(self) -> torch.Tensor:
        """Return a copy of the map that is convolved, ``[1, H, W]``, float32."""
        return self._image.clone()

    def current_kernel(self) -> torch.Tensor:
        """Return the kernel on the bench, ``[k, k]``, float32."""
        side = math.isqrt(len(self.kernel))
        return torch.tensor(self.kernel, dtype=torch.float32).view(side, side)

    def displacement(self) -> tuple[int, int] | None:
        """Return (Δx, Δy) if the kernel is one-hot and therefore a shift, else None."""
        kernel = self.current_kernel()
        if kernel.count_nonzero() != 1 or kernel.sum() != 1:
            return None
        row, column = divmod(int(kernel.argmax()), len(kernel))
        return row - len(kernel) // 2, column - len(kernel) // 2

    def result(self) -> torch.Tensor:
        """Return the convolution that the view shows now, ``[1, H, W]``.

        Example:
            >>> from acmix_edu import shift
            >>> explorer = KernelExplorer()
            >>> torch.equal(explorer.result(), shift(explorer.current_image(), -1, -1))
            True
        """
        kernel = self.current_kernel()
        return F.conv2d(self._image, kernel[None, None], padding=len(kernel) // 2)

    @traitlets.validate("kernel")
    def _square(self, proposal):
        weights, lengths = proposal.value, [k * k for k in SIZES]
        if len(weights) not in lengths:
            raise ValueError(
                f"kernel must hold 9 or 25 numbers, row by row, but {len(weights)} came; "
                "pass weight.flatten().tolist()."
            )
        if not all(abs(weight) <= LARGEST for weight in weights):
            raise ValueError(
                f"kernel must hold numbers from -{LARGEST} to {LARGEST}, but {weights} came; "
                "divide it by its largest absolute value."
            )
        return weights


def _one_map(image) -> torch.Tensor:
    """Return the image as ``[1, H, W]``; of three channels it is their mean."""
    colours = np.shape(image)[-3:-2] == (3,)
    x = one_image(image, 3 if colours else 1, "or [H, W], or [3, H, W] for colours")
    return x.mean(0, keepdim=True)


def _numbers(kernel) -> list[float]:
    """Return the numbers of a kernel ``[k, k]``, row by row."""
    own = numbers("kernel", kernel, "[k, k]")
    if own.shape not in [(k, k) for k in SIZES]:
        raise ValueError(
            f"kernel must have the shape [k, k], k one of {SIZES}, but {list(own.shape)} came; "
            "for a layer's weight, pass weight[0, 0]."
        )
    return finite("kernel", own).flatten().tolist()


def _typical(weight: torch.Tensor) -> list:
    """Return, with a name, the numbers of the kernel that training moved by the median distance."""
    change = (weight - shift_kernels(weight.shape[-1])).flatten(2).norm(dim=2).flatten()
    typical = weight.flatten(0, 1)[change.median(0).indices].flatten().tolist()
    return ["learnt: a typical one (chapter 9)", [round(number, 3) for number in typical]]
