"""The halo explorer in Python: sizes, traits, and the counts of the package."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from acmix_edu.examples import photograph
from acmix_edu.explorers import HaloExplorer
from acmix_edu.fast import halo


def test_starts_with_the_flower_and_the_smallest_tile_that_shares_keys():
    explorer = HaloExplorer()
    assert (explorer.tile, explorer.kernel_att) == (2, 7)
    assert explorer.sizes["tiles"] == [1, 2, 4, 7, 8, 14, 28, 56]
    sent = np.frombuffer(explorer.image, np.float32).reshape(3, 56, 56)
    np.testing.assert_array_equal(sent, photograph("flower", 56)[0].numpy())


def test_takes_an_image_that_is_not_square():
    explorer = HaloExplorer(torch.rand(3, 18, 12))
    assert explorer.sizes["tiles"] == [1, 2, 3, 6]
    assert (explorer.tile, explorer.pixel) == (2, (6, 6))
    assert HaloExplorer(torch.rand(3, 9, 15)).tile == 3
    assert HaloExplorer(torch.rand(3, 4, 5)).tile == 1  # there is no other


@pytest.mark.parametrize("tile", [1, 2, 4, 7, 8, 14, 28, 56])
@pytest.mark.parametrize("k", [3, 7, 13])
def test_ratios_are_what_the_package_copies_and_computes(tile, k):
    explorer = HaloExplorer()
    explorer.tile, explorer.kernel_att = tile, k
    with patch.object(halo, "TILE", tile):
        cut = halo.tiles(56, k)
    ratios = explorer.ratios()
    assert ratios["copies"] == pytest.approx((cut.keys.numel() / 56) ** 2)
    assert ratios["logits"] == pytest.approx((cut.near.numel() / cut.near.sum().item()) ** 2)


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("tile", 9, r"tile must be one of \[1, 2, 4, 7, 8, 14, 28, 56\], but 9 came"),
        ("kernel_att", 4, r"kernel_att must be one of \[3, 5, 7, 9, 11, 13\], but 4 came"),
        ("pixel", (56, 0), "pixel's row must be from 0 to 55, but 56 came"),
    ],
)
def test_refuses_a_trait(trait, value, says):
    explorer = HaloExplorer()
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=says):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [(torch.rand(1, 4, 4), ValueError, r"\[3, H, W\], as colours"), ("a", TypeError, "str came")],
)
def test_refuses_an_image(image, error, says):
    with pytest.raises(error, match=says):
        HaloExplorer(image)
