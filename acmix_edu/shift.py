r"""Shift: move the maps instead of the window. Stage II of a convolution is shift and sum.

Chapter 02 tells the story. A displacement is (di, dj): di along the rows, dj along the columns. The
paper writes them Δx and Δy, so its Δx runs along i, the rows.
"""

import torch
from torch import nn

from acmix_edu.checks import (
    alike,
    displacement,
    feature_map,
    floating,
    odd_kernel,
    pair,
    whole_number,
)
from acmix_edu.convolution import pointwise_maps


def shift(f: torch.Tensor, di: int, dj: int, size: tuple[int, int] | None = None) -> torch.Tensor:
    r"""Move a map by a whole number of pixels (eq. 4).

    $$\tilde f_{i,j} = f_{i+\Delta_x,\; j+\Delta_y}$$

    Pixels that come from outside are zero. Nothing is multiplied or added; numbers only move in
    memory. Two shifts in a row equal one shift by the sum, except for what left the map in between.

    Args:
        f: ``[..., H, W]``.
        di: rows, the paper's Δx; positive moves the picture up.
        dj: columns, the paper's Δy; positive moves the picture to the left.
        size: (H', W') of the result, or one number for both; f's own size when left out.

    Returns:
        ``[..., H', W']``.

    Raises:
        TypeError: f is not a floating-point tensor, or a displacement or a side is not an int.
        ValueError: f has fewer than two dimensions, or size is negative or not one or two numbers.

    Example:
        >>> shift(torch.tensor([[1., 2., 3.]]), 0, 1)
        tensor([[2., 3., 0.]])
    """
    floating("f", f)
    if f.dim() < 2:
        raise ValueError(f"f must have the shape [..., H, W], but {list(f.shape)} came.")
    di, dj = displacement("di", di), displacement("dj", dj)
    height, width = f.shape[-2:] if size is None else pair("size", size, least=0)
    top, bottom = _overlap(di, f.shape[-2], height)
    left, right = _overlap(dj, f.shape[-1], width)
    moved = f.new_zeros(*f.shape[:-2], height, width)
    moved[..., top:bottom, left:right] = f[..., top + di : bottom + di, left + dj : right + dj]
    return moved


def _overlap(delta: int, size_in: int, size_out: int) -> tuple[int, int]:
    """Return the range of output positions for which position + delta lies inside the input."""
    start = min(max(0, -delta), size_out)
    return start, max(start, min(size_out, size_in - delta))


def shift_and_sum(
    maps: torch.Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str | None = None,
    dilation: int | tuple[int, int] = 1,
) -> torch.Tensor:
    r"""Apply Stage II of a convolution: shift each map to its place and add (eq. 7, 8).

    $$\begin{aligned} g_{ij} = \sum_{p,q} \mathrm{Shift}\bigl(&\tilde g^{(p,q)},\;
    p-\lfloor k/2\rfloor, \\ &q-\lfloor k/2\rfloor\bigr)_{ij} \end{aligned}$$

    With padding P and dilation D the displacement of position (p, q) is (p·D − P, q·D − P); with
    stride s only every s-th pixel of the result is kept.

    Args:
        maps: ``[B, k_h·k_w, C, H, W]``, as :func:`acmix_edu.pointwise_maps` makes them.
        kernel_size: int or (k_h, k_w).
        stride, dilation: int or pair, as in ``F.conv2d``.
        padding: int, pair, ``"same"`` or ``"valid"``, as in ``F.conv2d``. When left out it is the
            paper's ⌊k/2⌋, with which an odd kernel keeps the size of the map.

    Returns:
        ``[B, C, H', W']`` with H' = ⌊(H + 2P − D(k_h−1) − 1)/s⌋ + 1, at k_h·k_w·C additions per
        pixel.

    Example:
        >>> maps = pointwise_maps(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3))
        >>> shift_and_sum(maps, 3).shape
        torch.Size([1, 3, 5, 5])
    """
    floating("maps", maps)
    kh, kw = pair("kernel_size", kernel_size)
    (sh, sw), (dh, dw) = pair("stride", stride), pair("dilation", dilation)
    if maps.dim() != 5 or maps.shape[1] != kh * kw:
        raise ValueError(
            f"maps must have the shape [B, {kh * kw}, C, H, W] for the kernel_size "
            f"({kh}, {kw}), but {list(maps.shape)} came; make them with pointwise_maps."
        )
    (top, bottom), (left, right) = _padding(padding, (kh, kw), (sh, sw), (dh, dw))
    height = maps.shape[-2] + top + bottom - dh * (kh - 1)
    width = maps.shape[-1] + left + right - dw * (kw - 1)
    if height < 1 or width < 1:
        raise ValueError(
            f"the kernel ({kh}, {kw}) with dilation ({dh}, {dw}) is larger than the padded map: "
            f"{list(maps.shape[-2:])} and padding={padding!r} came; pad more."
        )
    total = maps.new_zeros(maps.shape[0], maps.shape[2], height, width)
    for t, f in enumerate(maps.unbind(1)):  # unbind: a slice's gradient is as large as all maps
        p, q = divmod(t, kw)
        total = total + shift(f, p * dh - top, q * dw - left, (height, width))
    return total[..., ::sh, ::sw]


