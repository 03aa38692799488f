r"""A shift as a convolution: with one-hot kernels, then grouped, then learnable.

Chapter 03 tells the story (section 4.3 of the paper, "improved shift and summation").
"""

import torch
import torch.nn.functional as F
from torch import nn

from acmix_edu.checks import (
    alike,
    displacement,
    feature_map,
    floating,
    floating_dtype,
    odd_kernel,
    whole_number,
)


def shift_kernel(di: int, dj: int, kernel_size: int | None = None) -> torch.Tensor:
    r"""Return the one-hot kernel whose convolution is the shift by (di, dj).

    $$\begin{aligned} K_{p,q} = 1 &\text{ if } p = \lfloor k/2\rfloor+\Delta_x \\
    &\text{ and } q = \lfloor k/2\rfloor+\Delta_y, \text{ else } 0 \end{aligned}$$

    Args:
        di: rows; positive moves the picture up.
        dj: columns; positive moves the picture to the left.
        kernel_size: k, odd. When left out it is the smallest that reaches the displacement.

    Returns:
        ``[k, k]``.

    Example:
        >>> shift_kernel(-1, -1)
        tensor([[1., 0., 0.],
                [0., 0., 0.],
                [0., 0., 0.]])
    """
    di, dj = displacement("di", di), displacement("dj", dj)
    reach = max(abs(di), abs(dj))
    k = odd_kernel("kernel_size", 2 * reach + 1 if kernel_size is None else kernel_size)
    if reach > k // 2:
        raise ValueError(
            f"kernel_size must be at least {2 * reach + 1} to reach ({di}, {dj}), but {k} came."
        )
    kernel = torch.zeros(k, k)
    kernel[k // 2 + di, k // 2 + dj] = 1
    return kernel


def shift_kernels(kernel_size: int) -> torch.Tensor:
    """Return all k² one-hot kernels ``[k², k, k]``; number t is 1 at (t // k, t % k).

    Example:
        >>> shift_kernels(3)[5]
        tensor([[0., 0., 0.],
                [0., 0., 1.],
                [0., 0., 0.]])
    """
    k = odd_kernel("kernel_size", kernel_size)
    return torch.eye(k * k).reshape(k * k, k, k)


def shift_depthwise(f: torch.Tensor, di: int, dj: int) -> torch.Tensor:
    r"""Shift every channel of a map by a depthwise convolution with a one-hot kernel.

    For finite numbers and without autocast the result equals :func:`acmix_edu.shift` in every bit,
    except perhaps in the sign of a zero. It vectorises, because the library's convolution moves the
    data. It costs k² multiply-adds per pixel and channel, all but one of them by zero.

    Args:
        f: ``[B, C, H, W]``.
        di: rows; positive moves the picture up.
        dj: columns; positive moves the picture to the left.

    Returns:
        ``[B, C, H, W]``.

    Example:
        >>> shift_depthwise(torch.tensor([[[[1., 2., 3.]]]]), 0, 1)
        tensor([[[[2., 3., 0.]]]])
    """
    feature_map("f", f)
    kernel = shift_kernel(di, dj).to(f)
    k, channels = kernel.shape[0], f.shape[1]
    return F.conv2d(f, kernel.expand(channels, 1, k, k), padding=k // 2, groups=channels)


def shift_and_sum_grouped(maps: torch.Tensor, kernel_size: int) -> torch.Tensor:
    r"""Shift k² maps and add them up, in one grouped convolution with fixed kernels.

    The k² maps of a channel are the inputs of one group, and the k² one-hot kernels are its weight,
    so the convolution's own sum over input channels adds up the shifted maps.

    Args:
        maps: ``[B, k², C, H, W]``, as :func:`acmix_edu.pointwise_maps` makes them.
        kernel_size: k, odd.

    Returns:
        ``[B, C, H, W]``, equal to :func:`acmix_edu.shift_and_sum`, at k⁴·C multiply-adds per pixel.

    Example:
        >>> shift_and_sum_grouped(torch.randn(2, 9, 4, 5, 5), 3).shape
        torch.Size([2, 4, 5, 5])
    """
    floating("maps", maps)
    k = odd_kernel("kernel_size", kernel_size)
    if maps.dim() != 5 or maps.shape[1] != k * k:
        raise ValueError(
            f"maps must have the shape [B, {k * k}, C, H, W] for kernel_size={k}, but "
            f"{list(maps.shape)} came; make them with pointwise_maps."
        )
    channels = maps.shape[2]
    weight = shift_kernels(k).to(maps).expand(channels, k * k, k, k)
    return F.conv2d(maps.transpose(1, 2).flatten(1, 2), weight, padding=k // 2, groups=channels)


class LearnableShift(nn.Module):
    r"""Shift and sum as a grouped convolution that starts as the shift and may then learn.

    Group e holds the k² maps of dimension e and makes N = ``kernels`` outputs. Each output has k²
    kernels of its own, which start one-hot:

    $$\begin{aligned} g_{eN+n} &= \sum_{t=0}^{k^2-1} W_{eN+n,\,t} * \tilde g_{e k^2 + t} \\
    W_{c,t} &= \text{one-hot at } (t \,\mathrm{div}\, k,\; t \bmod k) \\
    &\quad \text{ at the start} \end{aligned}$$

    At the start the N outputs of a group are equal; training makes them differ. The layer is not an
    ``nn.Conv2d``, so a network that re-initialises its convolutions leaves the start alone.

    Args:
        dims: d, the number of groups.
        kernel_size: k, odd.
        kernels: N, the number of outputs of a group, each with its own k² kernels.
        stride: of the convolution; the output side is ⌈side/stride⌉.
        device, dtype: of the weight, as in every layer of PyTorch.

    Shape:
        ``[B, d·k², H, W]`` (dimension-major: channel e·k² + t) → ``[B, d·N, ⌈H/s⌉, ⌈W/s⌉]``
        (dimension-major: channel e·N + n). The weight is ``[d·N, k², k, k]``, which takes k⁴·d·N
        multiply-adds per output pixel.

    Example:
        >>> layer = LearnableShift(dims=2, kernel_size=3, kernels=4)
        >>> layer(torch.randn(1, 18, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        dims: int,
        kernel_size: int = 3,
        kernels: int = 1,
        stride: int = 1,
        device: torch.types.Device = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        floating_dtype(dtype)
        self.dims = whole_number("dims", dims)
        self.kernel_size = k = odd_kernel("kernel_size", kernel_size)
        self.kernels = whole_number("kernels", kernels)
        self.stride = whole_number("stride", stride)
        shape = self.dims * self.kernels, k * k, k, k
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every kernel back to its shift."""
        k = self.kernel_size
        with torch.no_grad():  # one by one: a weight sharded by FSDP allows nothing else
            self.weight.zero_()
            for t in range(k * k):
                self.weight[:, t, t // k, t % k].fill_(1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        feature_map("maps", maps, self.dims * self.kernel_size**2)
        alike("maps", maps, "the weight", self.weight)
        return F.conv2d(
            maps, self.weight, stride=self.stride, padding=self.kernel_size // 2, groups=self.dims
        )

    def extra_repr(self) -> str:
        return (
            f"dims={self.dims}, kernel_size={self.kernel_size}, kernels={self.kernels}, "
            f"stride={self.stride}"
        )
