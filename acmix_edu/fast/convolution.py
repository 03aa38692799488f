r"""The convolution path without its k_c²·d maps. Chapter 07 tells the story.

For each dimension, fc makes k_c² maps from the 3N maps, and dep_conv shifts and sums them. Both are
linear, so one grouped convolution from the 3N maps to the N outputs does the work of both.
"""

import functools
import math

import torch
import torch.nn.functional as F

from acmix_edu.attention import check_maps
from acmix_edu.checks import (
    alike,
    divisible,
    feature_map,
    floating,
    one_shape,
)
from acmix_edu.fast import triton_convolution
from acmix_edu.fast.choice import kernel_runs
from acmix_edu.fast.triton_base import cast_to, is_recorded

# PyTorch's fast convolution takes groups of 8, 16, … float32 outputs, and a slow one the others.
# With AVX-512 the fast one takes groups of 4, too, but not for the gradient of the weight.
VECTOR = 8 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 1


def compose(fc: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    r"""Multiply ``fc`` into the shift kernels.

    $$W_{eN+n,\,m} = \sum_t \mathrm{dep}_{eN+n,\,t}\; \mathrm{fc}_{t,m}$$

    Args:
        fc: ``[k_c², 3N, 1, 1]``.
        shifts: ``[d·N, k_c², k_c, k_c]``, the weight of ``dep_conv``.

    Returns:
        ``[d·N, 3N, k_c, k_c]``, for d groups of 3N inputs and N outputs.

    Example:
        >>> compose(torch.randn(9, 12, 1, 1), torch.randn(64, 9, 3, 3)).shape
        torch.Size([64, 12, 3, 3])
    """
    # contiguous: else the convolution takes the weight, and so its input, for channels-last
    return torch.einsum("otpq,tm->ompq", shifts, fc.flatten(1)).contiguous()


def widen(weight: torch.Tensor, groups: int, by: int) -> torch.Tensor:
    """Join every ``by`` groups of a grouped convolution into one, with zeros between them.

    It stays the same convolution, with ``by`` times the multiply-adds. It pays where ACmix's groups
    of 3N inputs and N outputs are too narrow for the vectors of a CPU. As 0·∞ is not 0, an infinite
    number in one group spoils the groups that it is joined with.

    Args:
        weight: ``[G·n, m, k, k]``, for G groups of m inputs and n outputs.
        groups: G.
        by: a divisor of G.

    Returns:
        ``[G·n, by·m, k, k]``, for G/by groups.

    Example:
        >>> x, weight = torch.randn(1, 192, 7, 7), torch.randn(64, 12, 3, 3)
        >>> narrow = F.conv2d(x, weight, groups=16)
        >>> wide = F.conv2d(x, widen(weight, 16, 2), groups=8)
        >>> torch.testing.assert_close(wide, narrow, atol=1e-4, rtol=1e-4)
    """
    divisible("groups", groups, "by", by)
    blocks = weight.unflatten(0, (groups // by, by, -1))
    diagonal = torch.eye(by, dtype=weight.dtype, device=weight.device)
    return torch.einsum("gbnmpq,bc->gbncmpq", blocks, diagonal).flatten(0, 2).flatten(1, 2)


def grouped_convolution(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weight: torch.Tensor,
    stride: int = 1,
    backend: str | None = None,
    stacked: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolve the 3N maps of each dimension to its N outputs, all dimensions at once.

    Args:
        q, k, v: ``[B, N, d, H, W]``.
        weight: ``[d·N, 3N, k_c, k_c]``, from :func:`compose`.
        stride: the output side is ⌈side/stride⌉.
        backend: None takes the Triton kernel where it can run, after a trial as that of
            :func:`acmix_edu.fast.local_attention`, else PyTorch's convolution; "triton" insists on
            the kernel; "halo" and "unfold" take PyTorch's convolution.
        stacked: q, k and v side by side, ``[B, d·3N, H, W]``, if they are in memory in this order
            already: PyTorch's convolution needs that, the kernel does not.

    Returns:
        ``[B, d·N, H', W']``, dimension-major, at 3·k_c²·N multiply-adds per pixel and channel,
        where fc and dep_conv take 3·k_c² + k_c⁴. On a CPU :func:`widen` may add others, all by
        zero.

    Raises:
        RuntimeError: backend is "triton" and the kernel cannot be used; the message says why.
        TypeError, ValueError: q, k, v and the weight do not fit each other, or there is no such
            backend.

    Example:
        >>> maps = torch.randn(3, 2, 4, 16, 7, 7)
        >>> grouped_convolution(*maps, torch.randn(64, 12, 3, 3)).shape
        torch.Size([2, 64, 7, 7])
    """
    check_maps(q, k, v, 1, stride=stride)
    _check_weight(q, v, weight)
    if stacked is not None and not torch.jit.is_tracing():
        feature_map("stacked", stacked, 3 * q.shape[1] * q.shape[2])
        one_shape("stacked", stacked[:, :1], "q", q[:, 0, :1])
    return convolve(q, k, v, weight, stride, backend, stacked)


def convolve(q, k, v, weight, stride, backend, stacked=None) -> torch.Tensor:
    """As :func:`grouped_convolution`, without its checks."""
    sizes = q.shape[1], weight.shape[-1], stride
    if kernel_runs(backend, triton_convolution.why_not, _convolution_trial, sizes, q, k, v):
        return triton_convolution.run(q, k, v, weight, stride)
    if stacked is None:
        stacked = torch.cat([f.transpose(1, 2) for f in (q, k, v)], dim=2).flatten(1, 2)
    groups, by = q.shape[2], _groups_in_a_vector(q)
    weight = weight if by == 1 else widen(weight, groups, by)
    half = weight.shape[-1] // 2
    if torch.jit.is_tracing():
        weight = weight.type_as(stacked)  # what autocast does to products is not in the trace
    return F.conv2d(stacked, weight, stride=stride, padding=half, groups=groups // by)


def _convolution_trial(heads: int, size: int, stride: int):
    """Return what the kernel is compared with on a GPU before it is trusted, and on which maps."""
    shapes = [(1, heads, 16, 12, 20)] * 3 + [(16 * heads, 3 * heads, size, size)]
    return triton_convolution.run, functools.partial(convolve, backend="halo"), shapes, (stride,)


def _groups_in_a_vector(q: torch.Tensor) -> int:
    """Return how many groups fill this CPU's vectors, or 1 where that does not pay."""
    if is_recorded() or q.device.type != "cpu" or cast_to(q) != torch.float32:
        return 1
    heads, d = q.shape[1:3]
    by = VECTOR // math.gcd(VECTOR, heads)
    return by if d % by == 0 else 1


def _check_weight(q: torch.Tensor, v: torch.Tensor, weight: torch.Tensor) -> None:
    if torch.jit.is_tracing():
        return  # the shapes are symbols there
    if q.dim() != 5 or v.shape != q.shape:
        raise ValueError(
            "q, k and v must have one shape [B, N, d, H, W], but q has "
            f"{list(q.shape)} and v {list(v.shape)}; cut a map with split_heads(map, N)."
        )
    heads, d = q.shape[1:3]
    shape = floating("weight", weight).shape
    if len(shape) != 4 or shape[:2] != (d * heads, 3 * heads) or shape[2] != shape[3]:
        raise ValueError(
            f"weight must have the shape [{d * heads}, {3 * heads}, k_c, k_c] for {heads} heads of "
            f"{d}, but {list(weight.shape)} came; make it with compose(fc, shifts)."
        )
    if shape[3] % 2 == 0:
        raise ValueError(
            f"weight must have an odd k_c, so that the kernel has a centre pixel, but "
            f"{list(shape)} came; make it with compose(fc, shifts)."
        )
    alike("weight", weight, "q", q)
