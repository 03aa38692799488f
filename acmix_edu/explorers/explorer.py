"""What every explorer has: its name, its state, and the start to which "Reset" leads back."""

import copy
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets

from acmix_edu.acmix import ACmix
from acmix_edu.altered import refuse_other_layers, refuse_other_stages
from acmix_edu.checks import odd_kernel, whole_number

Array = torch.Tensor | np.ndarray
MOST_PIXELS = 128 * 128
MOST_WINDOW = {"kernel_att": 13, "dilation": 4}  # unless the module has more
WEIGHTS = {"rate1", "rate2", "fc.weight", "dep_conv.weight"} | {
    f"{layer}.{part}"
    for layer in ("conv1", "conv2", "conv3", "conv_p")
    for part in ("weight", "bias")
}


def place():
    """Return a trait for a (row, column)."""
    return traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0))


class Explorer(anywidget.AnyWidget):
    """A widget whose view computes in the browser from what Python sends once.

    A subclass declares the traits that make up its state with ``.tag(sync=True, state=True)``. They
    have controls, follow the view and are followed by it, are part of the page's address, and go
    back to their start with "Reset". Everything else that the view needs is constant. The order of
    a dict's names means nothing: Jupyter may sort them when it stores a notebook.

    Args:
        name: of the explorer, in the page's address and as its CSS class.
        constants: read-only traits of the subclass, by name.
        state: the traits at the start.
    """

    name = traitlets.Unicode(read_only=True).tag(sync=True)
    start = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, name: str, constants: dict, **state: Any):
        super().__init__(**state)
        for trait, value in {"name": name, **constants}.items():
            self.set_trait(trait, value)
        self.set_trait("start", self.state())

    @traitlets.validate("head", "channel", "moment", "epoch", "tap", "pixel", "cell")
    def _in_bounds(self, proposal):
        """Hold a trait to the subclass's ``_bounds``: its count, or (height, width) for a place."""
        bound = self._bounds[proposal.trait.name]
        if isinstance(bound, tuple):
            return inside(proposal.trait.name, proposal.value, bound)
        return between(proposal.trait.name, proposal.value, 0, bound - 1)

    def state(self) -> dict:
        """Return the traits that make up the state, by name, with tuples as lists."""
        values = {trait: getattr(self, trait) for trait in sorted(self.trait_names(state=True))}
        return {t: list(v) if isinstance(v, tuple) else v for t, v in values.items()}


def between(name: str, value, least, most):
    """Return ``value``; raise a ValueError unless it is from ``least`` to ``most``."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, but {value} came.")
    return value


def evenly(frames: list, count: int) -> list:
    """Return ``count`` of the frames: the first, the last, and others evenly between them."""
    return [frames[round((len(frames) - 1) * n / (count - 1))] for n in range(count)]


def inside(name: str, place: tuple, sides) -> tuple:
    """Return the (row, column); raise unless it lies in a map of ``sides`` (height, width)."""
    for axis, value, side in zip(("row", "column"), place, sides, strict=True):
        between(f"{name}'s {axis}", value, 0, side - 1)
    return place


def one_of(name: str, value, offered):
    """Return ``value``; raise a ValueError unless it is one of those offered."""
    if value not in offered:
        raise ValueError(f"{name} must be one of {list(offered)}, but {value!r} came.")
    return value


def most_window(module: ACmix) -> dict[str, int]:
    """Return the largest ``kernel_att`` and ``dilation`` that a view offers."""
    return {name: max(most, getattr(module, name)) for name, most in MOST_WINDOW.items()}


def offered_window(name: str, value: int, most: dict[str, int]) -> int:
    """Return a ``kernel_att`` or ``dilation`` that an ACmix takes and a view offers."""
    check = odd_kernel if name == "kernel_att" else whole_number
    if check(name, value) > most[name]:
        raise ValueError(f"{name} must be at most {most[name]}, but {value} came.")
    return value


def weights_of(module: ACmix) -> dict[str, torch.Tensor]:
    """Return the module's weights by names without dots, as JavaScript has them."""
    return {name.replace(".", "_"): value for name, value in module.state_dict().items()}


