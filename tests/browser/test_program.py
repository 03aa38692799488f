"""The program explorer on a page: what is drawn and written is what Python computes."""

import math
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import write_page
from shown import AMOUNT, TWO_FRAMES, Shown, colours, moved, number, picture

from acmix_edu import local_attention
from acmix_edu.examples import SHARPNESS, colour_features
from acmix_edu.explorers import ProgramExplorer
from acmix_edu.explorers.program import BLOCKS, MOST_STEPS, TILES, WINDOWS
from acmix_edu.fast import multiplicity

SCALE = math.log2(math.e) / 2  # √d is 2
READ = """(root) => {
  const numbers = (node, ...names) => names.map((name) => Number(node.getAttribute(name)));
  const list = (what, read) => [...root.querySelectorAll(what)].map(read);
  const map = (node) => node.closest(".frame").querySelector("canvas").dataset.map;
  const text = (what) => root.querySelector(what).textContent;
  return {
    rects: list("rect:not(.halo)", (rect) => [
      `${map(rect)} ${rect.getAttribute("class")}`, ...numbers(rect, "y", "x", "height", "width")]),
    stripes: text(".work .title") && root.querySelector("path.rows").getAttribute("d"),
    lines: list("tbody tr", (row) => [...row.cells].map((cell) => cell.textContent.trim())),
    swatches: list("tbody tr", (row) => row.querySelector(".swatch")?.style.background ?? null),
    tallies: Object.fromEntries(list(".tally", (row) => [row.dataset.row,
      [row.querySelector("b").textContent, row.lastChild.textContent]])),
    title: text(".work .title"), reading: text(".reading"), end: text(".end"),
    heading: text(".lines .heading"),
    notes: list(".map .note", (note) => note.textContent),
    slider: root.querySelector("[name=step]").getAttribute("aria-valuetext") };
}"""


