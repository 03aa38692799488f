"""The unfold explorer in Python: arguments, traits, kernels."""

import numpy as np
import pytest
import torch

from acmix_edu import ACmix
from acmix_edu.examples import photograph
from acmix_edu.explorers import UnfoldExplorer

SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4


@pytest.fixture
def own():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 9, 14, generator=generator)
    return UnfoldExplorer(image, torch.randn(3, 5, 5, generator=generator))


def test_starts_with_the_brightness_of_the_flower():
    explorer = UnfoldExplorer()
    assert explorer.current_image().shape == (1, 48, 48)
    flower = photograph("flower", 48)[0]
    grey = 0.3 * flower[0] + 0.59 * flower[1] + 0.11 * flower[2]
    torch.testing.assert_close(explorer.current_image()[0], grey)
    torch.testing.assert_close(explorer.current_kernel()[0, 0], SOBEL)


@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_presets(k):
    explorer = UnfoldExplorer()
    explorer.kernel_size = k
    kernels = {}
    for preset in ("edge", "sharpen", "blur"):
        explorer.preset = preset
        kernels[preset] = explorer.current_kernel()[0, 0]
        assert kernels[preset].shape == (k, k)
    one = torch.zeros(k, k)
    one[k // 2, k // 2] = 1
    torch.testing.assert_close(kernels["blur"].sum(), torch.tensor(1.0))
    torch.testing.assert_close(kernels["sharpen"], 2 * one - kernels["blur"])
    edge = kernels["edge"]
    torch.testing.assert_close(edge, -edge.flip(1))
    torch.testing.assert_close(edge.abs().sum(), torch.tensor(0.0 if k == 1 else 2.0))


def test_presets_act_on_the_brightness_of_a_colour_picture():
    grey, colour = UnfoldExplorer(), UnfoldExplorer(photograph("flower", 48))
    results = [torch.conv2d(e.current_image()[None], e.current_kernel()) for e in (grey, colour)]
    torch.testing.assert_close(*results)


def test_own_kernel_at_every_size(own):
    assert (own.preset, own.kernel_size) == ("own", 5)
    whole = own.current_kernel()
    own.kernel_size = 3
    torch.testing.assert_close(own.current_kernel(), whole[:, :, 1:4, 1:4])
    own.kernel_size = 7
    torch.testing.assert_close(own.current_kernel()[:, :, 1:6, 1:6], whole)
    torch.testing.assert_close(own.current_kernel().abs().sum(), whole.abs().sum())


def test_takes_one_output_channel_of_a_layer():
    weight = torch.nn.Conv2d(3, 8, 7).weight
    explorer = UnfoldExplorer(np.random.default_rng(0).random((3, 8, 8)), weight[2:3])
    torch.testing.assert_close(explorer.current_kernel(), weight[2:3].detach())
    assert UnfoldExplorer(kernel=weight[2]).current_image().shape == (3, 48, 48)
    assert UnfoldExplorer(kernel=SOBEL[None]).current_image().shape == (1, 48, 48)


def test_sends_image_and_kernels(own):
    image = np.frombuffer(own.image, np.float32).reshape(3, 9, 14)
    np.testing.assert_array_equal(image, own.current_image().numpy())
    sent = np.frombuffer(own.kernels, np.float32)
    for preset in ("own", "edge", "sharpen", "blur"):
        for k in (1, 3, 5, 7):
            own.preset, own.kernel_size = preset, k
            first, end = own.places[f"{preset}{k}"]
            np.testing.assert_array_equal(sent[first:end], own.current_kernel().flatten().numpy())


def test_sends_float32_whatever_the_default():
    expected = UnfoldExplorer().image
    torch.set_default_dtype(torch.float64)
    try:
        explorer = UnfoldExplorer()
    finally:
        torch.set_default_dtype(torch.float32)
    assert explorer.image == expected and explorer.current_image().dtype == torch.float32


def test_results_are_copies(own):
    own.current_kernel().zero_()
    own.current_image().zero_()
    assert own.current_kernel().abs().sum() > 0 and own.current_image().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"kernel": torch.zeros(8, 3, 3, 3)}, ValueError, r"weight\[:1\]"),
        ({"kernel": torch.zeros(3, 3)}, ValueError, r"kernel\[None\]"),
        ({"kernel": torch.zeros(1, 4, 4)}, ValueError, "one of"),
        ({"kernel": torch.zeros(2, 3, 3)}, ValueError, "C = 1 or 3"),
        ({"kernel": torch.full((1, 3, 3), torch.nan)}, ValueError, "finite"),
        ({"kernel": ACmix(3, 4)}, TypeError, "torch.as_tensor"),
        ({"kernel": "edge"}, TypeError, "torch.as_tensor"),
        ({"image": torch.zeros(2, 8, 8)}, ValueError, "for grey"),
        ({"image": torch.zeros(8, 8)}, ValueError, "for grey"),
        ({"image": torch.zeros(3, 8, 8), "kernel": SOBEL[None]}, ValueError, "of the kernel"),
        ({"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}, TypeError, "255"),
        ({"image": torch.zeros(3, 200, 100)}, ValueError, "at most"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, kind, says):
    with pytest.raises(kind, match=says):
        UnfoldExplorer(**arguments)


@pytest.mark.parametrize(
    ("trait", "value"),
    [("preset", "own"), ("preset", ""), ("kernel_size", 2), ("kernel_size", 9), ("stride", 0),
     ("stride", 4), ("dilation", 0), ("dilation", 4), ("step", 0), ("step", 50),
     ("pixel", (48, 0)), ("pixel", (0, -1))],
)  # fmt: skip
def test_traits_that_cannot_be_used(trait, value):
    explorer = UnfoldExplorer()
    with pytest.raises(ValueError, match=f"{trait}.* must be .*came"):
        setattr(explorer, trait, value)
