"""The halo explorer on a page: what is drawn and written is what the package counts."""

import itertools
import random
import re
from unittest.mock import patch

import numpy as np
import pytest
import torch
from alone import write_page
from shown import AMOUNT, TWO_FRAMES, Shown, colours, number, picture

from acmix_edu.explorers import HaloExplorer
from acmix_edu.fast import halo, multiplicity

TILES, WINDOWS = (1, 2, 4, 7, 8, 14, 28, 56), (3, 5, 7, 9, 11, 13)
READ = """(root) => {
  const numbers = (node, ...names) => names.map((name) => Number(node.getAttribute(name)));
  const list = (what, read) => [...root.querySelectorAll(what)].map(read);
  const map = (node) => node.closest(".frame").querySelector("canvas").dataset.map;
  return {
    rects: Object.fromEntries(list("rect:not(.halo)", (rect) => [
      `${map(rect)} ${rect.getAttribute("class")}`, numbers(rect, "y", "x", "height", "width")])),
    mirrored: list("path.mirrored", (path) => path.getAttribute("d")),
    times: list(".numbers span", (span) => [Number(span.dataset.cell), Number(span.textContent)]),
    rows: Object.fromEntries(list(".tally", (row) => [row.dataset.row,
      [row.querySelector("b").textContent, row.lastChild.textContent]])),
    bytes: root.querySelector(".bytes").textContent,
    lines: list(".chart svg path:not(.grid)", (path) => path.getAttribute("d")) };
}"""


