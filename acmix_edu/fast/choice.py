"""Which form runs: what the user asks for, what the device can do, and what has proved itself."""

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch

from acmix_edu.fast.triton_base import (
    assume_constant_result,
    cast_to,
    is_recorded,
    power_of_two,
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


def kernel_runs(backend: str | None, why_not, trial, size: int, q, k, v) -> bool:
    """Return whether a kernel is to run on these maps; ``why_not`` says why it cannot, if so.

    With backend None, kernels run only on CUDA devices, and not in a file that others must be able
    to run; and only if this kernel has passed its trial there, in this dtype, for this size.

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
    return passes(trial, power_of_two(size), cast_to(q), q.device)


@assume_constant_result  # run once, and not traced
def passes(trial, size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a kernel agrees with the definition on this device.

    Args:
        trial: a function of the size, which returns the kernel, the definition, the shapes of the
            tensors that both take, and their other arguments.
    """
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return True  # nothing can be copied to the CPU now, to compare it
    return _passes(trial, size, dtype, device, tf32_is_allowed())


@functools.cache
def _passes(trial, size, dtype, device, tf32) -> bool:
    """Let the kernel compute once, forward and backward; whatever goes wrong is a warning."""
    try:
        error = disagreement(trial, size, dtype, device)
        allowed = max(TOLERANCE[dtype], 1e-2 if tf32 else 0)
        problem = None if error <= allowed else f"it is wrong by {error:.1e} of the largest number"
    except Exception as failure:  # of any kind: a compiler, a driver or a launch
        problem = " ".join(str(failure).split()).removesuffix(".")
    if problem:
        name = trial.__name__.strip("_").replace("_", " ")
        warnings.warn(
            f"ACmix's Triton kernel has failed its {name} on {device} ({dtype}, size {size}): "
            f"{problem}. PyTorch's own operations take its place, which is slower.",
            stacklevel=2,
        )
    return problem is None


def disagreement(trial, size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return by how much the kernel's output and gradients are wrong, at most.

    The unit is the largest number of each. The definition is computed in float64 on the CPU. All
    this is done in a thread of its own, which knows nothing of the user's modes: autocast,
    inference mode, checkpointing, fake tensors.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_disagreement, trial, size, dtype, device).result()


def _disagreement(trial, size, dtype, device) -> float:
    kernel, definition, shapes, rest = trial(size)
    draw = torch.Generator().manual_seed(0)  # leaves the user's random numbers alone
    drawn = [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]
    found = _values(kernel, [f.to(device) for f in drawn], rest)
    exact = _values(definition, [f.double() for f in drawn], rest)
    errors = [(f.cpu() - e).abs().max() / e.abs().max()
              for f, e in zip(found, exact, strict=True)]  # fmt: skip
    return torch.stack(errors).max().item()  # NaN if one is


def _values(form, tensors, rest) -> list[torch.Tensor]:
    """Return the output and all gradients."""
    tensors = [f.requires_grad_() for f in tensors]
    out = form(*tensors, *rest)
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out)
    return [f.detach().double() for f in (out, *torch.autograd.grad(out, tensors, weight))]
