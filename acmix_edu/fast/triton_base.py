"""What the Triton kernels share: where they can run, and how PyTorch gets to know them."""

import functools
import warnings

import torch
from torch.autograd import forward_ad

try:
    import triton
    import triton.language as tl
except ImportError:  # no kernel will run then: see no_triton
    triton = tl = None


def kernel(function):
    """Hand a function over to Triton, if Triton is installed."""
    return function if triton is None else triton.jit(function)


@kernel
def _nothing():
    pass


INTERPRETED = triton is not None and not isinstance(_nothing, triton.JITFunction)


def capability(device: torch.device) -> tuple[int, int]:
    """Return the device's compute capability; Triton's interpreter can do what 8.0 can."""
    return (8, 0) if INTERPRETED else torch.cuda.get_device_capability(device)


def assume_constant_result(function):
    """Do as ``torch.compiler.assume_constant_result``, which would load all of torch._dynamo."""
    function._dynamo_marked_constant = True
    return function


@assume_constant_result  # asked once, and not traced
def no_driver() -> str | None:
    """Return why Triton cannot start a kernel on this machine's GPU, or None if it can."""
    return None if INTERPRETED else _driver_failure()


@functools.cache
def _driver_failure() -> str | None:
    """Let Triton build what starts its kernels, for which it needs a C compiler and Python.h.

    Return the reason if it cannot, or None.
    """
    try:
        _ = triton.runtime.driver.active.utils
    except Exception as error:  # of any kind: a compiler or a linker finds what is missing
        found = " ".join(str(error).split()).removesuffix(".")
        reason = f"Triton cannot start kernels here: {found}."
        warnings.warn(f"{reason} ACmix is slower without them.", stacklevel=2)
        return reason
    return None


def cast_to(f: torch.Tensor) -> torch.dtype:
    """Return the dtype to compute in: autocast's if it is on, but float64 is left alone."""
    kind = f.device.type
    cast = f.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if cast else f.dtype


def tf32_is_allowed() -> bool:
    """Return whether ``set_float32_matmul_precision`` allows PyTorch to round float32 products."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def no_triton(f: torch.Tensor) -> str | None:
    """Return, in one sentence, why no kernel can take a map like f, or None if one can."""
    if triton is None:
        return "Triton is not installed; pip install triton."
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 6):
        return f"The kernel needs Triton 3.6 or newer, but {triton.__version__} is installed."
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "The Triton kernel has no rules for torch.func and forward-mode differentiation."
    if torch.version.hip:
        return "The Triton kernel has not been tried on ROCm."
    if not INTERPRETED and f.device.type != "cuda":
        return f"The Triton kernel needs a CUDA device, but the maps are on {f.device}."
    dtype, found = cast_to(f), capability(f.device)
    if found < (7, 5):
        return f"The Triton kernel needs compute capability 7.5, but {f.device} has {found}."
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"The Triton kernel computes in float32, float16 or bfloat16, not in {dtype}."
    if dtype == torch.bfloat16 and (INTERPRETED or found < (8, 0)):
        return "bfloat16 needs compute capability 8.0; use float16 or float32."
    return no_driver()


def empty_map(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Return an empty map ``[B, N, d, H, W]``, without gaps, in the memory format of ``like``."""
    order = (0, 3, 4, 1, 2) if is_channels_last(like) else (0, 1, 2, 3, 4)
    return torch.empty_permuted(shape, order, dtype=like.dtype, device=like.device)


def is_channels_last(f: torch.Tensor) -> bool:
    """Return whether the features of a pixel are side by side in a map ``[B, N, d, H, W]``."""
    return f.stride(2) == 1 < f.shape[2]


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def in_aligns(f: torch.Tensor, align: int) -> tuple[int, ...]:
    """Return the strides of a map, all but the last of them counted in ``align``."""
    *strides, last = f.stride()
    return *(stride // align for stride in strides), last


def too_large(*maps: torch.Tensor, copies: int = 1) -> str | None:
    """Return a sentence if 32 bits cannot tell an image's numbers apart, or None if they can."""
    for f in maps:
        extent = sum(
            (side - 1) * step for side, step in zip(f.shape[-4:], f.stride()[-4:], strict=True)
        )
        if max(extent, copies * f.shape[-4:].numel()) >= 2**31:
            return "The Triton kernel takes images of fewer than 2³¹ numbers, gradients included."
    return None


@assume_constant_result  # PyTorch 2.11 would say yes in every compiled graph
def is_exporting() -> bool:
    """Return whether torch.export is making a graph of this."""
    return torch.compiler.is_exporting()


def is_recorded() -> bool:
    """Return whether this will end in a file that others must be able to run."""
    return torch.jit.is_tracing() or is_exporting()


def no_second_gradients(*_):
    raise NotImplementedError(
        'the fast forms have no second derivatives; take them with backend="unfold".'
    )


def register(name, arguments, run, allocate, differentiate=no_second_gradients, keep=None) -> None:
    """Make a function known to PyTorch: to autograd, torch.compile and fake tensors."""
    torch.library.define(name, arguments)
    torch.library.impl(name, ("cpu", "cuda"), run)  # on the CPU only Triton's interpreter can run
    torch.library.register_fake(name, allocate)
    torch.library.register_autograd(name, differentiate, setup_context=keep)
