r"""A k×k convolution, taken apart: Stage I is k² separate 1×1 convolutions.

Chapter 01 tells the story. Output pixels are indexed by (i, j), kernel positions by (p, q), and
t = p·k_w + q numbers the kernel positions row by row.
"""

import torch
import torch.nn.functional as F

from acmix_edu.checks import alike, feature_map, floating


def conv2d_by_definition(f: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    r"""Convolve pixel by pixel, exactly as the definition is written (eq. 1).

    $$\begin{aligned} &g_{ij} = \\ &\quad \sum_{p,q} K_{p,q}\,
    f_{i+p-\lfloor k/2\rfloor,\; j+q-\lfloor k/2\rfloor} \end{aligned}$$

    Outside the map f is zero. This form is for reading and for testing against, not for use: it
    visits every pixel in a Python loop.

    Args:
        f: input map ``[B, C_in, H, W]``.
        kernel: ``[C_out, C_in, k_h, k_w]``, with odd sides.

    Returns:
        ``[B, C_out, H, W]``, at k_h·k_w·C_in·C_out multiply-adds per pixel.

    Example:
        >>> f, kernel = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
        >>> torch.allclose(conv2d_by_definition(f, kernel),
        ...                F.conv2d(f, kernel, padding=1), atol=1e-5)
        True
    """
    _check_kernel(f, kernel)
    if kernel.shape[2] % 2 == 0 or kernel.shape[3] % 2 == 0:
        raise ValueError(
            "kernel must have odd sides, so that it has a centre, but "
            f"{list(kernel.shape)} came; decomposed_conv2d takes even sides."
        )
    (height, width), (kh, kw) = f.shape[2:], kernel.shape[2:]
    g = f.new_zeros(f.shape[0], kernel.shape[0], height, width)
    for i in range(height):
        for j in range(width):
            for p in range(kh):
                for q in range(kw):
                    row, column = i + p - kh // 2, j + q - kw // 2
                    if 0 <= row < height and 0 <= column < width:
                        g[:, :, i, j] += f[:, :, row, column] @ kernel[:, :, p, q].T
    return g


def pointwise_maps(f: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    r"""Apply Stage I of a convolution: one 1×1 convolution for each kernel position (eq. 6).

    $$\tilde g_{ij}^{(p,q)} = K_{p,q}\, f_{ij}$$

    No pixel looks at a neighbour yet; that is Stage II, :func:`acmix_edu.shift_and_sum`.

    Args:
        f: input map ``[B, C_in, H, W]``.
        kernel: ``[C_out, C_in, k_h, k_w]``.

    Returns:
        ``[B, k_h·k_w, C_out, H, W]``; map t = p·k_w + q belongs to kernel position (p, q).
        The k_h·k_w·C_in·C_out multiply-adds per pixel are all that the convolution costs.

    Raises:
        TypeError: f or kernel is not a floating-point tensor, or their dtypes differ.
        ValueError: a shape is wrong, f and the kernel differ in C_in, or they are on two devices.

    Example:
        >>> pointwise_maps(torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)).shape
        torch.Size([1, 9, 3, 5, 5])
    """
    _check_kernel(f, kernel)
    _, _, kh, kw = kernel.shape
    return torch.stack(
        [F.conv2d(f, kernel[:, :, p : p + 1, q : q + 1]) for p in range(kh) for q in range(kw)],
        dim=1,
    )


def _check_kernel(f: torch.Tensor, kernel: torch.Tensor) -> None:
    """Raise unless ``kernel`` is ``[C_out, C_in, k_h, k_w]`` and fits the map ``f``."""
    floating("kernel", kernel)
    if kernel.dim() != 4 or 0 in kernel.shape:
        raise ValueError(
            "kernel must have the shape [C_out, C_in, k_h, k_w] with no side 0, but "
            f"{list(kernel.shape)} came; reshape it, for one map to one map with "
            "kernel[None, None]."
        )
    feature_map("f", f, channels=kernel.shape[1])
    alike("kernel", kernel, "f", f)
