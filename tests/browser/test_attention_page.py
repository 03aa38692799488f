"""The attention explorer in the built book: whom a pixel attends to is what Python computes."""

import math
import random
import re

import numpy as np
import pytest
import torch
from alone import write_page
from shown import AMOUNT, SAID, SIGNED, TWO_FRAMES, Shown, colours, moved, number, picture

from acmix_edu import (
    ACmix,
    global_attention,
    local_attention,
    split_heads,
    window_attention,
    windows,
)
from acmix_edu.explorers import AttentionExplorer
from acmix_edu.fast import multiplicity

CHAPTER = "book/04_attention.html"
READ = (
    f"(root) => {{ {SAID}"
    + """
  const numbers = (map) => [...map.querySelectorAll(".numbers span")].map((s) => s.textContent);
  const rects = (map) => [...map.querySelectorAll("rect:not(.halo)")].map((r) =>
    [r.getAttribute("class"), ...["y", "x", "height", "width"].map((n) => +r.getAttribute(n))]);
  const maps = [...root.querySelectorAll(".map")].map((map) =>
    [map.querySelector("[data-map]").dataset.map, {
      note: (map.querySelector(".note .scale-bar")?.nextSibling ?? map.querySelector(".note"))
        .textContent,
      scale: map.querySelector(".note .scale-bar")?.ariaLabel,
      rects: rects(map), numbers: numbers(map), title: map.querySelector(".title").textContent,
      seen: map.checkVisibility(),
      hatches: map.querySelector("path.mirrored")?.getAttribute("d") ?? "",
      pressed: map.querySelector("button")?.getAttribute("aria-pressed"),
      bar: parseFloat(map.querySelector(".bar span")?.style.flexBasis) }]);
  return { maps: Object.fromEntries(maps), where: root.querySelector(".heading").textContent,
    scales: [...root.querySelectorAll(".scale")].map(said),
    disabled: [...root.querySelectorAll("input:disabled")].map((input) => input.name) };
}"""
)


def percent(text):
    return number(text.removesuffix("\u00a0%")) / 100


def near(text, weight, rel=0.006):
    """Whether the text is the weight; "0.000 %" is nearly nothing."""
    nearly = {"abs": 5.1e-6} if text == "0.000\u00a0%" else {}
    return percent(text) == pytest.approx(weight, rel=rel, **nearly)


def near_number(text, value):
    return number(text) == pytest.approx(value, rel=0.06, abs=6e-4)


def same_place(text, place):
    return (
        number(text.strip("() ").split(",")[0]) == place[0]
        and number(text.strip("() ").split(",")[1]) == place[1]
    )


