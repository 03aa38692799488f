"""The networks: the published names and shapes, the shift kernels that survive, odd images."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from acmix_edu import (
    ACmix,
    Bottleneck,
    LearnableShift,
    ResNet,
    acmix_resnet26,
    acmix_resnet38,
    acmix_resnet50,
    conv3x3,
    shift_kernels,
)

SHAPES = json.loads((Path(__file__).parent / "golden/official_resnet50_shapes.json").read_text())


@pytest.fixture(scope="module")
def resnet50() -> ResNet:
    return acmix_resnet50().eval()


def test_a_published_resnet50_state_loads_strictly(resnet50):
    state = {
        name: torch.zeros(shape, dtype=torch.int64 if shape == [] else torch.float32)
        for name, shape in SHAPES.items()
    }
    with torch.device("meta"):
        twin = acmix_resnet50()
    twin.load_state_dict(state, strict=True, assign=True)
    assert {name: list(value.shape) for name, value in resnet50.state_dict().items()} == SHAPES


def test_shift_kernels_survive_the_networks_initialisation(resnet50):
    layers = [m for m in resnet50.modules() if isinstance(m, LearnableShift)]
    assert len(layers) == 16
    for layer in layers:
        assert torch.equal(layer.weight, shift_kernels(3).expand_as(layer.weight))


def test_strides_blocks_and_arguments(resnet50):
    for number, (blocks, width) in enumerate(
        zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1
    ):
        layer = resnet50.get_submodule(f"layer{number}")
        assert len(layer) == blocks
        for n, block in enumerate(layer):
            acmix = block.conv2
            assert isinstance(acmix, ACmix) and acmix.in_planes == acmix.out_planes == width
            assert (acmix.kernel_att, acmix.head, acmix.kernel_conv) == (7, 4, 3)
            assert acmix.stride == (2 if n == 0 and number > 1 else 1)
            assert (block.downsample is not None) == (n == 0)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 96), (200, 200), (33, 65)])
def test_resnet50_on_small_and_odd_images(resnet50, size):
    with torch.no_grad():
        out = resnet50(torch.randn(1, 3, *size))
    assert out.shape == (1, 1000) and out.isfinite().all()


@pytest.mark.parametrize(
    ("make", "layers"), [(acmix_resnet26, (1, 2, 4, 1)), (acmix_resnet38, (2, 3, 5, 2))]
)
def test_smaller_networks(make, layers):
    with torch.device("meta"):
        network = make(num_classes=7)
    assert tuple(len(network.get_submodule(f"layer{n}")) for n in (1, 2, 3, 4)) == layers
    assert network.fc.out_features == 7


def test_bottleneck_adds_its_input():
    block = Bottleneck(256, 64).eval()
    torch.nn.init.zeros_(block.bn3.weight)
    x = torch.randn(2, 256, 5, 5)
    before = x.clone()
    torch.testing.assert_close(block(x), x.relu())
    torch.nn.init.ones_(block.bn3.weight)
    inner = block.bn3(block.conv3(block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu()))
    torch.testing.assert_close(block(x), (x + inner).relu())
    assert torch.equal(x, before)


def test_bottleneck_fits_its_shortcut_to_the_stride():
    block = Bottleneck(16, 4, stride=2, operator=conv3x3)
    assert block.downsample is not None
    assert block(torch.randn(2, 16, 5, 4)).shape == (2, 16, 3, 2)


def test_convolutions_start_with_the_variance_of_their_outputs():
    network = ResNet([1, 1, 1, 1], num_classes=2)
    for convolution in (network.conv1, network.layer4[0].conv3, network.layer4[0].conv2.conv1):
        outputs = convolution.out_channels * convolution.kernel_size[0] ** 2
        expected = torch.tensor(2 / outputs).sqrt()
        torch.testing.assert_close(convolution.weight.std(), expected, rtol=0.03, atol=0)


def test_plain_network_is_the_usual_resnet50():
    with torch.device("meta"):
        plain = ResNet([3, 4, 6, 3], operator=conv3x3)
    assert sum(p.numel() for p in plain.parameters()) == 25_557_032  # torchvision's resnet50
    assert plain.layer2[0].conv2.stride == (2, 2)


def test_every_parameter_of_a_network_trains():
    network = ResNet([1, 1, 1, 1], num_classes=3)
    network(torch.randn(2, 3, 64, 48)).logsumexp(1).sum().backward()
    silent = [
        n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ResNet([1, 1, 1]), "layers must name the blocks of 4 layers"),
        (lambda: ResNet(50), "layers must name the blocks of 4 layers, but 50"),
        (lambda: Bottleneck(4, 4, stride=0), "stride must be at least 1"),
        (lambda: Bottleneck(4, 0), "planes must be at least 1"),
        (lambda: conv3x3(-1), "planes must be at least 1"),
        (lambda: conv3x3(1, stride=0), "stride must be at least 1"),
        (lambda: ResNet([1, 1, 0, 1]), r"layers\[2\] must be at least 1"),
        (lambda: ResNet([1, 1, 1, 1], num_classes=0), "num_classes must be at least 1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Bottleneck(4.0, 4), "in_planes must be a whole number"),
        (lambda: Bottleneck(4, 4, operator=None), "operator must make a module.*NoneType"),
        (lambda: ResNet([1, 1, 1, 1], operator="conv"), "operator must make a module.*str"),
        (lambda: conv3x3(64, 128), "positional argument"),  # not 128 outputs, nor a stride of 128
    ],
)
def test_bad_types_are_named(call, says):
    with pytest.raises(TypeError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Bottleneck(4, 4)(torch.ones(1, 5, 3, 3)), "to have 4 channels, but got 5"),
        (lambda: ResNet([1, 1, 1, 1])(torch.ones(1, 1, 32, 32)), "to have 3 channels, but got 1"),
        (lambda: Bottleneck(4, 4)(torch.ones(4, 3, 3)), r"expected 4D input \(got 3D"),
        (lambda: Bottleneck(4, 4)(torch.ones(1, 4, 3, 3).double()), "(?i)double"),
    ],
)
def test_the_first_convolution_refuses_what_does_not_fit(call, says):
    with pytest.raises((RuntimeError, ValueError), match=says):
        call()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 2)])
def test_a_network_of_convolutions_by_torch_alone(size):
    """The same blocks from torch's functions, at sizes down to one pixel."""
    network = ResNet([2, 1, 1, 1], num_classes=3, operator=conv3x3).eval().double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)

    def norm(bn, x):
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    y = norm(network.bn1, F.conv2d(x, network.conv1.weight, stride=2, padding=3)).relu()
    y = F.max_pool2d(y, 3, 2, 1)
    for number in (1, 2, 3, 4):
        for n, b in enumerate(network.get_submodule(f"layer{number}")):
            s = 2 if number > 1 and n == 0 else 1
            out = norm(b.bn1, F.conv2d(y, b.conv1.weight)).relu()
            out = norm(b.bn2, F.conv2d(out, b.conv2.weight, stride=s, padding=1)).relu()
            out = norm(b.bn3, F.conv2d(out, b.conv3.weight))
            if n == 0:
                y = norm(b.downsample[1], F.conv2d(y, b.downsample[0].weight, stride=s))
            y = (out + y).relu()
    expected = F.linear(y.mean((2, 3)), network.fc.weight, network.fc.bias)
    torch.testing.assert_close(network(x), expected)
