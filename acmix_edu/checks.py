"""The checks of arguments, in one place: each message says what came and how to mend it."""

import math
import operator

import torch


def whole_number(name: str, value: int, least: int = 1) -> int:
    """Return a whole number, NumPy's included, as an int if it is at least ``least``."""
    if torch.jit.is_tracing():
        return value  # sizes are symbols there
    number = _integer(value)
    if number is None:
        raise TypeError(
            f"{name} must be a whole number of at least {least}, but {_shown(value)} "
            f"({type(value).__name__}) came; pass an int such as {name}={max(least, 1)}."
        )
    if number < least:
        raise ValueError(
            f"{name} must be at least {least}, but {value} came; pass {name}={least} or more."
        )
    return number


def _integer(value) -> int | None:
    """Return what Python takes for an index as an int, except a bool; None for all else."""
    if isinstance(value, int | torch.SymInt):  # SymInt: a size that an exporter leaves open
        return None if isinstance(value, bool) else value  # type: ignore[return-value]
    try:
        return operator.index(value)
    except TypeError:
        return None


def _shown(value) -> str:
    """Return what came in a form short enough to read."""
    if isinstance(value, torch.Tensor) and value.dim():
        return f"a tensor of shape {list(value.shape)}"
    return repr(value)


def whole_numbers(**values: int) -> list[int]:
    """Return the values as ints of at least 1, in the order in which they are named."""
    return [whole_number(name, value) for name, value in values.items()]


def displacement(name: str, value: int) -> int:
    """Return a displacement as an int; it may be negative."""
    number = _integer(value)
    if number is None:
        raise TypeError(
            f"{name} must be a whole number of pixels, but {_shown(value)} came; "
            "a shift by parts of a pixel is an interpolation."
        )
    return number


def floating_dtype(dtype: torch.dtype | None) -> None:
    """Raise unless ``dtype`` is None, PyTorch's default, or floating-point with 16 bits or more."""
    if dtype is None or (isinstance(dtype, torch.dtype) and _computes(dtype)):
        return
    raise TypeError(
        f"dtype must be a floating-point torch.dtype of 16 bits or more, but {dtype!r} came; "
        "pass dtype=torch.float32, or leave it out."
    )


def _computes(dtype: torch.dtype) -> bool:
    """Return whether PyTorch computes in this dtype; 8-bit floats it stores, but cannot add."""
    return dtype.is_floating_point and dtype.itemsize > 1


def divisible(name: str, value: int, by_name: str, by: int) -> None:
    """Raise unless ``by`` divides ``value``."""
    if value % by:
        raise ValueError(
            f"{name} must be divisible by {by_name}, but {name}={value} and {by_name}={by} came; "
            f"pass {name}={-(-value // by) * by}, or a {by_name} that divides {value}."
        )


def odd_kernel(name: str, value: int) -> int:
    """Return ``value`` if it is a positive odd int: only an odd window has a centre pixel."""
    value = whole_number(name, value)
    if value % 2 == 0:
        raise ValueError(
            f"{name} must be odd, so that the window has a centre pixel, but {value} came; "
            f"pass {name}={value - 1} or {name}={value + 1}."
        )
    return value


def pair(name: str, value, least: int = 1) -> tuple[int, int]:
    """Return ``value`` as (rows, columns): an int stands for both, as in ``F.conv2d``."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an int or a pair (rows, columns), but {value!r} came.")
    return whole_number(name, values[0], least), whole_number(name, values[1], least)


def floating(name: str, x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` if it is a floating-point tensor."""
    if not isinstance(x, torch.Tensor):
        mend = f"convert it with torch.as_tensor({name})"
        if isinstance(x, list | tuple) and any(isinstance(f, torch.Tensor) for f in x):
            mend = f"join its tensors with torch.stack({name})"
        if isinstance(x, torch.fx.Proxy):
            mend = "make the module a leaf of torch.fx, or use torch.export"
        raise TypeError(f"{name} must be a torch.Tensor, but a {type(x).__name__} came; {mend}.")
    if not _computes(x.dtype):
        mend = f"convert it with {name}.float()"
        if x.is_complex():
            mend = f"take {name}.abs() or {name}.real"
        if x.is_quantized:
            mend = f"pass {name}.dequantize(), and leave the module out of the quantization"
        raise TypeError(
            f"{name} must hold floating-point numbers of 16 bits or more, but its dtype is "
            f"{x.dtype}; {mend}."
        )
    if x.layout != torch.strided or x.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, but a sparse or nested one came; "
            f"convert a sparse one with {name}.to_dense()."
        )
    return x


