"""The shift explorer in Python: maps, traits, what to take away."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acmix_edu.examples import photograph, small_map
from acmix_edu.explorers import ShiftExplorer


def test_starts_with_the_small_map():
    explorer = ShiftExplorer()
    assert torch.equal(explorer.current_map(), small_map()[0])
    assert not explorer.twice and explorer.border == "zeros"
    assert torch.equal(explorer.shifted(), explorer.current_map())  # not moved yet
    explorer.map = "flower"
    assert torch.equal(explorer.current_map(), photograph("flower", 32)[0])
    explorer.current_map().zero_()  # a copy
    assert explorer.current_map().any()


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(2, 4, 5),
        torch.rand(1, 2, 4, 5).double(),
        torch.rand(4, 5),
        np.random.default_rng(0).random((2, 4, 5)),
        np.random.default_rng(0).random((4, 10))[:, ::-2],
        np.random.default_rng(0).random((4, 5)).tolist(),
        torch.rand(5, 4).half().mT.requires_grad_(),
    ],
)
def test_takes_any_floats(image):
    explorer = ShiftExplorer(image)
    x = image.detach() if isinstance(image, torch.Tensor) else torch.tensor(np.array(image))
    wanted = x.float().reshape(-1, 4, 5)
    assert explorer.map == "own"
    assert torch.equal(explorer.current_map(), wanted)
    assert dict(explorer.sizes)["own"] == list(wanted.shape)
    sent = np.frombuffer(explorer.values, np.float32)[-wanted.numel() :]
    np.testing.assert_array_equal(sent, wanted.flatten().numpy())


def padded(f, dx, dy):
    """The shift, without the package."""
    return F.pad(f, (-dy, dy, -dx, dx))


@pytest.mark.parametrize("border", ["zeros", "roll"])
def test_shifted_is_what_is_shown(border):
    image = torch.rand(2, 9, 11)
    explorer = ShiftExplorer(image)
    explorer.border, explorer.dx, explorer.dy, explorer.dx2, explorer.dy2 = border, 3, -2, -5, 4
    first = padded(image, 3, -2) if border == "zeros" else torch.roll(image, (-3, 2), (1, 2))
    assert torch.equal(explorer.shifted(), first)
    explorer.twice = True
    second = padded(first, -5, 4) if border == "zeros" else torch.roll(first, (5, -4), (1, 2))
    assert torch.equal(explorer.shifted(), second)


def test_no_further_than_the_side_of_the_map():
    image = torch.rand(2, 3, 5)
    explorer = ShiftExplorer(image)
    explorer.border, explorer.dx, explorer.dy = "roll", 8, -8
    assert torch.equal(explorer.shifted(), image)
    explorer.dx, explorer.dy = -4, 2
    assert torch.equal(explorer.shifted(), torch.roll(image, -2, 2))
    explorer.border = "zeros"
    assert not explorer.shifted().any()


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (torch.rand(5), ValueError, r"\[H, W\].*\[5\] came"),
        (torch.rand(2, 3, 4, 5), ValueError, r"\[2, 3, 4, 5\] came"),
        (torch.rand(3, 0, 5), ValueError, r"\[3, 0, 5\] came"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, "uint8"),
        (torch.zeros(4, 4, dtype=torch.long), TypeError, "int64"),
        (torch.rand(129, 128), ValueError, "129×128 came"),
        (torch.full((4, 4), torch.nan), ValueError, "finite"),
        (torch.eye(4).to_sparse(), TypeError, r"pass image\.to_dense\(\)"),
        ("flower.jpg", TypeError, "str came"),
    ],
)
def test_refuses(image, error, says):
    with pytest.raises(error, match=says):
        ShiftExplorer(image)


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("dx", 9, "dx must be from -8 to 8, but 9 came"),
        ("dy2", -9, "dy2 must be from -8 to 8, but -9 came"),
        ("border", "mirror", r"border must be one of \['zeros', 'roll'\], but 'mirror' came"),
        ("map", "own", r"map must be one of \['numbers', 'flower'\], but 'own' came"),
        ("pixel", (0, -1), r"counted from 0, but \(0, -1\) came"),
    ],
)
def test_refuses_a_trait(trait, value, says):
    explorer = ShiftExplorer()
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=says):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before
