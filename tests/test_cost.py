"""The cost formula, against what PyTorch counts and what the modules hold."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
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
    deploy,
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
    module = ACmix(c_in, c_out, **options, backend="unfold")
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
    assert convolution["stage II"].activations == 16 * 35
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


def unfolded(planes, stride):
    return ACmix(planes, planes, stride=stride, backend="unfold")


def test_network_cost_is_what_pytorch_counts_and_leaves_the_network_alone():
    network = ResNet([1, 1, 1, 1], num_classes=10, operator=unfolded)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.randn(1, 3, 65, 40))
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert counter.get_total_flops() == 2 * total(model_cost(network, 65, 40)).multiply_adds
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_model_that_is_an_acmix_is_counted_once():
    module = ACmix(3, 8, kernel_att=3)
    assert total(model_cost(module, 9, 7)) == total(acmix_cost(3, 8, 9, 7, kernel_att=3))
    assert total(model_cost(torch.nn.Sequential(module), 9, 7)) == total(model_cost(module, 9, 7))


def test_a_layer_that_wraps_one_of_an_acmix_is_not_counted_twice():
    network = torch.nn.Sequential(ACmix(8, 8))
    expected = model_cost(network, 9, 9, 8)
    network[0].conv1 = torch.nn.Sequential(network[0].conv1)
    assert model_cost(network, 9, 9, 8) == expected


def test_a_layer_with_a_second_argument_is_counted():
    class Masked(torch.nn.Conv2d):  # as partial convolutions have
        def forward(self, x, mask):
            return super().forward(x * mask)

    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Masked(3, 4, 3, padding=1)

        def forward(self, x):
            return self.inner(x, mask=torch.ones_like(x))

    plain = total(model_cost(torch.nn.Conv2d(3, 4, 3, padding=1), 5, 7))
    assert total(model_cost(Around(), 5, 7)) == plain


def test_batch_norm_writes_its_map():
    assert model_cost(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), 5, 7)["0"] == Cost(6, 0, 105)


def test_layers_that_run_twice_and_linear_layers_over_maps():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.last = torch.nn.Conv2d(3, 3, 1), torch.nn.Linear(3, 5)

        def forward(self, x):
            return self.last(self.twice(self.twice(x)).permute(0, 2, 3, 1))

    costs = model_cost(Net(), 2, 7)
    assert costs["twice"] == Cost(12, 2 * 9 * 14, 2 * 3 * 14)
    assert costs["last"] == Cost(20, 15 * 14, 5 * 14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_cost_of_a_network_in_another_dtype(dtype):
    network = ResNet([1, 1, 1, 1], num_classes=2)
    expected = model_cost(network, 9, 9)
    assert model_cost(network.to(dtype), 9, 9) == expected


def test_integers_of_numpy_do_not_overflow():
    small = {"kernel_size": np.int8(13), "height": np.int8(100), "width": np.int8(100)}
    assert conv_cost(np.int8(64), np.int8(64), **small) == conv_cost(64, 64, 13, 100, 100)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: conv_cost(4, 4, 3, 0, 4), ValueError, "height must be at least 1"),
        (lambda: conv_cost(4, 4, 3, 4, 4.0), TypeError, "width must be a whole number"),
        (lambda: conv_cost(6, 4, 3, 4, 4, groups=4), ValueError, "in_planes must be divisible"),
        (lambda: conv_cost(4, 6, 3, 4, 4, groups=4), ValueError, "out_planes must be divisible"),
        (lambda: conv_cost(4, 4, 3, 4, 4, bias=2), TypeError, "bias must be True or False, but 2"),
        (lambda: attention_cost(4, 6, 4, 1, 1), ValueError, "kernel_att must be odd"),
        (lambda: acmix_cost(4, 4, 1, 1, kernel_conv=2), ValueError, "kernel_conv must be odd"),
        (lambda: decomposed_conv_cost(-1, 3, 4, 4), ValueError, "channels must be at least 1"),
        (lambda: attention_cost(6, 7, 4, 1, 1), ValueError, "channels must be divisible by head"),
        (lambda: acmix_cost(4, 6, 1, 1), ValueError, "out_planes must be divisible.*out_planes=8"),
        (lambda: acmix_cost(4, 4, 1, 1, stride=None), TypeError, "stride must be a whole number"),
        (lambda: model_cost(None), TypeError, "model must be a torch.nn.Module"),
        (lambda: model_cost(torch.nn.Identity(), 0), ValueError, "height must be at least 1"),
        (lambda: total([Cost()]), TypeError, "costs must be a dict"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_an_input_of_other_channels():
    assert total(model_cost(nn.Sequential(nn.Conv2d(1, 4, 3)), 6, 5, channels=1)) == Cost(
        40, 36 * 12, 4 * 12
    )


def test_what_is_not_counted_is_refused_or_said():
    with pytest.raises(ValueError, match="pass the model before deploy"):
        model_cost(deploy(nn.Sequential(ACmix(3, 16))))
    for lazy in (nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(affine=False)):
        with pytest.raises(ValueError, match="not known yet; run it once"):
            model_cost(nn.Sequential(lazy), 8, 8)
    assert model_cost(nn.Sequential(nn.GroupNorm(1, 3))) == {}


def test_hooks_and_kernels_do_not_matter():
    """On the meta device there is no number to look at, and no kernel."""
    plain, model = (nn.Sequential(ACmix(3, 8)) for _ in range(2))
    model[0].backend = "triton"
    model[0].register_forward_hook(lambda module, inputs, out: out.sum().item())
    assert model_cost(model, 8, 8) == model_cost(plain, 8, 8)
    assert len(model[0]._forward_hooks) == 1 and model[0].backend == "triton"


def test_weights_that_are_computed_and_belong_to_a_graph():
    model = nn.Sequential(ACmix(3, 8))
    plain = model_cost(model, 8, 8)
    prune.l1_unstructured(model[0].fc, "weight", amount=0.5)
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    assert model_cost(model, 8, 8) == plain


def test_a_convolution_of_one_image_without_a_batch():
    class Single(nn.Sequential):
        def forward(self, x):
            return self[0](x[0])

    single, plain = (kind(nn.Conv2d(3, 4, 3)) for kind in (Single, nn.Sequential))
    assert model_cost(single, 8, 10) == model_cost(plain, 8, 10)


def test_an_input_by_name_is_counted():
    class Named(nn.Sequential):
        def forward(self, x):
            return self[0](input=x)

    plain, named = (kind(nn.Conv2d(3, 4, 1)) for kind in (nn.Sequential, Named))
    assert model_cost(named, 8, 8) == model_cost(plain, 8, 8)
