"""The program explorer in Python: traits, tallies, and a softmax that ends at the definition."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from acmix_edu import local_attention, split_heads
from acmix_edu.attention import reflect
from acmix_edu.examples import colour_acmix, colour_features, photograph
from acmix_edu.explorers import ProgramExplorer
from acmix_edu.explorers.program import BLOCKS, MOST_STEPS, TILES, WINDOWS
from acmix_edu.fast import triton_attention


def heads(image) -> list[torch.Tensor]:
    """q, k of head 2 of the book's module, and the colours, float64."""
    q, k, _ = colour_acmix().project(colour_features(image)[None])
    return [split_heads(f, 4)[0, 2].double() for f in (q, k)] + [image.double()]


def queries_of(explorer, sides):
    """The places of the tile's queries, row by row, and which of them lie in the map."""
    rows, columns = map(int, explorer.tile.split("×"))
    i, j = (at // t * t for at, t in zip(explorer.pixel, (rows, columns), strict=True))
    places = [(i + n // columns, j + n % columns) for n in range(16)]
    return places, [within(place, sides) for place in places]


def within(place, sides) -> bool:
    return place[0] < sides[0] and place[1] < sides[1]


def so_far(image, place, k, met) -> tuple[torch.Tensor, float]:
    """A softmax over the positions of the window whose key has been met, and its lse."""
    q, keys, values = heads(image)
    near = torch.arange(-(k // 2), k // 2 + 1)
    window = [reflect(at + near, side) for at, side in zip(place, image.shape[1:], strict=True)]
    seen = [(y, x) for y in window[0].tolist() for x in window[1].tolist() if (y, x) in met]
    if not seen:
        return torch.full((3,), math.nan).double(), -math.inf
    logits = torch.stack([q[:, *place] @ keys[:, y, x] / 2 for y, x in seen])
    out = torch.stack([values[:, y, x] for y, x in seen], 1) @ logits.softmax(0)
    return out, logits.logsumexp(0).item() / math.log(2)


@pytest.mark.parametrize("kernel_att", WINDOWS)
def test_ends_at_local_attention(kernel_att):
    """Inside, at the borders and in the corners, for all tiles and blocks."""
    explorer = ProgramExplorer()
    explorer.kernel_att = kernel_att
    truth = local_attention(*heads(photograph("flower", 56)[0])[:2],
                            photograph("flower", 56)[0].double(), kernel_att)  # fmt: skip
    pixels = [(0, 0), (55, 55), (0, 55), (29, 3), (20, 30)]
    for explorer.tile, explorer.block, explorer.pixel in itertools.product(TILES, BLOCKS, pixels):
        states = explorer.states()
        assert len(states) == explorer.tallies()["blocks"] + 1 <= MOST_STEPS + 1
        for n, (place, there) in enumerate(zip(*queries_of(explorer, (56, 56)), strict=True)):
            out = states[-1]["average"][n] / states[-1]["total"][n]
            if there:
                assert_close(out, truth[:, *place])
            else:
                assert states[-1]["total"][n] == 0 and out.isnan().all()


@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (5, 7), (17, 9), (6, 40)])
def test_small_maps(sides):
    """Smaller than a block or than a window: reflection goes back and forth."""
    image = torch.rand(3, *sides, generator=torch.Generator().manual_seed(0))
    explorer, (q, k, v) = ProgramExplorer(image), heads(image)
    for explorer.kernel_att in (3, 7, 13):
        truth = local_attention(q, k, v, explorer.kernel_att)
        for explorer.tile, explorer.block in itertools.product(TILES, BLOCKS):
            for explorer.pixel in {(0, 0), (sides[0] - 1, sides[1] - 1), (sides[0] // 2, 0)}:
                end = explorer.states()[-1]
                places, there = queries_of(explorer, sides)
                out = (end["average"] / end["total"][:, None])[there]
                assert_close(out, torch.stack([truth[:, *p] for p in places if within(p, sides)]))


@pytest.mark.parametrize(
    ("tile", "block", "kernel_att", "pixel"),
    [("2×8", "4×8", 7, (11, 12)), ("1×16", "2×16", 5, (0, 17)), ("16×1", "4×W", 3, (17, 0)),
     ("4×4", "8×16", 9, (17, 17)), ("8×2", "4×8", 13, (9, 0))],
)  # fmt: skip
def test_each_state_is_a_softmax_over_the_keys_met(tile, block, kernel_att, pixel):
    image = photograph("flower", 56)[0][:, 8:26, 20:38]  # 18×18: tiles hang over the border
    explorer, met = ProgramExplorer(image), set()
    explorer.tile, explorer.block, explorer.kernel_att = tile, block, kernel_att
    explorer.pixel = pixel
    states, scale = explorer.states(), math.log2(math.e) / 2
    for state, rectangle in zip(states, [None, *explorer._blocks()], strict=True):
        if rectangle:
            (y, rows), (x, columns) = rectangle
            new = set(itertools.product(range(y, y + rows), range(x, x + columns)))
            assert not new & met
            met |= new
        for n, (place, there) in enumerate(zip(*queries_of(explorer, (18, 18)), strict=True)):
            if there:
                out, lse = so_far(image, place, kernel_att, met)
                total = state["total"][n]
                assert_close(state["average"][n] / total, out, equal_nan=True)
                assert_close(state["top"][n] * scale + total.log2(), torch.tensor(lse).double())
                assert 0 <= state["shrink"][n] <= 1
    first = states[1]["top"] > -1e38
    assert (states[1]["shrink"][first] == 0).all()  # nothing was held before


def test_starts_where_the_output_is_still_wrong():
    explorer = ProgramExplorer()
    assert explorer.state() == {
        "tile": "2×8", "block": "4×8", "kernel_att": 7, "pixel": [11, 28], "step": 2,
    }  # fmt: skip
    sent = np.frombuffer(explorer.image, np.float32).reshape(3, 56, 56)
    np.testing.assert_array_equal(sent, photograph("flower", 56)[0].numpy())
    outs = [s["average"][12] / s["total"][12] for s in explorer.states()]
    assert (outs[2] - outs[-1]).abs().max() > 0.4


@pytest.mark.parametrize(
    ("tile", "block", "kernel_att", "wanted"),
    [
        ("2×8", "8×16", 7, (1, 128 / 49, 128)),  # 8×14 keys in one block: chapter 7's 2.6
        ("1×16", "8×16", 7, (2, 256 / 49, 256)),  # 7×22
        ("4×4", "8×16", 7, (2, 256 / 49, 256)),  # 10×10
        ("16×1", "4×W", 13, (7, 28 * 56 / 169, 28 * 56)),
        ("1×16", "4×8", 13, (16, 512 / 169, 512)),  # the most
    ],
)
def test_tallies(tile, block, kernel_att, wanted):
    explorer = ProgramExplorer()
    explorer.tile, explorer.block, explorer.kernel_att = tile, block, kernel_att
    assert tuple(explorer.tallies().values()) == pytest.approx(wanted)


def test_a_small_map_has_fewer_keys_than_a_block():
    explorer = ProgramExplorer(torch.rand(3, 5, 6))
    explorer.block = "8×16"
    assert explorer.tallies() == {"blocks": 1, "logits": 128 / 49, "keys": 30}


class Recorder:
    """Stands for a kernel: keeps what `launch` hands to it."""

    def __getitem__(self, grid):
        return lambda *_, **constants: vars(self).update(constants)


@pytest.mark.parametrize("kernel_att", WINDOWS)
@pytest.mark.parametrize("sides", [(55, 55), (9, 21), (5, 7)])
def test_as_many_blocks_as_the_kernel(kernel_att, sides, monkeypatch):
    """Odd widths: there the kernel's ALIGN is 1, too."""
    monkeypatch.setattr(triton_attention, "capability", lambda _: (8, 0))
    explorer, kernel = ProgramExplorer(torch.rand(3, *sides)), Recorder()
    maps = [torch.rand(1, 1, 16, *sides)] * 4
    triton_attention.launch(kernel, maps, maps, kernel_att, 1, 1)
    explorer.kernel_att, explorer.block = kernel_att, "×".join(map(str, kernel.BLOCK))
    assert (kernel.ALIGN, kernel.TILE) == (1, (2, 8))
    assert tuple(n for n, _ in explorer._covered()) == kernel.STEPS


def test_more_steps_than_there_are_stand_for_all_of_them():
    explorer = ProgramExplorer()
    explorer.step = 3
    assert explorer.met() == 3
    explorer.block = "8×16"
    assert (explorer.step, explorer.met()) == (3, 1)


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("tile", "2x8", r"tile must be one of \['1×16', '2×8', '4×4', '8×2', '16×1'\], but '2x8'"),
        ("block", "4×56", r"block must be one of \['8×16', '4×8', '2×16', '4×W'\], but '4×56'"),
        ("kernel_att", 4, r"kernel_att must be one of \[3, 5, 7, 9, 11, 13\], but 4 came"),
        ("pixel", (0, 56), "pixel's column must be from 0 to 55, but 56 came"),
        ("step", 17, "step must be from 0 to 16, but 17 came"),
    ],
)
def test_refuses_a_trait(trait, value, says):
    explorer = ProgramExplorer()
    before = getattr(explorer, trait)
    with pytest.raises(ValueError, match=says):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (torch.rand(1, 4, 4), ValueError, r"\[3, H, W\], as colours"),
        ("a", TypeError, "str came"),
        (torch.full((3, 4, 4), 255.0), ValueError, r"from 0 to 1, but 255 to 255 came.*/ 255"),
    ],
)
def test_refuses_an_image(image, error, says):
    with pytest.raises(error, match=says):
        ProgramExplorer(image)
