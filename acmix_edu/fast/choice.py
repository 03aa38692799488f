"""Which form runs: what the user asks for, what the device can do, and what has proved itself."""

import functools
import operator
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch

from acmix_edu.fast.triton_base import (
    assume_constant_result,
    cast_to,
    is_recorded,
    tf32_is_allowed,
)

BACKENDS = (None, "unfold", "halo", "triton")
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check_backend(backend: str | None) -> str | None:
    """Return ``backend`` if there is such a form of attention."""
    if backend not in BACKENDS:
        raise ValueError(
            f"backend must be one of {', '.join(map(repr, BACKENDS))}, but {backend!r} came; "
            "leave it out for the fastest."
        )
    return backend


def kernel_runs(backend: str | None, why_not, trial, sizes: tuple[int, ...], q, k, v) -> bool:
    """Return whether a kernel is to run on these maps; ``why_not`` says why it cannot, if so.

    With backend None, kernels run only on CUDA devices, and not in a file that others must be able
    to run; and only if the kernel has passed its trial there, for these sizes and this dtype.

    Raises:
        RuntimeError: backend is "triton" and there is a reason why not, which the message says.
        ValueError: there is no such backend.
    """
    check_backend(backend)  # which may have been set on a module since
    if backend in ("unfold", "halo") or (backend is None and (not q.is_cuda or is_recorded())):
        return False
    reason = why_not(q, k, v)
    if reason and backend == "triton":
        raise RuntimeError(f"backend='triton' cannot be used: {reason} Leave backend out.")
    if reason or backend == "triton":
        return reason is None
    return passes(trial, *known(sizes, q), cast_to(q), q.device)


def known(sizes: tuple[int, ...], f: torch.Tensor) -> tuple[tuple[int, ...], bool]:
    """Return the sizes, and whether f is channels-last, as what a graph is made for alone.

    They are then a plain int and bool for torch.compile, too, where it left them open.
    """
    channels_last = True if f.stride(-3) == 1 < f.shape[-3] else False
    return tuple(operator.index(size) for size in sizes), channels_last


@assume_constant_result  # run once, and not traced
def passes(trial, sizes, channels_last: bool, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a kernel agrees with the definition on this device.

    It is not tried where that cannot be done: while a CUDA graph is recorded, when nothing can be
    copied to the CPU, and inside a backward pass, whose thread would wait for itself.

    Args:
        trial: a function of the sizes, which returns the kernel, the definition, the shapes of the
            tensors that both take, and their other arguments.
        channels_last: whether the maps' features are side by side.
    """
    recording = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    if recording or torch._C._current_graph_task_id() >= 0:
        return True
    return _passes(trial, sizes, channels_last, dtype, device, tf32_is_allowed())


@functools.cache
def _passes(trial, sizes, channels_last, dtype, device, tf32) -> bool:
    """Let the kernel compute once, forward and backward; whatever goes wrong is a warning."""
    try:
        error = disagreement(trial, sizes, channels_last, dtype, device)
        allowed = max(TOLERANCE[dtype], 1e-2 if tf32 else 0)
        problem = None if error <= allowed else f"it is wrong by {error:.1e} of the largest number"
    except torch.OutOfMemoryError:
        raise  # it says nothing of the kernel
    except Exception as failure:  # of any kind: a compiler, a driver or a launch
        problem = " ".join(str(failure).split()).removesuffix(".")
    if problem:
        name = trial.__name__.strip("_").replace("_", " ")
        warnings.warn(
            f"ACmix's Triton kernel has failed its {name} on {device} ({dtype}, {sizes}): "
            f"{problem}. PyTorch's own operations take its place, which is slower.",
            stacklevel=2,
        )
    return problem is None


def disagreement(trial, sizes, channels_last, dtype, device) -> float:
    """Return by how much the kernel's output and gradients are wrong, at most.

    The unit is the largest number of each. The definition is computed in float64 on the CPU. All
    this is done in a thread of its own, which knows nothing of the user's modes: autocast,
    inference mode, checkpointing, fake tensors.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_disagreement, trial, sizes, channels_last, dtype, device).result()


def _disagreement(trial, sizes, channels_last, dtype, device) -> float:
    kernel, definition, shapes, rest = trial(*sizes)
    draw = torch.Generator().manual_seed(0)  # leaves the user's random numbers alone
    drawn = [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]
    given = [_side_by_side(f) if channels_last and f.dim() == 5 else f for f in drawn]
    found = _values(kernel, [f.to(device) for f in given], rest)
    exact = _values(definition, [f.double() for f in drawn], rest)
    errors = [(f.cpu() - e).abs().max() / e.abs().max()
              for f, e in zip(found, exact, strict=True)]  # fmt: skip
    return torch.stack(errors).max().item()  # NaN if one is


def _side_by_side(f: torch.Tensor) -> torch.Tensor:
    """Return a map ``[B, N, d, H, W]`` with the features of a pixel side by side in memory."""
    return f.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


def _values(form, tensors, rest) -> list[torch.Tensor]:
    """Return the output and all gradients."""
    tensors = [f.requires_grad_() for f in tensors]
    out = form(*tensors, *rest)
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out)
    return [f.detach().double() for f in (out, *torch.autograd.grad(out, tensors, weight))]
