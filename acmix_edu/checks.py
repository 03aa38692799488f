"""What may be passed in, said in one place: every check names what came and how to mend it."""

import torch


def whole_number(name: str, value: int, least: int = 1) -> int:
    """Return ``value`` if it is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"{name} must be a whole number of at least {least}, but {value!r} "
            f"({type(value).__name__}) came; pass an int such as {name}={max(least, 1)}."
        )
    if value < least:
        raise ValueError(
            f"{name} must be at least {least}, but {value} came; pass {name}={least} or more."
        )
    return value


def odd_kernel(name: str, value: int) -> int:
    """Return ``value`` if it is a positive odd int: only an odd window has a centre pixel."""
    whole_number(name, value)
    if value % 2 == 0:
        raise ValueError(
            f"{name} must be odd, so that the window has a centre pixel, but {value} came; "
            f"pass {name}={value - 1} or {name}={value + 1}."
        )
    return value


def pair(name: str, value, least: int = 1) -> tuple[int, int]:
    """Return ``value`` as (rows, columns): an int stands for both, as in ``F.conv2d``."""
    values = tuple(value) if isinstance(value, tuple | list | torch.Size) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an int or a pair (rows, columns), but {value!r} came.")
    return whole_number(name, values[0], least), whole_number(name, values[1], least)


def floating(name: str, x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` if it is a floating-point tensor."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, but a {type(x).__name__} came; "
            f"convert it with torch.as_tensor({name})."
        )
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must hold floating-point numbers, but its dtype is {x.dtype}; "
            f"convert it with {name}.float()."
        )
    return x


def feature_map(name: str, x: torch.Tensor, channels: int | None = None) -> torch.Tensor:
    """Return ``x`` if it is a non-empty map ``[B, C, H, W]`` with the expected C; B may be 0."""
    floating(name, x)
    if x.dim() != 4:
        mend = f"; add the batch with {name}.unsqueeze(0)" if x.dim() == 3 else ""
        raise ValueError(
            f"{name} must have the shape [B, C, H, W], but {list(x.shape)} came{mend}."
        )
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
