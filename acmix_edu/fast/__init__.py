"""The same mathematics without the k² copies, on every device. Chapter 07 tells the story."""

import torch

from acmix_edu import attention
from acmix_edu.fast import halo, triton_attention
from acmix_edu.fast.border import multiplicity
from acmix_edu.fast.choice import check_backend, kernel_runs
from acmix_edu.fast.convolution import compose, convolve, grouped_convolution, widen
from acmix_edu.fast.halo import band_attention, halo_attention

__all__ = [
    "attend",
    "band_attention",
    "check_backend",
    "compose",
    "convolve",
    "grouped_convolution",
    "halo_attention",
    "local_attention",
    "multiplicity",
    "widen",
]


def local_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kernel_size: int,
    pe: torch.Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    backend: str | None = None,
) -> torch.Tensor:
    """Attend to the window of every pixel, in the form that suits the device and the map.

    Args:
        q, k, v, kernel_size, pe, stride, dilation: as in :func:`acmix_edu.local_attention`.
        backend: None chooses the Triton kernel where it can run and plain PyTorch elsewhere (tiles
            with their halo, or bands on small maps), which is also what is traced and exported.
            Before its first use on a GPU the kernel is compared with the definition on a small map,
            once for each d, window, stride, dilation, dtype and memory format (but not while a CUDA
            graph is recorded, nor in a backward pass). If it fails, a UserWarning says so, and
            plain PyTorch runs. "unfold" is the definition, with its k² copies; "halo" is plain
            PyTorch; "triton" insists on the kernel, untried.

    Returns:
        ``[..., d, ⌈H/s⌉, ⌈W/s⌉]``, equal for all backends up to rounding.

    Raises:
        RuntimeError: backend is "triton" and the kernel cannot be used; the message says why.
        TypeError, ValueError: as for :func:`acmix_edu.local_attention`.

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 20, 20)
        >>> plain = local_attention(q, k, v, 7, backend="unfold")
        >>> fast = local_attention(q, k, v, 7)
        >>> torch.testing.assert_close(fast, plain)
    """
    attention.check_maps(q, k, v, kernel_size, pe, stride, dilation)
    return attend(q, k, v, kernel_size, pe, stride, dilation, backend)


def attend(q, k, v, kernel_size, pe, stride, dilation, backend) -> torch.Tensor:
    """As :func:`local_attention`, without its checks."""
    arguments = (q, k, v, kernel_size, pe, stride, dilation)
    if backend == "unfold":
        return attention.local_attention(*arguments)
    sizes = q.shape[-3], kernel_size, stride, dilation
    if kernel_runs(backend, triton_attention.why_not, _attention_trial, sizes, q, k, v):
        return triton_attention.attend(*arguments)
    return halo.attend(*arguments)


def _attention_trial(features: int, kernel_size: int, stride: int, dilation: int):
    """Return what the kernel is compared with on a GPU before it is trusted, and on which maps."""
    shapes, rest = [(1, 2, features, 12, 20)] * 3, (kernel_size, None, stride, dilation)
    return triton_attention.attend, attention.local_attention, shapes, rest