class Wanted:
    """What Python says of one state."""

    def __init__(self, explorer, image, pixel):
        self.explorer, self.image, self.pixel = explorer, image, pixel
        explorer.pixel = tuple(pixel)
        self.k, self.sides = explorer.kernel_att, image.shape[1:]
        self.tile = [int(n) for n in explorer.tile.split("×")]
        self.corner = [at // t * t for at, t in zip(pixel, self.tile, strict=True)]
        self.blocks = [[y[0], x[0], y[1], x[1]] for y, x in explorer._blocks()]
        self.states, self.met = explorer.states(), explorer.met()
        self.query = (pixel[0] % self.tile[0]) * self.tile[1] + pixel[1] % self.tile[1]
        self.first, last = self.blocks[0], self.blocks[-1]
        self.covered = [last[0] + last[2] - self.first[0], last[1] + last[3] - self.first[1]]

    def counts(self, block):
        """m of 16 queries and the keys of a block."""
        axes = zip(self.sides, self.corner, self.tile, block[:2], block[2:], strict=True)
        m = [F.pad(multiplicity(side, self.k), (0, 60, 0, 16))[corner : corner + t, a : a + n]
             for side, corner, t, a, n in axes]  # fmt: skip
        return torch.einsum("iy,jx->ijyx", *m).flatten(0, 1).flatten(1)

    def weights(self):
        """Of the block met last, relative to the largest logit so far; NaN where m is 0."""
        block = self.blocks[max(self.met - 1, 0)]
        m = self.counts(block)
        if not self.met:
            return np.full(m.shape, np.nan)
        f = F.pad(colour_features(self.image).double(), (0, 60, 0, 60))
        (i, j), (y, x, rows, columns) = self.corner, block
        queries = f[:, i : i + self.tile[0], j : j + self.tile[1]].flatten(1)
        keys = f[:, y : y + rows, x : x + columns].flatten(1)
        logits = 4 * SHARPNESS[2] * queries.T @ keys / 2 + m.log()  # in base e
        top = self.states[self.met]["top"][:, None] / 2
        return torch.where(m > 0, (logits - top).exp(), math.nan).numpy()

    def on_tile(self, values):
        """A colour [3] for each of the 16 queries."""
        levels = np.floor(255 * np.asarray(values).reshape(*self.tile, 3) + 0.5)
        rgba = np.concatenate([levels, np.full((*self.tile, 1), 255.0)], -1)
        return np.where(np.isnan(rgba).any(-1, keepdims=True), 0, rgba)

    def out(self, step):
        return self.states[step]["average"] / self.states[step]["total"][:, None]

    def patch(self):
        (y, x), (rows, columns) = self.first[:2], self.covered
        photo = picture(self.image.numpy())[y : y + rows, x : x + columns]
        faded = np.ones(photo.shape[:2], bool)
        for top, left, height, width in self.blocks[: self.met]:
            faded[top - y : top - y + height, left - x : left - x + width] = False
        levels = 255 * self.image.numpy().transpose(1, 2, 0)[y : y + rows, x : x + columns]
        grey = np.floor(levels + 0.8 * (128 - levels) + 0.5)
        whole = np.zeros((rows, columns, 4))
        whole[: photo.shape[0], : photo.shape[1], :3] = np.where(
            faded[..., None], grey, photo[..., :3]
        )
        whole[: photo.shape[0], : photo.shape[1], 3] = 255
        return whole

    def own(self):
        padded = np.pad(self.image.numpy(), ((0, 0), (0, 16), (0, 16)), constant_values=np.nan)
        (i, j), (rows, columns) = self.corner, self.tile
        return padded[:, i : i + rows, j : j + columns].transpose(1, 2, 0)

    def drawings(self):
        return {
            "picture": picture(self.image.numpy()),
            "logits": colours(self.weights(), 0, 1, AMOUNT),
            "patch": self.patch(),
            "sofar": self.on_tile(self.out(self.met)),
            "answer": self.on_tile(self.out(-1)),
            "own": self.on_tile(self.own()),
        }

    def rects(self):
        half, (row, column) = self.k // 2, self.pixel
        low = [max(c - half, 0) for c in self.corner]
        high = [min(c + t + half, s)
                for c, t, s in zip(self.corner, self.tile, self.sides, strict=True)]  # fmt: skip
        y, x = self.first[:2]
        kind = ["seen"] * self.met + ["block"] * (len(self.blocks) - self.met)
        if self.met:
            kind[self.met - 1] = "seen present"
        keys = self.counts(self.blocks[0]).shape[1]
        place = [self.query // self.tile[1], self.query % self.tile[1], 1, 1]
        patch = [["block", "present"][n == self.met - 1] for n in range(len(self.blocks))]
        return [
            *([f"picture {name}", *block] for name, block in zip(kind, self.blocks, strict=True)),
            ["picture reach", *low, high[0] - low[0], high[1] - low[1]],
            ["picture tile", *self.corner, *self.tile],
            ["picture here", row, column, 1, 1],
            ["logits here", self.query, 0, 1, keys],
            *([f"patch {name}", b[0] - y, b[1] - x, *b[2:]]
              for name, b in zip(patch, self.blocks, strict=True)),
            ["patch tile", self.corner[0] - y, self.corner[1] - x, *self.tile],
            ["patch window", row - half - y, column - half - x, self.k, self.k],
            ["patch here", row - y, column - x, 1, 1],
            *([f"{name} here", *place] for name in ("sofar", "answer", "own")),
        ]  # fmt: skip

    def seen(self):
        """How many positions of the query's window the program has met."""
        return sum(int(self.counts(b)[self.query].sum()) for b in self.blocks[: self.met])

    def share(self):
        """The part that the keys met have of all weight in the end."""
        lse = [s["top"][self.query] * SCALE + s["total"][self.query].log2()
               for s in (self.states[self.met], self.states[-1])]  # fmt: skip
        return float((lse[0] - lse[1]).exp2()), float(lse[1])


def close(text, value):
    """A number as `figure` or `precise` writes it."""
    return number(text) == pytest.approx(float(value), rel=0.06 if "e" in text else 0.006, abs=6e-4)


class Program(Shown):
    def __init__(self, page, explorer=None):
        super().__init__(page, "program")
        self.explorer = explorer or ProgramExplorer()
        sent = np.frombuffer(self.explorer.image, np.float32).copy()
        height, width = (self.explorer.sizes[name] for name in ("height", "width"))
        self.image = torch.from_numpy(sent).reshape(3, height, width)
        self.follow()

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        return self.check()

    def check(self, pixel=None):
        self.page.evaluate(TWO_FRAMES)
        self.follow()
        wanted = Wanted(self.explorer, self.image, list(pixel or self.explorer.pixel))
        self.compare(wanted.drawings())
        read = self.root.evaluate(READ)
        assert sorted(read["rects"]) == sorted(wanted.rects())
        check_lines(read, wanted)
        check_words(read, wanted)
        check_tallies(read, wanted)
        return self.state()


def check_lines(read, wanted):
    """The table: the last four of the blocks met, for the query."""
    shown = range(max(wanted.met - 3, 1), wanted.met + 1)
    assert [int(line[0]) for line in read["lines"]] == list(shown)
    for n, line, swatch in zip(shown, read["lines"], read["swatches"], strict=True):
        top, shrink, total = (wanted.states[n][x][wanted.query] for x in ("top", "shrink", "total"))
        assert line[1] == "−7·10³⁷" if top == -1e38 else close(line[1], top * SCALE)
        assert close(line[2], shrink) and close(line[3], total)
        if not total:
            assert line[4] == "–" and swatch is None
            continue
        out = wanted.out(n)[wanted.query].tolist()
        assert [float(v) for v in line[4].split(",")] == pytest.approx(out, abs=0.0051)
        levels = [int(v) / 255 for v in re.findall(r"\d+", swatch)]
        assert levels == pytest.approx(out, abs=1.1 / 255)
    assert read["heading"] == f"What query ({wanted.pixel[0]}, {wanted.pixel[1]}) holds"
    lse = re.search(r"lse = .* = ([\d.]+)\.$", read["end"])
    assert bool(lse) == (wanted.met == len(wanted.blocks))
    assert not lse or close(lse[1], wanted.share()[1])


def check_words(read, wanted):
    met, blocks, block = wanted.met, len(wanted.blocks), wanted.blocks[0]
    keys = block[2] * block[3]
    said = f"Logits of block {met}" if met else "No block yet"
    assert read["title"] == f"{said}: 16 queries × {keys} keys"
    assert read["slider"] == f"{met} of {blocks}"
    stripes = re.findall(r"M(\d+) 0V16", read["stripes"])
    assert [int(x) for x in stripes] == list(range(block[3], keys, block[3]))
    seen, all_keys = wanted.seen(), wanted.k**2
    share = re.search(r"(less than 1|more than 99|\d+) % of the total", read["reading"])
    repeated = any((wanted.counts(b)[wanted.query] > 1).any() for b in wanted.blocks)
    mirrored = ", mirror images counted" if repeated else ""
    if seen == all_keys:
        said = f"met all {all_keys} keys of its window{mirrored}: this is its output"
        assert said in read["reading"]
    elif not seen:
        assert f"met none of the {all_keys} keys" in read["reading"]
    else:
        assert f"met {seen} of the {all_keys} keys" in read["reading"]
        exact = 100 * wanted.share()[0]
        rough = {"less than 1": exact < 1, "more than 99": exact > 99}
        assert rough.get(share[1]) or abs(float(share[1]) - exact) < 0.501
    read_keys = sum(
        min(b[2], wanted.sides[0] - b[0]) * min(b[3], wanted.sides[1] - b[1])
        for b in wanted.blocks[:met]
    )
    assert f"; {read_keys} key" in read["notes"][2]
    assert ("not yet" in read["notes"][2]) == (met < blocks)
    if met:
        hidden = float((wanted.counts(wanted.blocks[met - 1]) == 0).double().mean())
        said = re.search(r"window, (.*) %", read["notes"][1])[1]
        near = {"less than 1": 0.005, "more than 99": 0.995}.get(said) or float(said) / 100
        assert near == pytest.approx(hidden, abs=0.0051)


def check_tallies(read, wanted):
    for name, value in wanted.explorer.tallies().items():
        assert close(read["tallies"][name][0], value), name
    assert read["tallies"]["keys"][1].endswith(f"separate windows: {16 * wanted.k**2}")
    assert read["tallies"]["logits"][1].endswith(f"its window has {wanted.k**2}")


@pytest.fixture
def address(tmp_path):
    return write_page(ProgramExplorer(), tmp_path / "page.html")


@pytest.fixture
def shown(page, address):
    page.goto(address)
    return Program(page)


def test_first_drawing_and_every_control(shown):
    shown.check()
    for name in ("kernel_att", "step"):
        for change in (shown.click_track, shown.press_one):
            change(name)
            moved(shown, name)
    for name, values in (("tile", TILES), ("block", BLOCKS)):
        for value in values:
            shown.control(name).select_option(value)
            assert shown.check()[name] == value
        shown.control(name).focus()
        shown.page.keyboard.press("ArrowUp")
        moved(shown, name)


def test_step_by_step_to_the_definition(shown):
    """The player ends at local attention, as the page draws it."""
    f, v = colour_features(shown.image).double(), shown.image.double()
    q = 2 * SHARPNESS[2] ** 0.5 * f
    truth = local_attention(q, q, v, 7)[:, 10:12, 24:32].permute(1, 2, 0).numpy()
    steps = [shown.check()["step"]]
    on = shown.root.get_by_role("button", name="One step on")
    for _ in range(3):
        on.click()
        steps.append(shown.check()["step"])
    assert steps == [2, 3, 4, 4]
    end = shown.drawn()["sofar"][..., :3]
    assert np.abs(end - 255 * truth).max() <= 1
    shown.root.get_by_role("button", name="Play").click()  # from the start
    shown.root.locator("[name=step][aria-valuetext='4 of 4']").wait_for()
    assert shown.check()["step"] == 4


def test_one_block_is_enough_for_the_kernel_at_7(shown):
    shown.set(block="8×16", step=1)
    tallies = shown.root.evaluate(READ)["tallies"]
    assert {name: said for name, (said, _) in tallies.items()} == {
        "blocks": "1", "logits": "2.61", "keys": "128",
    }  # fmt: skip
    shown.set(tile="1×16")
    assert shown.root.evaluate(READ)["tallies"]["blocks"][0] == "2"


def test_fewer_blocks_and_then_more(shown):
    """A step beyond the last block is the last, for the slider, the player and the keys, too."""
    shown.set(step=MOST_STEPS)
    assert shown.control("step").get_attribute("max") == "4"
    shown.set(block="8×16")
    assert shown.root.evaluate(READ)["slider"] == "1 of 1"
    shown.set(block="2×16", kernel_att=13, step=5)
    assert shown.root.evaluate(READ)["slider"] == "5 of 14"
    shown.set(block="4×8", kernel_att=7)
    assert shown.root.evaluate(READ)["slider"] == "4 of 4"
    shown.root.get_by_role("button", name="One step back").click()
    assert shown.check()["step"] == 3


def test_many_states(shown):
    """All tiles and blocks, all four corners, and random states."""
    rng = random.Random(0)
    for tile, pixel in zip(TILES, ([0, 0], [55, 0], [1, 54], [55, 55], [17, 30]), strict=True):
        for block in BLOCKS:
            shown.set(tile=tile, block=block, pixel=pixel, kernel_att=rng.choice(WINDOWS),
                      step=rng.randrange(8))  # fmt: skip
    for _ in range(20):
        shown.set(tile=rng.choice(TILES), block=rng.choice(BLOCKS), kernel_att=rng.choice(WINDOWS),
                  pixel=[rng.randrange(56), rng.randrange(56)], step=rng.randrange(17))  # fmt: skip


def test_point_pin_and_steer(shown):
    """The picture chooses tile and query; the others a query of the tile."""
    shown.page.mouse.move(*shown.place("picture", 40, 3))
    shown.check((40, 3))
    shown.page.mouse.click(*shown.place("picture", 21, 27))  # tile 20 … 21, 24 … 31
    shown.page.mouse.move(0, 0)
    assert shown.check()["pixel"] == [21, 27]
    shown.page.mouse.move(*shown.place("logits", 14, 20))
    shown.check((21, 30))
    shown.page.mouse.click(*shown.place("sofar", 0, 5))
    shown.page.mouse.move(0, 0)
    assert shown.check()["pixel"] == [20, 29]
    shown.page.mouse.click(*shown.place("patch", 7, 1))  # blocks from 17, 21: the tile's corner
    shown.page.mouse.move(0, 0)
    assert shown.check()["pixel"] == [21, 24]
    shown.frame("picture").focus()
    for key in ("ArrowDown", "Shift+ArrowLeft", "ArrowLeft", "End"):
        shown.page.keyboard.press(key)
    assert shown.check()["pixel"] == [22, 55]


def test_a_row_that_is_not_there(shown):
    """A tile that hangs over the border: a click on what is missing takes the nearest pixel."""
    shown.set(tile="1×16", pixel=[9, 50])
    shown.page.mouse.click(*shown.place("logits", 14, 3))
    shown.page.mouse.move(0, 0)
    assert shown.check()["pixel"] == [9, 55]


def test_tap_on_a_phone(phone, address):
    phone.goto(address)
    shown = Program(phone)
    phone.touchscreen.tap(*shown.place("picture", 2, 44))
    assert shown.check()["pixel"] == [2, 44]
    phone.touchscreen.tap(*shown.place("answer", 1, 6))
    assert shown.check()["pixel"] == [3, 46]


def test_a_link_sets_it(shown):
    shown.page.evaluate(
        "location.hash = '#program:tile=4×4&block=2×16&kernel_att=5&pixel=3,4&step=1'"
    )
    assert shown.check() == {
        "tile": "4×4", "block": "2×16", "kernel_att": 5, "pixel": [3, 4], "step": 1,
    }  # fmt: skip
    shown.page.evaluate("location.hash = '#program:tile=4%C3%974&block=4×W&step=16'")
    assert shown.check() == {
        "tile": "4×4", "block": "4×W", "kernel_att": 7, "pixel": [11, 28], "step": 16,
    }  # fmt: skip
    shown.page.evaluate(
        "location.hash = '#program:tile=4x4&block=×&kernel_att=4&pixel=56,0&step=17'"
    )
    shown.page.evaluate(TWO_FRAMES)
    assert shown.state() == ProgramExplorer().state()


def test_the_address_leads_to_the_same(shown, open_page):
    shown.set(tile="8×2", block="8×16", step=1)
    shown.page.wait_for_timeout(400)
    assert "#program:" in shown.page.url
    fresh = open_page(viewport={"width": 1280, "height": 800})
    fresh.goto(shown.page.url)
    assert Program(fresh).check() == shown.state()
    shown.root.get_by_role("button", name="Reset").click()
    assert shown.check() == ProgramExplorer().state()


def test_state_in_words(shown):
    status = shown.root.locator("[role=status]")
    status.get_by_text(
        "A tile of 2×8 queries, windows of 7×7: 2 of 4 blocks met. Query (11, 28): "
        "The query has met 21 of the 49 keys of its window, less than 1 % of the total weight."
    ).wait_for()


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits(open_page, address, width, theme):
    """Nothing scrolls sideways, whatever the shape of tile and blocks."""
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.goto(address)
    shown = Program(page)
    for tile, block in (("2×8", "4×8"), ("1×16", "4×W"), ("16×1", "8×16")):
        shown.set(tile=tile, block=block, kernel_att=13, step=16)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide, room = shown.root.evaluate(
            "(root) => ['table', '.lines'].map((part) => root.querySelector(part).offsetWidth)"
        )
        assert wide <= room


@pytest.mark.parametrize("width", [1280, 390])
def test_the_outputs_are_large(open_page, address, width):
    """The strips of wide tiles stand below each other, and the tallies before them."""
    page = open_page(viewport={"width": width, "height": 900})
    page.goto(address)
    shown = Program(page)
    strips = [shown.frame(name).bounding_box() for name in ("sofar", "answer", "own")]
    assert all(strip["width"] / 8 > 30 and strip["height"] / 2 > 30 for strip in strips)
    tops = [strip["y"] for strip in strips]
    assert tops == sorted(set(tops))
    tallies = shown.root.locator(".tallies").bounding_box()
    assert tallies["y"] + tallies["height"] < tops[0]
    shown.set(tile="8×2")
    assert len({shown.frame(name).bounding_box()["y"] for name in ("sofar", "answer", "own")}) == 1


@pytest.mark.parametrize("sides", [(4, 6), (1, 1), (3, 20), (19, 5)])
def test_your_own_picture(page, tmp_path, sides):
    """Not square, smaller than a block and than a window: reflection goes back and forth."""
    image = torch.rand(3, *sides, generator=torch.Generator().manual_seed(0))
    page.goto(write_page(ProgramExplorer(image), tmp_path / "page.html"))
    shown, rng = Program(page, ProgramExplorer(image)), random.Random(0)
    for tile in TILES:
        for pixel in ([0, 0], [sides[0] - 1, sides[1] - 1]):
            shown.set(tile=tile, block=rng.choice(BLOCKS), kernel_att=rng.choice((3, 7, 13)),
                      pixel=pixel, step=rng.randrange(6))  # fmt: skip
