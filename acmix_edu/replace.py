"""ACmix in an existing network: which convolutions it can replace, and how it does so."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from acmix_edu.acmix import ACmix
from acmix_edu.altered import computes_as_usual
from acmix_edu.checks import whole_number

TAKEN = ("in_planes", "out_planes", "stride", "device", "dtype")  # from the convolution
COMPILED = (
    "model has {} directly inside torch.compile, which would go on calling the old layer; pass it "
    "uncompiled, and compile afterwards."
)
NOTHING = (
    "nothing was replaced: the model has no convolution that is 3×3, with padding 1 of zeros, "
    "dilation 1, groups 1, the forward of nn.Conv2d, and as many outputs as inputs, a multiple of "
    "head={}; pick others with where."
)


def swap(model: nn.Module, make: Callable[[str, nn.Module], nn.Module | None]) -> list[str]:
    """Replace every submodule for which ``make(name, module)`` is not None by what it returns.

    For a module that is used in several places, ``make`` is called once, under the first of its
    names, and the new module stays shared. The dtype, device and mode of the new module are up to
    ``make``.

    Returns:
        The names of all places, parents before what is inside their children.

    Raises:
        ValueError: one of them is directly inside what ``torch.compile`` made.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    places = []
    for path, parent in list(model.named_modules()):
        for own_name, child in list(parent._modules.items()):
            name = f"{path}.{own_name}" if path else own_name
            if child is not None and child not in made:
                made[child] = make(name, child)
            if made.get(child) is not None:
                if own_name == "_orig_mod":
                    raise ValueError(COMPILED.format(name))
                places.append((name, parent, own_name, made[child]))
    for _, parent, own_name, new in places:  # only now, when nothing was refused
        setattr(parent, own_name, new)
    return [name for name, *_ in places]


def replace_conv3x3(
    model: nn.Module, where: Callable[[str, nn.Conv2d], bool] | None = None, **options: Any
) -> list[str]:
    """Replace a network's 3×3 convolutions by ACmix modules, in place.

    A convolution can be replaced if it is an ``nn.Conv2d`` without a forward of its own, with a 3×3
    kernel, zero padding 1, dilation 1, groups 1, one stride for both axes, and output channels
    divisible by the number of heads. The new module has its channels, stride, dtype, device and
    mode, but new weights, which require gradients: train it, and make the optimizer and DDP
    afterwards, because one made before does not know them. The convolution's bias is dropped,
    because the values' projection has one. Hooks, parametrizations and attributes that others put
    on the convolution are dropped, too. Code that reads the convolution's weight or sizes no longer
    finds them.

    Args:
        model: any network. It keeps its class; its convolutions change.
        where: ``where(name, convolution)`` says which to replace, with ``name`` as in
            ``model.get_submodule(name)``. When left out, those are replaced that can be and that
            keep the number of channels, as in the paper: a stem from 3 channels is left alone. One
            with a stride is cheaper as it is (chapter 06): add ``convolution.stride == (1, 1)``.
        options: for every new :class:`ACmix`: kernel_att (7), head (4), kernel_conv (3), dilation
            (1), backend (None).

    Returns:
        The names of the convolutions that were replaced.

    Raises:
        TypeError: model is not a module, ``where`` is not a function, or an option is none of
            those.
        ValueError: ``where`` picks a convolution that ACmix cannot replace, one to be replaced was
            given to ``torch.compile`` alone, the model itself is the convolution, or nothing is
            replaced. The model is then unchanged.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(*(nn.Conv2d(c, 16, 3, padding=1) for c in (3, 16)))
        >>> replace_conv3x3(net)
        ['1']
    """
    _check_arguments(model, where, options)
    head = whole_number("head", options.get("head", 4))

    def make(name: str, module: nn.Module) -> ACmix | None:
        if not isinstance(module, nn.Conv2d):
            return None
        reason = _why_not(module, head)
        fits = reason is None and module.in_channels == module.out_channels
        if not (where(name, module) if where else fits):
            return None
        if reason:
            raise ValueError(
                f"where picks {name}, which ACmix cannot replace: {reason}; let where leave it out."
            )
        sizes = module.in_channels, module.out_channels
        new = ACmix(*sizes, stride=module.stride[0], **options)
        return new.to(_parameter(module)).train(module.training)

    names = swap(model, make)
    if not names and where:
        raise ValueError("nothing was replaced: where picks no convolution of the model.")
    if not names:
        raise ValueError(NOTHING.format(head))
    return names


def _check_arguments(model, where, options: dict) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but a {type(model).__name__} came.")
    if where is not None and not callable(where):
        raise TypeError(
            f"where must be a function of a name and a convolution, but {where!r} came; pass for "
            'example lambda name, conv: name.startswith("layer").'
        )
    if isinstance(model, nn.Conv2d):
        raise ValueError(
            "model must contain the convolutions to replace, but it is one itself; wrap it: "
            "torch.nn.Sequential(model)."
        )
    if taken := [name for name in TAKEN if name in options]:
        raise TypeError(
            f"{taken[0]} cannot be an option, for it is taken from each convolution; leave it out."
        )


def _parameter(conv: nn.Conv2d) -> torch.Tensor:
    """Return what shows dtype and device: reading a weight changes it under spectral norm."""
    parameter = next(conv.parameters(), None)
    return conv.weight if parameter is None else parameter


def _why_not(conv: nn.Conv2d, head: int) -> str | None:
    """Return why an ACmix cannot take a convolution's place, or None if it can."""
    if isinstance(conv, LazyModuleMixin):
        return "its channels are not known yet; run the network once, before"
    if not _parameter(conv).is_floating_point():
        return f"its weight is {_parameter(conv).dtype}, not of floating-point numbers"
    if not computes_as_usual(conv):
        return f"it is a {type(conv).__name__} with a forward of its own"
    if conv.kernel_size != (3, 3):
        return f"its kernel is {conv.kernel_size}, not (3, 3)"
    if conv.padding not in ((1, 1), "same") or conv.padding_mode != "zeros":
        return f"its padding is {conv.padding} ({conv.padding_mode}), not 1 (zeros)"
    if conv.dilation != (1, 1):
        return f"its dilation is {conv.dilation}, not (1, 1)"
    if conv.groups != 1:
        return f"its groups are {conv.groups}, not 1"
    if conv.stride[0] != conv.stride[1]:
        return f"its stride is {conv.stride}, not the same on both axes"
    if conv.out_channels % head:
        return f"its {conv.out_channels} outputs are not divisible by head={head}"
    return None
