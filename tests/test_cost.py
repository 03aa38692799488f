"""The cost formula, against what PyTorch counts and what the modules hold."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from acmix_edu import (
    ACmix,
    Cost,
    ResNet,
    acmix_cost,
    acmix_resnet26,
    acmix_resnet38,
    acmix_resnet50,
    attention_cost,
    conv3x3,
    conv_cost,
    decomposed_conv_cost,
    model_cost,
    total,
)


@pytest.mark.parametrize(
    ("c_in", "c_out", "size", "options"),
    [
        (64, 64, (14, 14), {}),
        (6, 12, (9, 7), {"kernel_att": 5, "head": 3, "stride": 2}),
        (8, 8, (5, 6), {"kernel_conv": 5, "head": 2, "kernel_att": 3}),
    ],
)
def test_acmix_cost_is_what_pytorch_counts(c_in, c_out, size, options):
    module = ACmix(c_in, c_out, **options)
    costs = acmix_cost(c_in, c_out, *size, **options)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.randn(1, c_in, *size))
    assert counter.get_total_flops() == 2 * total(costs).multiply_adds
    assert total(costs).parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("options", [{}, {"stride": 2, "kernel_conv": 1, "head": 2}])
def test_acmix_activations_are_the_tensors_of_explain(options):
    module = ACmix(8, 16, **options)
    steps = module.explain(torch.randn(1, 8, 9, 7))
    written = {
        "stage I": ("q", "k", "v"),
        "position": ("pe", "unfold_pe"),
        "attention": ("unfold_k", "unfold_v", "logits", "att", "out_att"),
        "fc": ("f_all",),
        "shift and sum": ("out_conv",),
        "mix": ("out",),
    }
    costs = acmix_cost(8, 16, 9, 7, **options)
    for stage, names in written.items():
        assert costs[stage].activations == sum(steps[name].numel() for name in names)


def test_stage_two_over_stage_one():
    """The source's 68.7/C, with the two stages as the paper counts them."""
    for channels in (64, 128, 256, 512):
        costs = acmix_cost(channels, channels, 1, 1)
        second = sum(costs[name].multiply_adds for name in ("attention", "fc", "shift and sum"))
        expected = (2 * 49 + 3 * 9 + 81) * channels
        assert second == expected
        ratio = second / costs["stage I"].multiply_adds
        assert abs(ratio - 68.7 / channels) < 0.001 * ratio


def test_decomposed_operators():
    convolution = decomposed_conv_cost(16, 3, 5, 7)
    assert convolution["stage I"].multiply_adds == conv_cost(16, 16, 3, 5, 7).multiply_adds
    assert convolution["stage I"].activations == 9 * 16 * 35
    assert convolution["stage II"].multiply_adds == 9 * 16 * 35
    attention = attention_cost(16, 7, 4, 5, 7)
    assert attention["stage I"].multiply_adds == 3 * 16 * 16 * 35
    assert attention["stage II"].multiply_adds == 2 * 49 * 16 * 35
    assert attention["stage I"].parameters == 3 * (16 * 16 + 16)
    assert conv_cost(8, 12, 3, 1, 1, groups=4, bias=True).parameters == 9 * 2 * 12 + 12


def test_activation_bytes():
    cost = Cost(activations=10)
    assert cost.activation_bytes() == 40
    assert cost.activation_bytes(batch=3, dtype=torch.float16) == 60


@pytest.mark.parametrize(
    ("make", "parameters", "multiply_adds"),
    [
        (acmix_resnet26, 10.488e6, 2.216e9),
        (acmix_resnet38, 14.411e6, 2.859e9),
        (acmix_resnet50, 18.334e6, 3.502e9),
        (lambda: ResNet([3, 4, 6, 3], operator=conv3x3), 25.557e6, 4.089e9),
    ],
)
def test_network_cost(make, parameters, multiply_adds):
    with torch.device("meta"):
        network = make()
    cost = total(model_cost(network))
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert abs(cost.parameters - parameters) < 1e3 and abs(cost.multiply_adds - multiply_adds) < 1e6


def test_network_cost_is_what_pytorch_counts_and_leaves_the_network_alone():
    network = ResNet([1, 1, 1, 1], num_classes=10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.randn(1, 3, 65, 40))
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert counter.get_total_flops() == 2 * total(model_cost(network, 65, 40)).multiply_adds
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
