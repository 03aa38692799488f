"""What others do to a layer (hooks, adapters, pruning), and whether its weights still say all."""

import copy
from typing import TypeVar

import torch
from torch import nn

from acmix_edu.depthwise import LearnableShift

STAGES = ("forward", "project", "position_term", "attention_path", "convolution_path", "mix")
LAYERS = ("conv1", "conv2", "conv3", "conv_p", "fc", "dep_conv")

_Module = TypeVar("_Module", bound=nn.Module)


def computes_as_usual(layer: nn.Module) -> bool:
    """Return whether the layer has the forward of ``nn.Conv2d`` or ``LearnableShift``.

    Parametrized layers have it, too.
    """
    usual = type(layer).forward in (nn.Conv2d.forward, LearnableShift.forward)
    return usual and "forward" not in vars(layer)


def is_hooked(layer: nn.Module) -> bool:
    """Return whether hooks run when the layer is called or its gradient is computed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(layer, name) for name in hooks)


def is_plain(layer: nn.Module) -> bool:
    """Return whether reading the layer's weight is as good as calling the layer."""
    has_bias = getattr(layer, "bias", None) is not None
    return computes_as_usual(layer) and not is_hooked(layer) and not has_bias


def refuse_other_layers(module: nn.Module) -> None:
    """Raise unless the weights of an ACmix say all that its layers do."""
    for name in LAYERS:
        layer = getattr(module, name)
        if not computes_as_usual(layer) or (name == "fc" and layer.bias is not None):
            raise TypeError(
                f"module.{name} must compute what ACmix's own layer does, but a "
                f"{type(layer).__name__} with a forward or a bias of its own came; merge it "
                "into the weights first."
            )


def refuse_other_stages(module: nn.Module, usual: type[nn.Module]) -> None:
    """Raise if a subclass of ``usual``, ACmix, or this module alone, computes something else."""
    for name in STAGES:
        if getattr(type(module), name) is not getattr(usual, name) or name in vars(module):
            raise TypeError(
                f"module must compute what ACmix does, but {type(module).__name__} has a "
                f"{name} of its own; put what it adds into a module around an ACmix."
            )


def copied(module: _Module) -> _Module:
    """Copy a module, even one with weights that are computed from others, as in pruning.

    After a training step such a weight belongs to a graph, and ``copy.deepcopy`` refuses it.
    """
    computed = {
        id(value): value.detach().clone()
        for layer in module.modules()
        for value in vars(layer).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    return copy.deepcopy(module, computed)