def _padding(padding, kernel, stride, dilation) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((top, bottom), (left, right)) for any padding that ``F.conv2d`` takes."""
    if padding is None:
        padding = (kernel[0] // 2, kernel[1] // 2)
    if padding == "valid":
        padding = 0
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(
                f"padding='same' needs stride=1, as in F.conv2d, but stride={stride} came; "
                "give the padding as a number."
            )
        rows, columns = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    if isinstance(padding, str):
        raise ValueError(
            f"padding must be a number, a pair, 'same' or 'valid', but {padding!r} came."
        )
    rows, columns = pair("padding", padding, least=0)
    return (rows, rows), (columns, columns)


def decomposed_conv2d(
    f: torch.Tensor,
    kernel: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
) -> torch.Tensor:
    r"""Convolve in two stages: k² 1×1 convolutions, then shift and sum (eq. 6–8).

    The function takes the arguments of ``F.conv2d``, without groups, and gives the same result.

    Args:
        f: ``[B, C_in, H, W]``.
        kernel: ``[C_out, C_in, k_h, k_w]``, of any shape, square or not, odd or even.
        bias: ``[C_out]`` or None.
        stride, padding, dilation: as in ``F.conv2d``.

    Returns:
        ``[B, C_out, H', W']``. Stage I takes k_h·k_w·C_in·C_out multiply-adds per pixel, Stage II
        k_h·k_w·C_out additions.

    Example:
        >>> f, kernel = torch.randn(1, 2, 7, 9), torch.randn(3, 2, 3, 5)
        >>> torch.allclose(decomposed_conv2d(f, kernel, stride=2, padding=1),
        ...                torch.conv2d(f, kernel, stride=2, padding=1), atol=1e-5)
        True
    """
    maps, size = pointwise_maps(f, kernel), (kernel.shape[2], kernel.shape[3])
    g = shift_and_sum(maps, size, stride, padding, dilation)
    if bias is None:
        return g
    floating("bias", bias)
    if bias.shape != kernel.shape[:1]:
        raise ValueError(
            f"bias must have the shape [{kernel.shape[0]}], one number for each output "
            f"channel, but {list(bias.shape)} came."
        )
    alike("bias", bias, "f", f)
    return g + bias.type_as(g)[:, None, None]


class ShiftLayer(nn.Module):
    r"""Move each channel by one fixed displacement: Wu et al.'s zero-FLOP Shift.

    The channels are dealt out evenly over the k² displacements; channels that are left over stay in
    place. Between two 1×1 convolutions the layer takes the place of a k×k convolution:
    ``nn.Sequential(nn.Conv2d(c, c, 1), ShiftLayer(c), nn.Conv2d(c, c, 1))``.

    Args:
        channels: C, at least kernel_size².
        kernel_size: k, odd; the displacements are −⌊k/2⌋ … ⌊k/2⌋ in each direction.
        dilation: the step between displacements.

    Shape:
        ``[B, C, H, W]`` → ``[B, C, H, W]``, without parameters or multiply-adds.

    Example:
        >>> ShiftLayer(9)(torch.randn(1, 9, 5, 5)).shape
        torch.Size([1, 9, 5, 5])

    Source: B. Wu et al., *Shift: A Zero FLOP, Zero Parameter Alternative to Spatial
    Convolutions*, CVPR 2018.
    """

    def __init__(self, channels: int, kernel_size: int = 3, dilation: int = 1):
        super().__init__()
        self.channels = channels = whole_number("channels", channels)
        self.kernel_size = kernel_size = odd_kernel("kernel_size", kernel_size)
        self.dilation = whole_number("dilation", dilation)
        if channels < kernel_size**2:
            raise ValueError(
                f"channels must be at least kernel_size² = {kernel_size**2}, so that every "
                f"displacement has a channel, but {channels} came; use a smaller kernel_size."
            )

    def displacement(self, channel: int) -> tuple[int, int]:
        """Return the displacement (di, dj) of a channel."""
        if whole_number("channel", channel, least=0) >= self.channels:
            raise ValueError(f"channel must be from 0 to {self.channels - 1}, but {channel} came.")
        k, share = self.kernel_size, self.channels // self.kernel_size**2
        t = channel // share if channel < share * k * k else k * k // 2
        return self.dilation * (t // k - k // 2), self.dilation * (t % k - k // 2)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        feature_map("f", f, self.channels)
        share = self.channels // self.kernel_size**2
        parts = f.split(share, dim=1)  # what comes after the k²-th stays in place
        return torch.cat([shift(f, *self.displacement(n * share)) for n, f in enumerate(parts)], 1)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel_size={self.kernel_size}, dilation={self.dilation}"