def alike(name: str, x: torch.Tensor, other: str, y: torch.Tensor) -> None:
    """Raise unless ``x`` has the device and dtype of ``y``; autocast may mend the dtype."""
    if x.device != y.device:
        raise ValueError(
            f"{name} must be on the device of {other}, {y.device}, but it is on {x.device}; "
            f"move one of them, for example with {name}.to({str(y.device)!r})."
        )
    if x.dtype == y.dtype:
        return
    castable = torch.float64 not in (x.dtype, y.dtype)  # autocast leaves that alone
    autocast = x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)
    if not (autocast and castable):
        raise TypeError(
            f"{name} must have the dtype of {other}, {y.dtype}, but {x.dtype} came; convert one of "
            f"them, for example with {name}.to({y.dtype})"
            + (", or use torch.autocast." if castable else ".")
        )


def feature_map(name: str, x: torch.Tensor, channels: int | None = None) -> torch.Tensor:
    """Return ``x`` if it is a non-empty map ``[B, C, H, W]`` with the expected C; B may be 0."""
    floating(name, x)
    if x.dim() != 4:
        mend = f"; add the batch with {name}.unsqueeze(0)" if x.dim() == 3 else ""
        raise ValueError(
            f"{name} must have the shape [B, C, H, W], but {list(x.shape)} came{mend}."
        )
    if torch.jit.is_tracing():
        return x  # its shape is made of symbols
    if channels is not None and x.shape[1] != channels:
        mend = (
            f"; {name} looks channels-last in shape, use {name}.permute(0, 3, 1, 2)"
            if x.shape[3] == channels
            else ""
        )
        raise ValueError(
            f"{name} must have {channels} channels in dimension 1, but its shape is "
            f"{list(x.shape)}, which has {x.shape[1]}{mend}."
        )
    if 0 in x.shape[1:]:
        raise ValueError(
            f"{name} must have at least one channel and one pixel, but its shape is "
            f"{list(x.shape)}; only the batch may be empty."
        )
    return x


def same_shape(
    name_a: str, a: torch.Tensor, name_b: str, b: torch.Tensor, features: bool = True
) -> None:
    """Raise unless two maps ``[..., d, H, W]`` fit each other; ``features=False`` lets d differ."""
    floating(name_a, a)
    floating(name_b, b)
    one_shape(name_a, a, name_b, b, features)
    alike(name_b, b, name_a, a)


def one_shape(
    name_a: str, a: torch.Tensor, name_b: str, b: torch.Tensor, features: bool = True
) -> None:
    """Raise unless the shapes of two maps fit, as :func:`same_shape` says."""
    if torch.jit.is_tracing():
        return  # the shapes are symbols there
    agree = a.shape == b.shape if features else _without_features(a) == _without_features(b)
    if min(a.dim(), b.dim()) < 3 or not agree:
        same = "one shape [..., d, H, W]" if features else "one shape [..., d, H, W] but for d"
        raise ValueError(
            f"{name_a} and {name_b} must have {same}, but {list(a.shape)} and {list(b.shape)} came."
        )
    if 0 in a.shape[-3:] or 0 in b.shape[-3:]:
        raise ValueError(
            f"{name_a} and {name_b} must have no side 0, but {list(a.shape)} and {list(b.shape)} "
            "came; only the batch may be empty."
        )


def _without_features(f: torch.Tensor) -> torch.Size:
    return f.shape[:-3] + f.shape[-2:]


def fitting_state(module: torch.nn.Module, state: dict, prefix: str, errors: list[str]) -> None:
    """Add an error if a state does not fit an ACmix, to say what the state was saved from.

    PyTorch itself names each tensor that does not fit.
    """
    name = prefix[:-1] or "The module"
    if prefix + "projections" in state:
        errors.append(
            f"{name} is an ACmix, and the state is of a deployed one, which cannot be taken apart "
            "again; load it into deploy(network)."
        )
    came = ((state.get(prefix + name), own) for name, own in module.named_parameters())
    if any(isinstance(value, torch.Tensor) and value.shape != own.shape for value, own in came):
        errors.append(
            f"{name} is ACmix({module.extra_repr()}), which does not fit; "
            "build it with the in_planes, out_planes, head and kernel_conv that the state was "
            f"saved from{_saved_from(state, prefix)}."
        )


def _saved_from(state: dict, prefix: str) -> str:
    """Guess the arguments that a state was saved from, for the error message."""
    projection, light = state.get(prefix + "conv1.weight"), state.get(prefix + "fc.weight")
    if projection is None or light is None or projection.dim() != 4 or light.dim() != 4:
        return ""
    return (
        f" (its shapes say in_planes={projection.shape[1]}, out_planes={projection.shape[0]}, "
        f"head={light.shape[1] // 3}, kernel_conv={math.isqrt(light.shape[0])})"
    )
