"""ACmix, taken apart and put together again: the public names, in the order of the story.

The chapters of the book import from here; ``from acmix_edu import ACmix`` puts the finished module
into a network. Arguments are checked: a TypeError says that one is of the wrong kind, a ValueError
that it does not fit, and either says what came and how to mend it.

``acmix_edu.shift`` and ``acmix_edu.deploy`` are functions. Whatever else the modules of the same
names hold is imported with ``from acmix_edu.shift import …``.
"""

# Stage I of a convolution: k² 1×1 convolutions (chapter 01)
from acmix_edu.convolution import conv2d_by_definition, pointwise_maps

# Stage II of a convolution: shift and sum (chapter 02)
from acmix_edu.shift import ShiftLayer, decomposed_conv2d, shift, shift_and_sum

# The shift as a convolution, fixed, then learnable (chapter 03)
from acmix_edu.depthwise import (  # isort: skip
    LearnableShift,
    shift_and_sum_grouped,
    shift_depthwise,
    shift_kernel,
    shift_kernels,
)

# Stage II of attention, over windows of several kinds (chapter 04)
from acmix_edu.attention import (  # isort: skip
    aggregate,
    entropy,
    global_attention,
    local_attention,
    local_attention_logits,
    local_attention_weights,
    patchwise_attention,
    position_map,
    reflect_indices,
    reflect_pad,
    split_heads,
    window_attention,
    windows,
)

# Convolution and attention on one set of projections (chapter 05)
from acmix_edu.acmix import ACmix  # isort: skip

# In a network (chapter 06)
from acmix_edu.resnet import (  # isort: skip
    Bottleneck,
    ResNet,
    acmix3x3,
    acmix_resnet26,
    acmix_resnet38,
    acmix_resnet50,
    conv3x3,
)

# What it all costs (chapters 04–06)
from acmix_edu.cost import (  # isort: skip
    Cost,
    acmix_cost,
    attention_cost,
    conv_cost,
    decomposed_conv_cost,
    model_cost,
    total,
)

# Into a network and out of training; acmix_edu.fast holds the fast forms (chapter 07)
from acmix_edu.replace import replace_conv3x3  # isort: skip
from acmix_edu.deploy import DeployedACmix, deploy  # isort: skip

__version__ = "0.3.0"

__all__ = [
    "ACmix",
    "Bottleneck",
    "Cost",
    "DeployedACmix",
    "LearnableShift",
    "ResNet",
    "ShiftLayer",
    "acmix3x3",
    "acmix_cost",
    "acmix_resnet26",
    "acmix_resnet38",
    "acmix_resnet50",
    "aggregate",
    "attention_cost",
    "conv2d_by_definition",
    "conv3x3",
    "conv_cost",
    "decomposed_conv2d",
    "decomposed_conv_cost",
    "deploy",
    "entropy",
    "global_attention",
    "local_attention",
    "local_attention_logits",
    "local_attention_weights",
    "model_cost",
    "patchwise_attention",
    "pointwise_maps",
    "position_map",
    "reflect_indices",
    "reflect_pad",
    "replace_conv3x3",
    "shift",
    "shift_and_sum",
    "shift_and_sum_grouped",
    "shift_depthwise",
    "shift_kernel",
    "shift_kernels",
    "split_heads",
    "total",
    "window_attention",
    "windows",
]