def packed(groups: dict[str, dict[str, torch.Tensor]]) -> tuple[bytes, dict]:
    """Return all tensors as one string of float32, and by group and name where each is in it."""
    places: dict[str, dict[str, list[int]]] = {}
    parts, first = [], 0
    for group, named in groups.items():
        places[group] = {}
        for name, value in named.items():
            places[group][name] = [first, first + value.numel()]
            parts.append(value.flatten())
            first += value.numel()
    return torch.cat(parts).float().numpy().tobytes(), places


def frozen(module: ACmix) -> ACmix:
    """Return a float32 copy of the module on the CPU that does not train."""
    if not isinstance(module, ACmix):
        raise TypeError(
            f"module must be an acmix_edu.ACmix, but a {type(module).__name__} came; "
            "pass ACmix(in_planes, out_planes), or one layer of your network."
        )
    missing = WEIGHTS - set(module.state_dict())
    if missing:
        raise TypeError(
            f"module must hold its weights as they are, but {', '.join(sorted(missing))} is "
            "computed from others or left out; make it permanent first, for example with "
            "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.prune.remove."
        )
    refuse_other_stages(module, ACmix)
    refuse_other_layers(module)
    return copy.deepcopy(module).float().cpu().requires_grad_(False)


def presets(module) -> dict[str, ACmix]:
    """Return frozen copies of the modules by name, all of the same sizes."""
    named = module if isinstance(module, dict) and module else {"own": module}
    modules = {str(name): frozen(m) for name, m in named.items()}
    names = ("in_planes", "out_planes", "head", "stride", "kernel_conv")
    sizes = {tuple(getattr(m, name) for name in names) for m in modules.values()}
    if len(sizes) > 1:
        raise ValueError(
            f"the modules must agree in {', '.join(names)}, but {sorted(sizes)} came; "
            "make one explorer for each of them."
        )
    return modules


def numbers(name: str, value, shape: str) -> torch.Tensor:
    """Return anything that holds numbers as a tensor on the CPU."""
    try:
        tensor = isinstance(value, torch.Tensor)
        x = torch.as_tensor(value if tensor else np.ascontiguousarray(value)).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name} must be a numeric array or tensor {shape}, but a {type(value).__name__} "
            "came that is not; pass torch.as_tensor(...).float()."
        ) from None
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be dense, but a sparse tensor came; pass {name}.to_dense().")
    return x


def finite(name: str, x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as contiguous float32, if all its numbers are finite."""
    x = x.float().contiguous()
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, but NaN or infinity came; see torch.nan_to_num.")
    return x


def one_image(image, channels: int, why: str = "as module.in_planes says") -> torch.Tensor:
    """Return the image as contiguous float32 ``[C, H, W]`` on the CPU; ``why`` explains C."""
    x = numbers("image", image, "[C, H, W]")
    if not x.is_floating_point():
        raise TypeError(
            f"image must hold floats, but its dtype is {x.dtype}; for pixel values from 0 to 255 "
            "pass torch.as_tensor(image) / 255."
        )
    came = list(x.shape)
    x = x[0] if x.dim() == 4 and x.shape[0] == 1 else x
    x = x[None] if x.dim() == 2 else x  # [H, W] is one channel
    if x.dim() != 3 or x.shape[0] != channels or 0 in x.shape:
        raise ValueError(
            f"image must have the shape [{channels}, H, W], {why}, but "
            f"{came} came; for [H, W, {channels}] pass image.transpose(2, 0, 1), "
            "for a tensor image.permute(2, 0, 1)."
        )
    if x.shape[1] * x.shape[2] > MOST_PIXELS:
        raise ValueError(
            f"image must have at most {MOST_PIXELS} pixels, to keep the explorer quick, but "
            f"{x.shape[1]}×{x.shape[2]} came; make it smaller, for example with image[:, ::4, ::4]."
        )
    return finite("image", x)
