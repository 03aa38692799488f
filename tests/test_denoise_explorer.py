"""DenoiseExplorer in Python: what it sends to the view is the network, multiplied out."""

import pytest
import torch
import torch.nn.functional as F

from acmix_edu import ACmix, entropy, windows
from acmix_edu.examples import colour_features
from acmix_edu.explorers import DenoiseExplorer
from acmix_edu.explorers.denoise import _composed
from acmix_edu.training.denoise import held_out


@pytest.fixture(scope="module")
def explorer():
    return DenoiseExplorer()


def test_the_composed_network_makes_the_same_colours(explorer):
    """Attention of each head on values of three colours, and one 3×3 convolution with a border."""
    explorer.arm, explorer.moment = "acmix", 7
    denoiser = explorer.current_denoiser()
    x = colour_features(torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1)))
    *_, made, light, constant = _composed(denoiser)
    att = denoiser.operator.explain(x)["att"]  # [1, N, 49, H, W]
    values = F.conv2d(x, made.flatten(0, 1)[..., None, None])
    seen = windows(values, 7).unflatten(1, (4, 3))  # [1, N, 3, 49, H, W]
    convolved = F.conv2d(torch.cat([x, torch.ones_like(x[:, :1])], 1), light, padding=1)
    result = (att[:, :, None] * seen).sum((1, 3)) + convolved + constant[:, None, None]
    torch.testing.assert_close(result, denoiser(x))


def test_what_chapter_9_says_of_the_rim_and_of_the_dark(explorer):
    clean, noisy = held_out()
    explorer.moment, explorer.pixel = 19, (13, 12)
    dark = windows(clean, 7)[0, :, :, 13, 12].mean(0) < 0.25  # of the flower's rim
    on_the_dark_side = {}
    for arm in ("small-beta", "acmix"):
        explorer.arm = arm
        on_the_dark_side[arm] = explorer.windows()[:, dark].sum(1)
    assert 15 < dark.sum() < 30
    assert on_the_dark_side["small-beta"][:3].max() < 0.02
    assert on_the_dark_side["acmix"][3] > 0.9
    assert 0.3 < on_the_dark_side["acmix"][2] < 0.6
    explorer.arm, explorer.pixel = "small-beta", (4, 4)
    assert entropy(explorer.windows()[:, :, None, None]).min() > 0.95
    background = (..., slice(0, 10), slice(0, 48))
    left = [(f[background] - clean[background]).std() for f in (explorer.result(), noisy)]
    assert left[0] < left[1] / 2


def test_a_picture_of_ones_own_gets_the_noise():
    own = torch.full((3, 20, 30), 0.5)
    explorer = DenoiseExplorer(own)
    assert explorer.pixel == (10, 15)
    assert torch.equal(explorer._clean, own)
    assert explorer._noisy.sub(0.5).std() == pytest.approx(0.1, rel=0.1)
    assert explorer.result().shape == own.shape
    clean, noisy = held_out()
    assert torch.equal(DenoiseExplorer(clean)._noisy, noisy[0])


def test_the_parts_that_it_returns(explorer):
    explorer.moment = 0
    assert isinstance(explorer.current_denoiser().operator, ACmix)
    seen = explorer.windows()
    assert seen.shape == (4, 49)
    torch.testing.assert_close(seen.sum(1), torch.ones(4))


@pytest.mark.parametrize(("trait", "value", "said"), [
    ("arm", "conv3x3", "arm must be one of"), ("moment", 20, "moment must"),
    ("pixel", (48, 0), "pixel's row must"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused(explorer, trait, value, said):
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=said):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before
    with pytest.raises(ValueError, match=r"\[3, H, W\]"):
        DenoiseExplorer(torch.rand(4, 20, 20))
