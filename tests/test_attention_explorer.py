"""The attention explorer in Python: arguments, traits, and the weights to take away."""

import numpy as np
import pytest
import torch

from acmix_edu import ACmix, global_attention, position_map, split_heads, window_attention
from acmix_edu.examples import colour_features, photograph
from acmix_edu.explorers import AttentionExplorer
from acmix_edu.training import trained_acmix


@pytest.fixture
def module():
    torch.manual_seed(0)
    return ACmix(3, 8, kernel_att=5, head=2, dilation=2)


@pytest.fixture
def own(module):
    return AttentionExplorer(module, torch.randn(3, 9, 14), pixel=(0, 12))


def test_weights_are_those_of_the_module(module, own):
    seen = module.explain(own._image[None])["att"][0]
    torch.testing.assert_close(own.weights(), seen[:, :, 0, 12].detach())
    assert not torch.allclose(own.weights(), own.weights().flip(1), atol=1e-4)


def test_weights_follow_the_state(module, own):
    own.kernel_att, own.dilation, own.pixel = 3, 4, (8, 0)
    other = ACmix(3, 8, kernel_att=3, head=2, dilation=4)
    with torch.no_grad():
        other.load_state_dict(module.state_dict())
        for scale in (other.conv1.weight, other.conv1.bias):
            scale /= 0.5
    own.temperature = 0.5
    seen = other.explain(own._image[None])["att"][0, :, :, 8, 0]
    torch.testing.assert_close(own.weights(), seen.detach())
    with torch.no_grad():
        other.conv_p.weight.zero_()
    own.position = False
    without = other.explain(own._image[None])["att"][0, :, :, 8, 0]
    assert (without - seen).abs().max() > 1e-3
    torch.testing.assert_close(own.weights(), without.detach())


@pytest.mark.parametrize("position", [True, False])
def test_weights_of_the_whole_image(module, own, position):
    own.mode, own.position, own.temperature = "whole image", position, 2.0
    q, k, _ = (split_heads(f, 2)[0].detach() for f in module.project(own._image[None]))
    pe = module.conv_p(position_map(9, 14)).detach() * position
    addresses = torch.eye(9 * 14).reshape(-1, 9, 14).expand(2, -1, -1, -1)
    wanted = global_attention(q / 2, k - pe, addresses)[:, :, 0, 12]
    torch.testing.assert_close(own.weights(), wanted)


@pytest.mark.parametrize("pixel", [(0, 0), (4, 5), (8, 13)])  # the last tile is 4×4
def test_weights_of_a_tile(module, own, pixel):
    own.mode, own.kernel_att, own.pixel, own.dilation = "tile", 5, pixel, 2
    q, k, _ = (split_heads(f, 2)[0].detach() for f in module.project(own._image[None]))
    pe = module.conv_p(position_map(9, 14)).detach()
    addresses = torch.eye(9 * 14).reshape(-1, 9, 14).expand(2, -1, -1, -1)
    wanted = window_attention(q, k - pe, addresses, 5)[:, :, *pixel]
    assert own.weights().shape == (2, 16 if pixel == (8, 13) else 25)
    torch.testing.assert_close(own.weights(), wanted[wanted > 0].view(2, -1))


def test_starts_with_weights_set_by_hand_on_a_flower():
    explorer = AttentionExplorer()
    flower = colour_features(photograph("flower", 48)[0])
    torch.testing.assert_close(explorer._image, flower)
    assert list(explorer.places) == ["colour", "trained", "random"]
    torch.testing.assert_close(explorer.weights()[0], torch.full((49,), 1 / 49))
    explorer.preset, wanted = "trained", trained_acmix().explain(flower[None])["att"]
    torch.testing.assert_close(explorer.weights(), wanted[0, :, :, 24, 24].detach())
    explorer.preset = "random"
    fresh, again = explorer.weights(), AttentionExplorer()
    again.preset = "random"
    torch.testing.assert_close(fresh, again.weights(), rtol=0, atol=0)
    assert (fresh[0] - 1 / 49).abs().max() > 1e-4


def test_making_one_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    AttentionExplorer()
    torch.testing.assert_close(torch.rand(3), wanted, rtol=0, atol=0)


def test_sends_stage_one(module, own):
    sent, places = np.frombuffer(own.layers, np.float32), own.places["own"]
    for name, value in module.state_dict().items():
        if name.startswith("conv"):
            first, end = places[name.replace(".", "_")]
            np.testing.assert_array_equal(sent[first:end], value.flatten().numpy())
    assert max(end for _, end in places.values()) == len(sent)
    image = np.frombuffer(own.image, np.float32).reshape(3, 9, 14)
    np.testing.assert_array_equal(image, own._image.numpy())


def test_a_picture_for_four_channels_becomes_features():
    picture = torch.rand(3, 5, 6)
    explorer = AttentionExplorer(ACmix(4, 4, head=1), picture)
    torch.testing.assert_close(explorer._image, colour_features(picture))
    features = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(AttentionExplorer(None, features)._image, features[0])


def test_larger_windows_than_usual():
    explorer = AttentionExplorer(ACmix(3, 4, kernel_att=15, dilation=6), torch.rand(3, 8, 8))
    assert (explorer.kernel_att, explorer.dilation, explorer.head) == (15, 6, 3)
    assert explorer.weights().shape == (4, 225)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"module": torch.nn.Conv2d(3, 4, 1)}, TypeError, "ACmix"),
        ({"module": ACmix(8, 8)}, ValueError, "as module.in_planes says"),
        ({"module": {"a": ACmix(3, 4), "b": ACmix(3, 8)}}, ValueError, "must agree"),
        ({"image": torch.rand(3, 5, 5) + 1}, ValueError, "from 0 to 1"),
        ({"image": "flower"}, TypeError, "numeric"),
        ({"image": torch.rand(3, 200, 100)}, ValueError, "at most"),
        ({"head": 4}, ValueError, "head must be from 0 to 3"),
        ({"head": True}, TypeError, "whole number"),
        ({"pixel": (48, 0)}, ValueError, "row must be from 0 to 47"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, kind, says):
    with pytest.raises(kind, match=says):
        AttentionExplorer(**arguments)


@pytest.mark.parametrize(
    ("trait", "value"),
    [("preset", "own"), ("mode", "global"), ("kernel_att", 2), ("kernel_att", 15),
     ("dilation", 0), ("dilation", 5), ("temperature", 0.2), ("temperature", 4.5),
     ("temperature", float("nan")), ("head", 4), ("channel", -1), ("pixel", (0, 48))],
)  # fmt: skip
def test_traits_that_cannot_be_used(trait, value):
    explorer = AttentionExplorer()
    with pytest.raises(ValueError, match=f"{trait}.* must be .*came"):
        setattr(explorer, trait, value)
