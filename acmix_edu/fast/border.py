r"""Reflection without a padded copy: how often each key counts. Chapter 07 tells the story.

Reflection padding only repeats keys of the map, along each axis on its own. A window over the
padded map is therefore a set of the map's own keys, in which the key in row y and column x counts
$m_H(i, y)\cdot m_W(j, x)$ times. With a dilation below 3 that set is the window cut off at the
border; with a larger one, it may hold reflected keys between the positions of the window.
"""

import torch

from acmix_edu.attention import reflect
from acmix_edu.checks import odd_kernel, whole_number


def multiplicity(
    size: int,
    kernel_size: int,
    stride: int = 1,
    dilation: int = 1,
    device: torch.types.Device = None,
) -> torch.Tensor:
    r"""Count how often each key of a line appears in the reflected window of each query.

    $$\begin{aligned} m(i, y) = \#\{\, p :\; &|p - si| \le RD,\; D \mid p - si, \\
    &\text{reflection takes } p \text{ to } y \,\} \\
    &R = \lfloor k/2 \rfloor \end{aligned}$$

    It is 1 inside the map, 1 or 2 near the border (2 somewhere, if D is below 3), and 0 for keys
    that the window does not hold. It can be more than 2 only on a line of RD + 1 pixels or fewer.
    Each row adds up to k. At the border it is not symmetric: i and y cannot change places.

    Args:
        size: H, the length of the line.
        kernel_size: k, odd.
        stride: s; queries are taken at every s-th pixel.
        dilation: D, the distance in pixels between the keys of a window.

    Returns:
        int64 ``[⌈H/s⌉, H]``.

    Example:
        >>> multiplicity(4, 3)
        tensor([[1, 2, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 2, 1]])
    """
    size, k = whole_number("size", size), odd_kernel("kernel_size", kernel_size)
    stride, dilation = whole_number("stride", stride), whole_number("dilation", dilation)
    offsets = torch.arange(-(k // 2), k // 2 + 1, device=device) * dilation
    centres = torch.arange(0, size, stride, device=device)
    window = reflect(centres[:, None] + offsets, size)  # [⌈H/s⌉, k]
    return (window[..., None] == torch.arange(size, device=device)).sum(1)