class Wanted:
    """All that must be drawn for the state of an explorer, from the package."""

    def __init__(self, explorer, pixel=None, key=None):
        self.e, start = explorer, explorer.pixel
        if pixel is not None:
            explorer.pixel = tuple(pixel)
        self.pixel, self.side = np.array(explorer.pixel), np.array(explorer._image.shape[1:])
        self.whole, self.tile = (explorer.mode == mode for mode in ("whole image", "tile"))
        k = explorer.kernel_att
        self.step = explorer.dilation if explorer.mode == "window" else 1
        self.grid, self.centre = np.array([k, k]), np.array([k // 2, k // 2])
        if self.whole:
            self.grid, self.centre = self.side, self.pixel
        if self.tile:
            self.centre = self.pixel % k
            self.grid = np.minimum(k, self.side - (self.pixel - self.centre))
        self.weights = explorer.weights().double().numpy()
        key = np.array(explorer.key if key is None else key)
        self.cell = np.clip(self.centre + key, 0, self.grid - 1)
        self.read_pixels()
        self.values()
        explorer.pixel = start

    def read_pixels(self):
        """Which pixel each cell reads, by the package's windows of addresses."""
        (height, width), (i, j), e = self.side, self.pixel, self.e
        address = torch.arange(height * width, dtype=torch.float64).view(1, height, width)
        if self.whole:
            self.read, counts = address.flatten().long().numpy(), np.ones((height, width))
        elif self.tile:
            (top, left), (rows, columns) = self.pixel - self.centre, self.grid
            part = (slice(top, top + rows), slice(left, left + columns))
            counts = np.zeros((height, width))
            counts[part], self.read = 1, address[0][part].flatten().long().numpy()
        else:
            window = windows(address, e.kernel_att, dilation=e.dilation)
            self.read = window[0, :, i, j].long().numpy()
            rows, columns = (multiplicity(int(n), e.kernel_att, dilation=e.dilation)
                             for n in self.side)  # fmt: skip
            counts = torch.outer(rows[i], columns[j]).double().numpy()
        self.counts = np.where(counts > 0, counts, np.nan)
        sums = [np.bincount(self.read, own, height * width) for own in self.weights]
        self.sums = np.where(counts > 0, np.reshape(sums, (-1, height, width)), np.nan)
        self.repeats = np.nanmax(counts) > 1
        self.t = self.cell[0] * self.grid[1] + self.cell[1]
        self.key = np.array(divmod(self.read[self.t], width))
        self.place = self.pixel + (self.cell - self.centre) * self.step

    def values(self):
        e = self.e
        module = e._modules[e.preset]
        maps = module.project(e._image[None])
        q, k, v = (split_heads(f, module.head)[0].double() for f in maps)
        pe = module.position_term(maps[0]).double() if e.position else None
        q = q / e.temperature
        asks, keys = q[e.head, :, *self.pixel], k[e.head] if pe is None else k[e.head] - pe[0]
        scores = (asks @ keys.flatten(1)).numpy()[self.read] / math.sqrt(module.head_dim)
        self.scores = scores - scores.max()
        self.v = v[e.head, e.channel].numpy()
        placed = k if pe is None else k - pe[0]
        if self.whole:
            out = global_attention(q, placed, v)
        elif self.tile:
            out = window_attention(q, placed, v, e.kernel_att)
        else:
            out = local_attention(q, k, v, e.kernel_att, pe, dilation=e.dilation)
        self.out = out[e.head, e.channel].numpy()

    def box(self):
        """The first pixel of the window, and its sides."""
        if self.whole:
            return np.zeros(2, int), self.side
        if self.tile:
            return self.pixel - self.centre, self.grid
        reach = self.e.dilation * (self.e.kernel_att // 2)
        return self.pixel - reach, np.array([2 * reach + 1] * 2)

    def around(self):
        """What is shown of the picture on each head: the window in the middle, if there is room."""
        corner, sides = self.box()
        shown = np.minimum(2 * sides + 1, self.side)
        middle = np.floor(corner + (sides - shown) / 2).astype(int)
        return np.clip(middle, 0, self.side - shown), shown

    def cut(self, values, corner, sides):
        padded = np.full((2 * sides + self.side), np.nan)
        padded[sides[0] : sides[0] + self.side[0], sides[1] : sides[1] + self.side[1]] = values
        (top, left), (rows, columns) = corner + sides, sides
        return padded[top : top + rows, left : left + columns]

    def drawings(self):
        made = {"picture": picture(self.e._image.numpy())}
        for n, sums in enumerate(self.sums):
            made[f"head{n}"] = colours(self.cut(sums, *self.around()), 0, np.nanmax(sums), AMOUNT)
        own = self.weights[self.e.head].reshape(self.grid)
        made["cells"] = colours(own, 0, own.max(), AMOUNT)
        made["scores"] = colours(self.scores.reshape(self.grid), -5, 0, AMOUNT)
        self.most = max(4, np.nanmax(self.counts))
        made["counts"] = colours(self.cut(self.counts, *self.box()), 0, self.most, AMOUNT)
        end = max(np.abs(self.v).max(), 1e-12)
        made |= {n: colours(m, -end, end, SIGNED) for n, m in (("v", self.v), ("output", self.out))}
        return made

    def marks(self):
        """Rectangles by map: class, row, column, rows, columns."""
        corner, sides = self.box()
        origin, shapes = np.zeros(2, int), {}
        shapes["attention"] = ("attention", *corner, *sides)
        shapes["here"], shapes["key"] = ("here", *self.pixel, 1, 1), ("key", *self.key, 1, 1)
        every = ("attention", "here", "key")
        kinds = {"picture": (every, origin), "v": (every, origin), "output": (("here",), origin),
                 "counts": (("here", "key"), corner)}  # fmt: skip
        kinds |= {f"head{n}": (every, self.around()[0]) for n in range(len(self.weights))}
        made = {
            name: [[k, s[1] - at[0], s[2] - at[1], *s[3:]] for k in names for s in [shapes[k]]]
            for name, (names, at) in kinds.items()
        }
        made["counts"].insert(0, ["edge", *-corner, *self.side])
        made["cells"] = [["here", *self.centre, 1, 1], ["key", *self.cell, 1, 1]]
        made["scores"] = made["cells"]
        return made


def check_notes(maps, wanted):
    e, own = wanted.e, wanted.weights[wanted.e.head]
    for n, weights in enumerate(wanted.weights):
        entropy, largest = re.fullmatch(
            r"entropy (\S+), max (.*)", maps[f"head{n}"]["note"]
        ).groups()
        count = len(weights)
        spread = -sum(a * np.log(a) for a in weights if a > 0) / (np.log(count) if count > 1 else 1)
        assert number(entropy) == pytest.approx(spread, abs=0.006)
        assert maps[f"head{n}"]["bar"] == pytest.approx(100 * spread, abs=0.1)
        assert near(largest, np.nanmax(wanted.sums[n]), rel=0.06)
        assert maps[f"head{n}"]["pressed"] == str(n == e.head).lower()
    outside = ((wanted.place < 0) | (wanted.place >= wanted.side)).any()
    pattern = r"(\(.*\)), a mirror image of (\(.*\)): (.*)" if outside else r"key ((\(.*\))): (.*)"
    at, copy, weight = re.fullmatch(pattern, maps["cells"]["note"]).groups()
    assert same_place(at, wanted.place) and same_place(copy, wanted.key)
    assert near(weight, own[wanted.t])
    check_score(maps["scores"], wanted)
    key, copies = tuple(wanted.key), int(wanted.counts[tuple(wanted.key)])
    at, said = re.fullmatch(r"(\(.*\)) is read (.*)", maps["counts"]["note"]).groups()
    assert same_place(at, key)
    assert copies > 1 or said == "once"
    if copies > 1:
        times, again, one, total = re.fullmatch(r"(\d+) times: (\d+) × (.*) = (.*)", said).groups()
        assert int(times) == int(again) == copies == (wanted.read == wanted.read[wanted.t]).sum()
        assert near(one, own[wanted.t]) and near(total, wanted.sums[e.head][key])
    pixel = tuple(wanted.pixel)
    said = re.fullmatch(r"Black: query (.*). Magenta: key (.*).", maps["picture"]["note"]).groups()
    assert same_place(said[0], pixel) and same_place(said[1], key)
    said = (("v", "has", key, wanted.v), ("output", "gets", pixel, wanted.out))
    for name, verb, place, values in said:
        at, said = maps[name]["note"].split(f" {verb} ")
        assert same_place(at, place)
        assert near_number(said, values[place])


def check_score(shown, wanted):
    """The title names what is divided; the note writes the key's score, and the division by τ."""
    e, τ = wanted.e, wanted.e.temperature
    place = e.position and bool(e._modules[e.preset].conv_p.weight.any())
    divided = "" if τ == 1 else f" ÷ {float(f'{τ:.2f}'):g}"
    assert shown["title"] == f"Scores q·{'(k − pe)' if place else 'k'}/√d{divided}"
    at, said = re.fullmatch(r"key (\(.*\)): (.*)", shown["note"]).groups()
    assert same_place(at, wanted.place)
    *before, after = said.split(" = ")
    assert number(after) == pytest.approx(wanted.scores[wanted.t], rel=0.06, abs=2e-3)
    assert bool(before) == bool(divided)
    if before:
        assert before[0].endswith(divided)
        whole = number(before[0].removesuffix(divided))
        assert whole == pytest.approx(wanted.scores[wanted.t] * τ, rel=0.06, abs=2e-3)


def check_numbers(read, wanted):
    """Numbers on the cells, hatches on mirror images, headings and scales."""
    maps, own = read["maps"], wanted.weights[wanted.e.head]
    small = wanted.grid[1] <= 7
    hundredths = [float(text) for text in maps["cells"]["numbers"]]
    assert len(hundredths) == (own.size if small else 0)
    np.testing.assert_allclose(hundredths, 100 * own[: len(hundredths)], atol=0.51)
    texts = maps["scores"]["numbers"]
    assert len(texts) == len(hundredths)
    for text, score in zip(texts, wanted.scores, strict=bool(texts)):
        assert number(text or "-100") == pytest.approx(max(score, -100), abs=0.51)
        assert score < -0.9 or number(text) == pytest.approx(score, abs=0.052)
        assert len(text) <= 3
    assert maps["counts"]["seen"] == wanted.repeats
    counts = wanted.cut(wanted.counts, *wanted.box()).flatten()
    texts = ["" if np.isnan(n) else f"{n:.0f}" for n in counts]
    assert maps["counts"]["numbers"] == (texts if wanted.box()[1][1] <= 7 else [])
    assert maps["scores"]["hatches"] == maps["cells"]["hatches"]
    hatched = {
        (int(r) - 1, int(c)) for c, r in re.findall(r"M(\d+) (\d+)l", maps["cells"]["hatches"])
    }
    cells = np.stack(np.unravel_index(np.arange(own.size), wanted.grid), 1)
    places = wanted.pixel + (cells - wanted.centre) * wanted.step
    outside = ((places < 0) | (places >= wanted.side)).any(1)
    assert hatched == {tuple(cell) for cell in cells[outside].tolist()}
    assert ("Hatched" in read["scales"][1]) == outside.any()
    different = f", {len(set(wanted.read))} different pixels" if wanted.repeats else ""
    at = "({}, {})".format(*wanted.pixel)
    keys = "1 key" if own.size == 1 else f"{own.size} keys"
    assert read["where"] == f"Head {wanted.e.head} at {at}: {keys}{different}"
    for name in ("v", "output"):
        low, high = re.fullmatch(r"scale: −(\S+) to (\S+)", maps[name]["scale"]).groups()
        assert low == high and near_number(high, np.abs(wanted.v).max())
    assert maps["scores"]["scale"] == "scale: ≤ −5 to 0"
    assert near(maps["cells"]["scale"].removeprefix("scale: 0\u00a0% to "), own.max(), rel=0.06)
    assert maps["counts"]["scale"] == f"scale: 0 to {wanted.most:.0f}"
    assert (f"all {keys}" if own.size > 1 else "one key has all") in read["scales"][0]
    idle = {"window": [], "tile": ["dilation"], "whole image": ["kernel_att", "dilation"]}
    place = wanted.e._modules[wanted.e.preset].conv_p.weight
    none = [] if place.any() else ["position"]
    assert sorted(read["disabled"]) == sorted(idle[wanted.e.mode] + none)


class Attention(Shown):
    """The explorer on a page, and the same explorer in Python."""

    def __init__(self, page, explorer=None):
        super().__init__(page, "attention")
        self.explorer = explorer or AttentionExplorer(pixel=(14, 12))

    def check(self, pixel=None, key=None):
        """Compare canvases, notes, marks and numbers with Python; return what is wanted."""
        wanted = Wanted(self.explorer, pixel, key)
        self.compare(wanted.drawings())
        read = self.root.evaluate(READ)
        check_notes(read["maps"], wanted)
        check_numbers(read, wanted)
        for name, marks in wanted.marks().items():
            assert read["maps"][name]["rects"] == [[k, *map(int, r)] for k, *r in marks], name
        return wanted


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Attention(page)


def set_state(shown, state):
    shown.root.evaluate("(root, state) => root.model.set(state)", state)
    shown.page.evaluate(TWO_FRAMES)
    shown.follow()


# ---- Controls --------------------------------------------------------------------------------


def test_first_drawing_and_every_control(shown):
    page = shown.page
    assert shown.state() == shown.explorer.state()
    shown.check()
    for name in ("kernel_att", "dilation", "temperature", "channel"):
        shown.click_track(name)
        moved(shown, name)
        shown.press_one(name)
        moved(shown, name)
    shown.control("kernel_att").press("Home")  # one key
    moved(shown, "kernel_att")
    shown.control("preset").select_option("trained")  # "colour" has no position term
    moved(shown, "preset")
    shown.control("position").click()
    moved(shown, "position")
    page.keyboard.press("Space")
    moved(shown, "position")
    for name, option in (("preset", "random"), ("mode", "tile"), ("mode", "whole image")):
        shown.control(name).select_option(option)
        moved(shown, name)
        shown.control(name).focus()
        page.keyboard.press("ArrowUp")
        moved(shown, name)
    shown.root.get_by_role("button", name="Head 1").click()
    assert moved(shown, "head").e.head == 1
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert moved(shown, "head").e.head == 0


def random_state(rng, explorer):
    edge = [0, 1, 2, 23, 45, 46, 47]
    return {"preset": rng.choice(list(explorer.places)),
            "mode": rng.choice(["window", "window", "tile", "tile", "whole image"]),
            "kernel_att": rng.randrange(1, 14, 2), "dilation": rng.randint(1, 4),
            "temperature": rng.choice([0.25, 0.354, 1, 2.828, 4]), "position": rng.random() < 0.6,
            "head": rng.randrange(4), "channel": rng.randrange(4),
            "pixel": [rng.choice(edge) for _ in range(2)],
            "key": [rng.choice([-99, -6, -2, 0, 1, 3, 99]) for _ in range(2)]}  # fmt: skip


def test_many_states(shown):
    """Random states and extremes: corners, the largest windows, the coldest and the warmest."""
    rng = random.Random(4)
    for _ in range(10):
        set_state(shown, random_state(rng, shown.explorer))
        shown.check()
    for preset in shown.explorer.places:
        set_state(shown, {"preset": preset, "mode": "window", "kernel_att": 13, "dilation": 4,
                          "temperature": 0.25, "pixel": [47, 0], "key": [6, -6]})  # fmt: skip
        shown.check()


def test_counts_are_shown_where_one_differs_from_1(shown):
    """Not away from the border, nor where each image of a pixel is of another one."""
    seen = {}
    for pixel, k, dilation in (((3, 24), 7, 1), ((2, 24), 7, 1), ((1, 24), 3, 3), ((0, 0), 1, 1)):
        set_state(shown, {"pixel": list(pixel), "kernel_att": k, "dilation": dilation})
        shown.check()
        seen[pixel] = shown.frame("counts").is_visible()
    assert seen == {(3, 24): False, (2, 24): True, (1, 24): False, (0, 0): False}


def test_temperature_divides_the_scores_that_are_drawn(shown):
    """Four times as warm: a quarter of the score, its number written, and lighter."""
    one, drawn = shown.check().scores, shown.drawn()["scores"]
    set_state(shown, {"temperature": 4})
    four, warm = shown.check().scores, shown.drawn()["scores"]
    np.testing.assert_allclose(four, one / 4, rtol=1e-6, atol=1e-9)
    assert (warm[..., 0] >= drawn[..., 0]).all() and (warm[..., 0] > drawn[..., 0]).sum() > 10
    number_of_key = shown.note("scores").split(" = ")
    assert len(number_of_key) == 2 and number_of_key[0].endswith("÷ 4")


def test_temperature_and_position_matter(shown):
    """Warmth evens the weights; the position term of random weights moves them."""
    set_state(shown, {"preset": "random", "mode": "whole image", "temperature": 0.25})
    cold = shown.check().weights
    set_state(shown, {"temperature": 4})
    assert (shown.check().weights.max(1) < cold.max(1) / 2).any()
    set_state(shown, {"temperature": 0.25, "position": False})
    assert np.abs(shown.check().weights - cold).max() > 1e-4


# ---- Pointing --------------------------------------------------------------------------------


def test_point_and_pin_the_query(shown):
    pinned = shown.explorer.pixel
    for name, pixel in (("picture", (5, 7)), ("v", (20, 3)), ("output", (0, 47))):
        shown.page.mouse.move(*shown.place(name, *pixel))
        shown.check(pixel)
    shown.page.mouse.move(0, 0)
    shown.check(pinned)
    shown.page.mouse.click(*shown.place("picture", 9, 30))
    shown.page.mouse.move(0, 0)
    shown.follow()
    assert shown.explorer.pixel == (9, 30)
    shown.check()


def test_point_and_pin_the_key(shown):
    """On cells, scores and counts, and on a head, where a click also chooses the head."""
    set_state(shown, {"pixel": [1, 46], "dilation": 3})
    pinned = shown.explorer.key
    top, left = Wanted(shown.explorer).around()[0]
    for name in ("cells", "scores"):
        shown.page.mouse.move(*shown.place(name, 0, 1))
        assert shown.check(key=(-3, -2)).place.tolist() == [-8, 40]
    shown.page.mouse.move(*shown.place("head1", 4 - top, 40 - left))
    shown.check(key=(1, -2))
    shown.page.mouse.move(*shown.place("head1", 5 - top, 45 - left))  # a mirror image
    wanted = shown.check(key=(-2, 1))
    assert wanted.place.tolist() == [-5, 49] and wanted.key.tolist() == [5, 45]
    shown.page.mouse.move(0, 0)
    shown.check(key=pinned)
    shown.page.mouse.click(*shown.place("head0", 4 - top, 43 - left))
    shown.page.mouse.move(0, 0)
    shown.follow()
    assert (shown.explorer.head, shown.explorer.key) == (0, (1, -1))
    shown.check()
    shown.page.mouse.click(*shown.place("head2", 20 - top, 20 - left))  # no key: only the head
    shown.page.mouse.move(0, 0)
    shown.follow()
    assert (shown.explorer.head, shown.explorer.key) == (2, (1, -1))
    set_state(shown, {"dilation": 1})  # (2, 45) is read four times: the pixel before its images
    shown.page.mouse.move(*shown.place("counts", 2 + 2, 45 - 43))
    assert shown.check(key=(1, -1)).place.tolist() == [2, 45]


# How much of its cell the widest number of the scores takes, and where the bars of the heads lie.
ROOM = """(root) => {
  const widths = [...root.querySelectorAll(".numbers.scores span")].map((span) => {
    const text = document.createRange();
    text.selectNodeContents(span);
    return text.getBoundingClientRect().width;
  });
  const frame = root.querySelector(".numbers.scores").getBoundingClientRect();
  const bars = [...root.querySelectorAll(".heads .bar")].map((bar) => bar.getBoundingClientRect());
  return [Math.max(...widths) / (frame.width / Math.sqrt(widths.length)), bars.map((bar) => bar.y)];
}"""


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_numbers_keep_apart_and_bars_in_line(page, server, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}#attention:pixel=1,0")
    shown = Attention(page)
    for head in range(4):
        set_state(shown, {"head": head})
        assert shown.root.evaluate(ROOM)[0] < 0.9
    for state in ({"preset": "random", "mode": "whole image"}, {"preset": "trained"}):
        set_state(shown, state)
        bars = shown.root.evaluate(ROOM)[1]
        assert bars[0] == bars[1] and bars[2] == bars[3]


def test_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Attention(phone)
    phone.touchscreen.tap(*shown.place("picture", 2, 44))
    phone.touchscreen.tap(*shown.place("cells", 6, 0))
    shown.follow()
    assert (shown.explorer.pixel, shown.explorer.key) == ((2, 44), (3, -3))
    shown.check()


def test_arrow_keys(shown):
    row, column = shown.explorer.pixel
    shown.frame("picture").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowDown", "ArrowUp", "ArrowLeft"):
        shown.page.keyboard.press(key)
    shown.follow()
    assert shown.explorer.pixel == (row + 5, column + 1)
    for _ in range(12):  # it stops at the border
        shown.page.keyboard.press("Shift+ArrowLeft")
    shown.follow()
    assert shown.check().pixel.tolist() == [row + 5, 0]
    shown.frame("cells").focus()
    for key in ("ArrowUp", "Shift+ArrowUp", "ArrowRight"):  # it stops at the border
        shown.page.keyboard.press(key)
    shown.follow()
    assert shown.explorer.key == (-3, 0)
    shown.check()


def test_state_in_words(shown):
    shown.frame("picture").focus()
    shown.page.keyboard.press("ArrowDown")
    shown.follow()
    row, column = shown.explorer.pixel
    status = shown.root.locator(".status")
    status.get_by_text(f"({row}, {column}) asks").wait_for()
    said = re.search(r"entropy of the heads (.*?)\. Head", status.inner_text())[1].split(", ")
    weights = Wanted(shown.explorer).weights
    spread = [-(a[a > 0] * np.log(a[a > 0])).sum() / np.log(49) for a in weights]
    np.testing.assert_allclose([number(text) for text in said], spread, atol=6e-4)


def test_your_own_module_and_image(page, tmp_path):
    """Not square, smaller than its window, one head, grey: reflected to and fro."""
    torch.manual_seed(1)
    module = ACmix(1, 3, kernel_att=9, head=1, dilation=5, stride=2)
    explorer = AttentionExplorer(module, torch.randn(1, 3, 7), pixel=(2, 1))
    page.goto(write_page(explorer, tmp_path / "page.html"))
    shown = Attention(page, explorer)
    wanted = shown.check()
    assert np.nanmax(wanted.counts) > 4
    shown.press_one("kernel_att")
    moved(shown, "kernel_att")
    shown.control("mode").select_option("whole image")
    moved(shown, "mode")


# ---- attention.js against the package --------------------------------------------------------

FILES = ("engine.js", "kit.js", "attention.js")
RUN = """(cases) => cases.map(({ q, k, pe, heads, sizes, query, window }) => {
  const size = sizes.height * sizes.width, keys = keysOf(query, sizes, window);
  const map = (data) => ({ ...sizes, channels: data.length / size, data });
  const maps = { q: map(q), k: map(k), pe: map(pe) };
  const weights = scoresAt(maps, heads, query, keys.pixels).map(softmax);
  const plain = (values) => Array.from(values, (value) => (isNaN(value) ? 0 : value));
  return { weights: weights.map(plain), pixels: keys.pixels,
    sums: weights.map((own) => plain(folded(own, keys.pixels, size))) };
})"""


def test_mathematics_on_random_configurations(beside):
    """Weights of one query; over the whole image the average of addresses by global_attention."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    cases, wanted = [], []
    for n in range(100):
        heads, d, height, width = (rng.randint(1, most) for most in (3, 5, 9, 11))
        shape = (heads, d, height, width)
        q, k = (2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in "qk")
        pe = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
        i, j, whole = rng.randrange(height), rng.randrange(width), n % 3 == 0
        mode = "whole image" if whole else ("window", "tile")[n % 2]
        window = {"mode": mode, "kernel": rng.randrange(1, 8, 2), "dilation": rng.randint(1, 4)}
        address = torch.eye(height * width, dtype=torch.float64).view(-1, height, width)
        values = address.expand(heads, -1, -1, -1)
        if whole:
            sums = global_attention(q, k - pe, values)
        elif mode == "tile":
            sums = window_attention(q, k - pe, values, window["kernel"])
        else:
            sums = local_attention(
                q, k, values, window["kernel"], pe[None], dilation=window["dilation"]
            )
        wanted.append(sums[:, :, i, j])
        flat = {name: f.flatten().tolist() for name, f in (("q", q), ("k", k), ("pe", pe))}
        cases.append({**flat, "heads": heads, "sizes": {"height": height, "width": width},
                      "query": [i, j], "window": window})  # fmt: skip
    for made, sums in zip(beside(FILES, RUN, cases), wanted, strict=True):
        got = torch.tensor(made["sums"], dtype=torch.float64)
        torch.testing.assert_close(got, sums, rtol=1e-8, atol=1e-12)
        total = torch.tensor(made["weights"], dtype=torch.float64).sum(1)
        torch.testing.assert_close(total, torch.ones_like(total))