class Wanted:
    """What acmix_edu.fast says of one state."""

    def __init__(self, explorer, pixel):
        self.image = np.frombuffer(explorer.image, np.float32)
        self.sizes = [explorer.sizes[name] for name in ("height", "width")]
        self.image = self.image.reshape(3, *self.sizes)
        self.t, self.k, self.pixel = explorer.tile, explorer.kernel_att, pixel
        with patch.object(halo, "TILE", self.t):
            self.cut = [halo.tiles(size, self.k) for size in self.sizes]
        homes = [[n[at] for n in cut.home] for cut, at in zip(self.cut, pixel, strict=True)]
        self.keys = [c.keys[tile].numpy() for c, (tile, _) in zip(self.cut, homes, strict=True)]
        self.queries = [c.queries[tile] for c, (tile, _) in zip(self.cut, homes, strict=True)]
        self.places = [int(place) for _, place in homes]
        self.near = [c.near[p].numpy() for c, p in zip(self.cut, self.places, strict=True)]
        first = [int(q[0]) - self.k // 2 for q in self.queries]
        self.first, self.side = first, self.t + self.k - 1
        out = [(np.arange(self.side) + f < 0) | (np.arange(self.side) + f >= size)
               for f, size in zip(first, self.sizes, strict=True)]  # fmt: skip
        self.mirrored = out[0][:, None] | out[1]

    def drawings(self):
        uses = np.outer(*(c.near.sum(0).numpy() for c in self.cut))
        photo = picture(self.image)
        mask = photo[self.keys[0][:, None], self.keys[1]]
        grey = np.floor(mask[..., :3] + 0.8 * (128 - mask[..., :3]) + 0.5)
        mask[..., :3] = np.where(np.outer(*self.near)[..., None], mask[..., :3], grey)
        return {
            "picture": self.tinted(photo),
            "uses": colours(uses, 0, uses.max(), AMOUNT),
            "mask": mask,
        }

    def others(self):
        """How many tiles but one have each pixel in their halos, mirrored or not."""
        over = []
        for cut, size in zip(self.cut, self.sizes, strict=True):
            first = np.arange(len(cut.keys))[:, None] * self.t - self.k // 2
            halo_of = first + np.arange(self.side)
            over.append([(halo_of == pixel).any(1).sum() for pixel in range(size)])
        return np.outer(*over) - 1

    def overlap(self):
        """What is said of it; where tiles are smaller than windows, only corners are free of it."""
        if self.t >= self.k:
            return "where halos overlap" if self.others().any() else ""
        places = [np.minimum(n, n[::-1]) for n in map(np.arange, self.sizes)]
        corners = np.logical_and.outer(*(n < self.k // 2 for n in places))
        free = self.others() == 0
        assert not (free & ~corners).any()
        return "halos overlap everywhere" + " but in the corners" * bool(free.any())

    def tinted(self, photo):
        """Each pixel, darker for every further halo; not where they overlap everywhere."""
        others = self.others() if self.t >= self.k else np.zeros(self.sizes)
        kept = 0.7 + 0.3 * 0.4 ** others[..., None]
        tint = np.array([31, 122, 140])
        tinted = photo.copy()
        tinted[..., :3] = np.floor(tint + kept * (photo[..., :3] - tint) + 0.5)
        return tinted

    def rects(self):
        (row, column), t, k, half = self.places, self.t, self.k, self.k // 2
        tile, window = [half, half, t, t], [row, column, k, k]
        return {
            "picture reach": [*self.first, self.side, self.side],
            "picture tile": [*(int(q[0]) for q in self.queries), t, t],
            "picture here": [*self.pixel, 1, 1],
            "uses tile": tile,
            "uses window": window,
            "mask tile": tile,
            "mask window": window,
            "mask here": [row + half, column + half, 1, 1],
        }

    def times(self):
        """The multiplicity of the query's keys, on the cells where they lie themselves."""
        m = [multiplicity(size, self.k)[at].numpy()
             for size, at in zip(self.sizes, self.pixel, strict=True)]  # fmt: skip
        counts = np.outer(m[0][self.keys[0]], m[1][self.keys[1]])
        there = np.outer(*self.near) & ~self.mirrored & (counts > 1)
        return [[int(n), int(counts.flat[n])] for n in np.flatnonzero(there)]

    def repeats(self):
        """How many keys the halo holds twice, three times, …"""
        counts = np.outer(*(np.bincount(k, minlength=s) for k, s in zip(
            self.keys, self.sizes, strict=True)))  # fmt: skip
        return {int(n): int((counts == n).sum()) for n in np.unique(counts) if n > 1}


def close(text, value):
    return number(text) == pytest.approx(value, rel=0.006)


class Halo(Shown):
    def __init__(self, page, explorer=None):
        super().__init__(page, "halo")
        self.explorer = explorer or HaloExplorer()
        self.follow()

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        return self.check()

    def check(self, pixel=None):
        self.page.evaluate(TWO_FRAMES)
        self.follow()
        wanted = Wanted(self.explorer, list(pixel or self.explorer.pixel))
        self.compare(wanted.drawings())
        assert self.note("picture").partition(" keys")[2].strip() == wanted.overlap()
        read = self.root.evaluate(READ)
        assert read["rects"] == wanted.rects()
        hatched = [
            [int(y) - 1, int(x)] for x, y in re.findall(r"M(\d+) (\d+)l", read["mirrored"][0])
        ]
        assert hatched == np.argwhere(wanted.mirrored).tolist()
        assert read["mirrored"] == [read["mirrored"][0]] * 2
        assert read["times"] == (wanted.times() if wanted.side <= 24 else [])
        check_numbers(read, wanted)
        check_chart(read["lines"], wanted, self.explorer.sizes["tiles"])
        return self.state()


def check_numbers(read, wanted):
    height, width = wanted.sizes
    copies = np.prod([c.keys.numel() for c in wanted.cut]) / (height * width)
    logits = np.prod([c.near.numel() / c.near.sum().item() for c in wanted.cut])
    for name, value, plain in (("copies", copies, wanted.k**2), ("logits", logits, 1)):
        text, why = read["rows"][name]
        assert close(text, value) and why.endswith(f"unfold: {plain}")
    said = [number(n) for n in re.findall(r"(\S+) MiB", read["bytes"])]
    one = 64 * height * width * 4 / 2**20
    assert said == pytest.approx([one * copies, one * wanted.k**2], rel=0.006, abs=6e-4)
    found = re.findall(r"(\d+) keys? (\d+) times", read["bytes"])
    assert {int(times): int(keys) for keys, times in found} == wanted.repeats()
    images = re.search(r"Hatched: (\d+)", read["bytes"])
    assert int(images[1] if images else 0) == wanted.mirrored.sum()


def check_chart(lines, wanted, tiles):
    """A cursor, and for both ratios a line and a dot, where it ends: larger tiles are not shown."""
    cursor, *drawn = lines
    x = 100 * np.log(wanted.t) / np.log(tiles[-1])
    assert float(re.match(r"M(\S+) 0V100", cursor)[1]) == pytest.approx(x, abs=0.01)
    t = np.array(tiles[: tiles.index(wanted.t) + 1])
    u = t + wanted.k - 1
    ends = [max(((w + s - 1) / n) ** 2 for w in (3, 13) for n in (s, w)) for s in (1, tiles[-1])]
    for ratio, line, dot in zip(
        ((u / t) ** 2, (u / wanted.k) ** 2), drawn[::2], drawn[1::2], strict=True
    ):
        points = np.array([p.split() for p in re.split("[ML]", line)[1:]], float)
        np.testing.assert_allclose(points[:, 0], 100 * np.log(t) / np.log(tiles[-1]), atol=0.01)
        heights = 98 - 96 * np.log(ratio) / np.log(max(ends))
        np.testing.assert_allclose(points[:, 1], heights, atol=0.01)
        assert dot == "M{}h0.01".format(line[1:].split("L")[-1])


@pytest.fixture
def address(tmp_path):
    return write_page(HaloExplorer(), tmp_path / "page.html")


@pytest.fixture
def shown(page, address):
    page.goto(address)
    return Halo(page)


def test_first_drawing_and_every_control(shown):
    before = shown.check()
    for name in ("tile", "kernel_att"):
        for change in (shown.click_track, shown.press_one):
            change(name)
            after = shown.check()
            assert after[name] != before[name]
            before = after


def test_many_states(shown):
    """Both extremes, all four corners, and random states."""
    rng = random.Random(0)
    for tile in (1, 8, 56):
        for pixel in ([0, 0], [55, 0], [1, 54], [55, 55]):
            shown.set(tile=tile, kernel_att=7, pixel=pixel)
    for _ in range(12):
        shown.set(tile=rng.choice(TILES), kernel_att=rng.choice(WINDOWS),
                  pixel=[rng.randrange(56), rng.randrange(56)])  # fmt: skip


def test_the_two_ends(shown):
    """One query a tile is the unfold form; one tile is dense attention."""
    shown.set(tile=1)
    rows = shown.root.evaluate(READ)["rows"]
    assert [rows[name][0] for name in ("copies", "logits")] == ["49", "1"]
    shown.set(tile=56)
    assert "mask hides 3795" in shown.note("mask")  # 62² − 49


def test_the_corner_repeats_as_algebra_b_says(shown):
    shown.set(pixel=[0, 0])
    times = [n for _, n in shown.root.evaluate(READ)["times"]]
    assert times == [2, 2, 2] + 3 * [2, 4, 4, 4]


def test_point_pin_and_steer(shown):
    """The picture chooses tile and query; the halo only a query of the tile, the nearest."""
    shown.set(tile=8)
    shown.page.mouse.move(*shown.place("picture", 40, 3))
    shown.check((40, 3))
    shown.page.mouse.click(*shown.place("picture", 20, 27))
    shown.page.mouse.move(0, 0)
    assert shown.check()["pixel"] == [20, 27]
    shown.page.mouse.move(*shown.place("uses", 0, 4))  # tile 16 … 23, 24 … 31; halo from 13, 21
    shown.check((16, 25))
    shown.page.mouse.click(*shown.place("mask", 13, 13))
    shown.page.mouse.move(0, 0)
    assert shown.check()["pixel"] == [23, 31]
    for name, keys, pixel in (
        ("mask", ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"), [22, 26]),
        ("picture", ("ArrowDown", "Shift+ArrowLeft"), [30, 2]),
    ):
        shown.frame(name).focus()
        for key in keys:
            shown.page.keyboard.press(key)
        assert shown.check()["pixel"] == pixel


def test_choose_on_the_chart(shown):
    box = shown.root.locator(".chart svg").bounding_box()
    shown.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 20)
    shown.page.mouse.move(0, 0)
    assert shown.check()["tile"] == 56


def test_the_chart_says_how_its_lines_go_on(shown):
    hint = shown.root.locator(".chart .hint")
    for tile, wanted in ((1, True), (2, True), (14, False), (56, False)):
        shown.set(tile=tile)
        assert hint.is_visible() == wanted


@pytest.mark.parametrize("width", [320, 1280])
def test_the_numbers_below_the_chart_have_room(page, address, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    boxes = [tick.bounding_box() for tick in Halo(page).root.locator(".ticks span").all()]
    assert all(a["x"] + a["width"] + 3 <= b["x"] for a, b in itertools.pairwise(boxes))


def test_tap_on_a_phone(phone, address):
    phone.goto(address)
    shown = Halo(phone)
    phone.touchscreen.tap(*shown.place("picture", 2, 44))
    assert shown.check()["pixel"] == [2, 44]


def test_a_link_sets_it(shown):
    shown.page.evaluate("location.hash = '#halo:tile=1&kernel_att=5&pixel=3,4'")
    assert shown.check() == {"tile": 1, "kernel_att": 5, "pixel": [3, 4]}
    shown.page.evaluate("location.hash = '#halo:tile=9&kernel_att=4&pixel=3,56'")
    shown.page.evaluate(TWO_FRAMES)
    assert shown.state() == HaloExplorer().state()


def test_state_in_words(shown):
    shown.set(tile=8)
    status = shown.root.locator("[role=status]")
    status.get_by_text("Tiles of 8×8, windows of 7×7: 3.06 copies of each key, 4 logits").wait_for()


def test_your_own_picture(page, tmp_path):
    """Not square, and smaller than a window's reach: reflection goes back and forth."""
    explorer = HaloExplorer(torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)))
    page.goto(write_page(explorer, tmp_path / "page.html"))
    shown = Halo(page, explorer)
    for tile, k in ((1, 13), (2, 7), (2, 13)):
        for pixel in ([0, 0], [3, 5], [2, 1]):
            shown.set(tile=tile, kernel_att=k, pixel=pixel)
