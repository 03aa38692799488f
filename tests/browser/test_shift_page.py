"""The shift explorer in the built book: all that is drawn and written is what torch computes."""

import base64
import json
import random
import re

import numpy as np
import pytest
import torch
from alone import write_page
from shown import AMOUNT, SIGNED, TWO_FRAMES, Shown, colours

from acmix_edu import shift
from acmix_edu.explorers import ShiftExplorer

CHAPTER = "book/02_shift.html"
SLIDERS = ("dx", "dy", "dx2", "dy2")
DRAWING = """(root) => Object.fromEntries([...root.querySelectorAll(".map")].map((box) => {
  const list = (what, read) => [...box.querySelectorAll(what)].map(read);
  const number = (node, ...names) => names.map((name) => Number(node.getAttribute(name)));
  const paths = list("svg path", (path) => [path.getAttribute("class"), path.getAttribute("d")]);
  return [box.querySelector("canvas").dataset.map, {
    paths: Object.fromEntries(paths),
    frames: Object.fromEntries(list("rect:not(.halo)", (rect) =>
      [rect.getAttribute("class"), number(rect, "y", "x", "height", "width")])),
    texts: list("text", (text) => [...number(text, "y", "x"), text.textContent]),
    title: box.querySelector(".title").textContent, note: box.querySelector(".note").textContent,
    hidden: box.hidden }];
}))"""
WORDS = """(root) => Object.fromEntries(["reading", "verdict", "legend", "cost"].map((name) =>
  [name, root.querySelector(`.${name}`).textContent]))"""


# ---- What Python says must be drawn ----------------------------------------------------------


def minus(value):
    return str(value).replace("-", "−")


def listed(values):
    return ", ".join(minus(v) for v in values)


def told(value, numbers):
    """A value as the page writes it."""
    if numbers:
        return minus(int(value) if value == int(value) else value)
    return minus(f"{value:.{2 if abs(value) >= 1 else 3}f}" if value else 0)


class Wanted:
    """What the package computes for the state of an explorer."""

    def __init__(self, explorer, pixel=None):
        self.e, self.f = explorer, explorer.current_map()
        self.channels, self.height, self.width = self.f.shape
        self.sides = (self.height, self.width)
        self.roll = explorer.border == "roll"
        self.most = [min(side, 8) for side in self.sides]
        self.a = self.held(explorer.dx, explorer.dy)
        self.b = self.held(explorer.dx2, explorer.dy2)
        self.sum = tuple(m + n for m, n in zip(self.a, self.b, strict=True))
        self.margin = min(max(2, -(-max(self.sides) // 4)), 8)
        self.first = self.move(self.f, self.a)
        self.second, self.once = self.move(self.first, self.b), self.move(self.f, self.sum)
        pixel = explorer.pixel if pixel is None else pixel
        self.pixel = [min(n, side - 1) for n, side in zip(pixel, self.sides, strict=True)]
        self.is_picture = self.channels == 3 and self.f.min() >= 0 and self.f.max() <= 1
        rivals = (
            (self.second, self.once) if explorer.twice else (self.first, shift(self.f, *self.a))
        )
        self.differs = (rivals[0] != rivals[1]).any(0).numpy()

    def held(self, *delta):
        return tuple(max(-m, min(d, m)) for d, m in zip(delta, self.most, strict=True))

    def move(self, f, delta, border=None):
        roll = self.roll if border is None else border == "roll"
        return f.roll([-d for d in delta], (-2, -1)) if roll else shift(f, *delta)

    def big(self, inner, delta=(0, 0), past=20):
        """A panel's cells: NaN with a map on them, moved so that its corner lies at delta."""
        m, (height, width) = self.margin, self.sides
        cells = torch.full((len(inner), height + 2 * past, width + 2 * past), torch.nan)
        row, column = past + delta[0], past + delta[1]
        cells[:, row : row + height, column : column + width] = inner
        return cells[:, past - m : past + m + height, past - m : past + m + width]

    def panel(self, name):
        """(values, which cells enter, which leave) of a panel."""
        inner, delta, result = {
            "f": (self.f, self.a, self.first),
            "first": (self.f, self.a, self.first),
            "second": (self.first, self.b, self.second),
            "once": (self.f, self.sum, self.once),
        }[name]
        if name == "f":
            below, above = self.big(result, delta), self.big(inner)
        else:
            below, above = self.big(inner, [-d for d in delta]), self.big(result)
        values = torch.where(above.isnan(), below, above)
        picture = self.big(inner, (0, 0) if name == "f" else [-d for d in delta])[0].isfinite()
        window = self.big(result, delta if name == "f" else (0, 0))[0].isfinite()
        return values.numpy(), (window & ~picture).numpy(), (picture & ~window).numpy()

    def drawings(self):
        shown = {name: self.shade(self.panel(name)[0]) for name in self.shown()}
        hidden = {"second", "once"} - set(shown)
        return shown | {name: np.zeros((1, 1, 4)) for name in hidden}

    def shown(self):
        return ("f", "first", "second", "once") if self.e.twice else ("f", "first")

    def shade(self, values):
        if self.is_picture:
            levels = np.floor(np.nan_to_num(values).transpose(1, 2, 0).astype(float) * 255 + 0.5)
            there = 255.0 * ~np.isnan(values[0])
            return np.concatenate([levels, there[..., None]], axis=-1)
        end = max(self.f[0].abs().max().item(), 1e-12)
        if self.f[0].min() < 0:
            return colours(values[0], -end, end, SIGNED)
        return colours(values[0], 0, end, AMOUNT)

    # What is written.

    def has_numbers(self):
        return (
            not self.is_picture
            and self.height * self.width <= 100
            and all(len(told(v, True)) <= 3 for v in self.f[0].flatten().tolist())
        )

    def land(self, place):
        return [n % s for n, s in zip(place, self.sides, strict=True)] if self.roll else list(place)

    def inside(self, place):
        return all(0 <= n < side for n, side in zip(place, self.sides, strict=True))

    def reading(self):
        if not self.e.twice:
            return (
                f"Pixel ({listed(self.pixel)}) reads {self.reads('f', self.f, self.pixel, self.a)}."
            )
        between = self.land([n + d for n, d in zip(self.pixel, self.b, strict=True)])
        said = self.reads("f̃", self.first, self.pixel, self.b)
        if self.inside(between):
            said += f", which reads {self.reads('f', self.f, between, self.a)}"
        once = self.reads("f", self.f, self.pixel, self.sum)
        return f"Pixel ({listed(self.pixel)}) reads {said}. At once: {once}."

    def reads(self, name, f, place, delta):
        terms = [f"{n} {'−' if d < 0 else '+'} {abs(d)}" for n, d in zip(place, delta, strict=True)]
        far = [n + d for n, d in zip(place, delta, strict=True)]
        there = self.land(far)
        arrow = f" → {name}({listed(there)})" if there != far else ""
        values = "outside, so 0"
        if self.inside(there):
            drawn = f[: 3 if self.is_picture else 1, there[0], there[1]].tolist()
            values = ", ".join(told(v, self.has_numbers()) for v in drawn)
        return f"{name}({', '.join(terms)}) = {name}({listed(far)}){arrow}: {values}"

    def counts(self):
        """Pixels: all, those that leave, those that differ, those lost between two shifts."""
        ones = torch.ones(1, *self.sides)
        gone = int((shift(ones, *self.a) == 0).sum())
        lost = int((shift(ones, *self.sum) - shift(shift(ones, *self.a), *self.b) > 0).sum())
        return self.height * self.width, gone, int(self.differs.sum()), lost

    def check_verdict(self, said):
        pixels, gone, differs, lost = self.counts()
        if not self.e.twice and not self.roll:
            assert said.startswith(f"{gone} of {pixels} pixel")
            return
        assert said.startswith(f"{differs} of {pixels} pixel")
        if self.e.twice and self.roll:
            assert differs == 0 and "loses nothing" in said
        elif differs:
            assert ("never comes back" if self.e.twice else "other side") in said
        elif lost if self.e.twice else gone:
            assert "held only zeros" in said
            assert not self.e.twice or f": {lost} pixel" in said
        else:
            assert ("would have come back" if self.e.twice else "nothing left") in said

    def check_cost(self, said):
        ones = torch.ones_like(self.f)
        places = [(p, q) for p in (-1, 0, 1) for q in (-1, 0, 1)]
        read, read9 = (
            sum(int(self.move(ones, d).sum()) for d in moves) for moves in ([self.a], places)
        )
        written = ones.numel()
        call = (
            f"roll by ({listed(-n for n in self.a)})"
            if self.roll
            else f"Shift by ({listed(self.a)})"
        )
        assert said == (
            f"Memory: {call} reads {read:,} values and writes {written:,}. The nine of a 3×3 "
            f"convolution read {read9:,} and write {9 * written:,}, "
            f"{4 * (read9 + 9 * written):,} bytes, and multiply nothing."
        )


def cells_of(path):
    """The cells that a path of squares or strokes goes through."""
    return {(int(y), int(x)) for x, y in re.findall(r"M(-?\d+) (-?\d+)", path)}


def contour_of(mask, margin):
    """The sides between cells that differ and cells that do not: (row, column, direction)."""
    mask = np.pad(mask, margin + 1)
    lying, upright = mask[1:] ^ mask[:-1], mask[:, 1:] ^ mask[:, :-1]
    sides = {(r, c - 1, "h") for r, c in np.argwhere(lying)}
    return sides | {(r - 1, c, "v") for r, c in np.argwhere(upright)}


# ---- What the page draws ---------------------------------------------------------------------


class Shift(Shown):
    """The shift explorer on a page, and the same explorer in Python."""

    def __init__(self, page, explorer=None):
        super().__init__(page, "shift")
        self.explorer = explorer or ShiftExplorer()
        self.follow()

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        self.follow()

    def check(self, pixel=None):
        """Compare canvases, hatching, outlines, numbers and words with Python."""
        wanted = Wanted(self.explorer, pixel)
        drawn = self.compare(wanted.drawings())
        drawing = self.root.evaluate(DRAWING)
        for name, panel in drawing.items():
            assert panel["hidden"] == (name not in wanted.shown())
            if not panel["hidden"]:
                self.check_panel(name, panel, wanted)
        for name, most, shown in zip(SLIDERS, 2 * wanted.most, (*wanted.a, *wanted.b), strict=True):
            ends = self.control(name).evaluate("(c) => [c.min, c.value, c.max].map(Number)")
            assert ends == [-most, shown, most]
        words = self.root.evaluate(WORDS)
        assert words["reading"] == wanted.reading()
        wanted.check_verdict(words["verdict"])
        wanted.check_cost(words["cost"])
        return drawn

    def check_panel(self, name, panel, wanted):
        values, enters, leaves = wanted.panel(name)
        rising = {(r - 1, c) for r, c in cells_of(panel["paths"].get("leaves", ""))}
        squares = cells_of(panel["paths"].get("faded", ""))
        assert rising == squares == {*zip(*np.nonzero(leaves), strict=True)}
        falling = cells_of(panel["paths"].get("enters", ""))
        assert falling == {*zip(*np.nonzero(enters), strict=True)}
        texts = {(int(y), int(x)): text for y, x, text in panel["texts"]}
        there = [*zip(*np.nonzero(~np.isnan(values[0])), strict=True)]
        numbers = there if wanted.has_numbers() else []
        assert texts == {cell: told(values[0][cell], True) for cell in numbers}
        plain = name == "f" or (name == "first" and self.explorer.twice)
        outlined = np.zeros_like(wanted.differs) if plain else wanted.differs
        lines = re.findall(r"M(\d+) (\d+)([hv])1", panel["paths"].get("differs", ""))
        sides = {(int(y), int(x), along) for x, y, along in lines}
        assert sides == contour_of(outlined, wanted.margin)
        self.check_frames(name, panel, wanted)

    def check_frames(self, name, panel, wanted):
        m, sides, a, b = wanted.margin, [*wanted.sides], wanted.a, wanted.b
        delta = {"f": [-d for d in a], "first": a, "second": b, "once": wanted.sum}[name]
        away = [m - d for d in delta]
        still, other = ("picture", "window") if name == "f" else ("window", "picture")
        steps = b if self.explorer.twice else (0, 0)
        between = wanted.land([n + d for n, d in zip(wanted.pixel, steps, strict=True)])
        origin = wanted.land([n + d for n, d in zip(between, a, strict=True)])
        here = {"f": origin, "first": between}.get(name, wanted.pixel)
        assert panel["frames"] == {
            still: [m, m, *sides],
            f"{other} away": [*away, *sides],
            "here": [*(m + n for n in here), 1, 1],
        }
        tip = re.match(r"M(\S+) (\S+)L(\S+) (\S+)l", panel["paths"].get(f"way {other}", ""))
        assert (tip is not None) == any(delta)
        if tip:
            assert [float(n) for n in tip.groups()] == [m, m, *away[::-1]]
        call, sign = ("roll", -1) if wanted.roll else ("Shift", 1)
        if name in ("first", "once"):
            assert f"{call}(f, {listed([sign * d for d in delta])})" in panel["title"]
        goes = a if name == "f" else [-d for d in delta]
        assert f"moves by ({listed(goes)})" in panel["note"]


@pytest.fixture
def chapter(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Shift(page)


# ---- Controls --------------------------------------------------------------------------------


def moved(shown, name, before):
    """Follow the page, see that something happened, and compare everything with Python."""
    old = getattr(shown.explorer, name)
    shown.follow()
    assert getattr(shown.explorer, name) != old, f"{name} has not moved"
    drawn = shown.check()
    assert any(drawn[n].tobytes() != before[n].tobytes() for n in drawn), f"nothing follows {name}"
    return drawn


def test_first_drawing_and_every_control(chapter):
    drawn = chapter.check()
    chapter.control("twice").click()
    chapter.follow()
    assert chapter.explorer.twice
    chapter.check()
    for use in (chapter.click_track, chapter.press_one):  # by mouse, by keyboard
        for name in SLIDERS:
            use(name)
            drawn = moved(chapter, name, drawn)
    cost = chapter.root.locator(".cost")
    assert cost.is_hidden()
    chapter.control("memory").click()
    chapter.page.evaluate(TWO_FRAMES)
    assert cost.is_visible()
    chapter.control("border").select_option("roll")
    drawn = moved(chapter, "border", drawn)
    chapter.control("map").focus()
    chapter.page.keyboard.press("ArrowDown")
    moved(chapter, "map", drawn)
    chapter.control("twice").focus()
    chapter.page.keyboard.press("Space")
    chapter.follow()
    assert not chapter.explorer.twice
    chapter.check()


@pytest.mark.parametrize("map_name", ["numbers", "flower"])
def test_many_states(chapter, map_name):
    rng = random.Random(map_name)
    some = [{name: rng.randint(-8, 8) for name in SLIDERS} for _ in range(12)]
    ends = [{name: rng.choice([-8, 0, 8]) for name in SLIDERS} for _ in range(6)]
    for n, state in enumerate([*some, *ends]):
        border = ("zeros", "roll")[n % 2]
        pixel = [rng.randrange(40), rng.randrange(40)]
        chapter.set(**state, border=border, twice=n % 4 > 1, map=map_name, pixel=pixel)
        chapter.check()


def test_sliders_go_as_far_as_the_map(chapter):
    """A displacement of the larger map is kept, and shown as far as the smaller one goes."""
    chapter.set(map="flower", dx=8, dy=-7)
    chapter.check()
    chapter.control("map").select_option("numbers")
    chapter.page.evaluate(TWO_FRAMES)
    chapter.follow()
    chapter.check()
    assert chapter.control("dx").input_value() == "5"
    assert "5, up" in chapter.control("dx").get_attribute("aria-valuetext")
    chapter.control("map").select_option("flower")
    chapter.page.evaluate(TWO_FRAMES)
    chapter.follow()
    chapter.check()
    assert chapter.control("dx").input_value() == "8"
    chapter.set(map="numbers")
    chapter.page.evaluate(TWO_FRAMES)
    for trait, key, end in (("dx", "Home", -5), ("dy", "End", 5)):
        chapter.control(trait).press(key)
        chapter.follow()
        assert getattr(chapter.explorer, trait) == end
        chapter.check()


def test_what_is_said_of_the_border(chapter):
    """Nothing left; only zeros left; what left would have come back, or not."""
    ways = [(0, 0, 0, 0), (1, 1, -1, 0), (1, 0, 2, 0), (2, 0, -2, 0), (2, 2, -1, -1), (5, 0, -5, 0)]
    for dx, dy, dx2, dy2 in ways:
        for border in ("zeros", "roll"):
            for twice in (False, True):
                chapter.set(dx=dx, dy=dy, dx2=dx2, dy2=dy2, border=border, twice=twice)
                chapter.check()


torch.manual_seed(0)  # the maps below are the same at every run


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 7, 4),
        torch.randint(-9, 100, (1, 3, 9)).float(),
        torch.randn(5, 11),
        torch.randn(2, 2, 1),
        torch.zeros(1, 1, 1),
    ],
)
def test_own_maps(page, tmp_path, image):
    page.goto(write_page(ShiftExplorer(image), tmp_path / "page.html"))
    shown, rng = Shift(page, ShiftExplorer(image)), random.Random(0)
    shown.check()
    for n in range(6):
        state = {name: rng.randint(-4, 4) for name in SLIDERS}
        shown.set(**state, border=("zeros", "roll")[n % 2], twice=n > 2)
        shown.check()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_small_map_is_large(open_page, server, width):
    """The panels fill the width, and the map more than half of each panel's."""
    page = open_page(viewport={"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    shown = Shift(page)
    panels = [shown.frame(name).bounding_box() for name in ("f", "first")]
    room = shown.root.bounding_box()
    assert panels[0]["x"] == pytest.approx(room["x"], abs=1)
    assert panels[1]["x"] + panels[1]["width"] == pytest.approx(room["x"] + room["width"], abs=1)
    grip = shown.root.locator(".grip").first.bounding_box()
    assert grip["width"] > panels[0]["width"] / 2


# ---- Dragging, pointing, steering ------------------------------------------------------------


def drag(shown, panel, by, check=lambda: None):
    """Drag from the middle of a panel by (rows, columns), and look before letting go."""
    page, margin = shown.page, Wanted(shown.explorer).margin
    row = margin + shown.explorer.current_map().shape[1] // 2
    x, y = shown.place(panel, row, row)
    to_x, to_y = shown.place(panel, row + by[0], row + by[1])
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + to_x) / 2, (y + to_y) / 2)
    page.mouse.move(to_x, to_y)
    check()
    page.mouse.up()
    page.mouse.move(0, 0)


@pytest.mark.parametrize("map_name", ["numbers", "flower"])
def test_drag_by_mouse(chapter, map_name):
    chapter.set(map=map_name, dx=1, dy=0, dx2=0, dy2=0, twice=True)
    pinned = chapter.explorer.pixel

    def lies(dx, dy, dx2, dy2):
        def check():
            chapter.follow()
            e = chapter.explorer
            assert (e.dx, e.dy, e.dx2, e.dy2, e.pixel) == (dx, dy, dx2, dy2, pinned)

        return check  # fmt: skip

    drag(chapter, "first", (2, -1), lies(-1, 1, 0, 0))  # the picture goes against
    chapter.check()
    drag(chapter, "f", (2, -1), lies(1, 0, 0, 0))  # the window goes with it
    drag(chapter, "second", (-3, 2), lies(1, 0, 3, -2))
    drag(chapter, "once", (2, 2), lies(1, 0, 3, -2))
    most = {"numbers": 5, "flower": 8}[map_name]
    drag(chapter, "first", (-12, 15), lies(most, -most, 3, -2))  # no further
    chapter.check()


def test_point_and_pin(chapter):
    chapter.set(dx=2, dy=1)
    margin, start = Wanted(chapter.explorer).margin, chapter.explorer.pixel
    chapter.page.mouse.move(*chapter.place("first", margin + 3, margin + 4))
    chapter.check((3, 4))
    chapter.page.mouse.move(*chapter.place("f", margin + 4, margin + 1))
    chapter.check((2, 0))  # moved by (2, 1): the pixel that reads it
    chapter.page.mouse.move(*chapter.place("f", margin, margin))
    chapter.check(start)  # nothing reads it
    chapter.page.mouse.click(*chapter.place("first", margin + 4, margin))
    chapter.page.mouse.move(0, 0)
    chapter.follow()
    assert chapter.explorer.pixel == (4, 0)
    chapter.check()
    chapter.set(twice=True, border="roll", dx=4, dx2=3, dy=0, dy2=-1)
    chapter.page.mouse.move(*chapter.place("f", margin, margin))
    chapter.check((3, 1))  # (3 + 7) mod 5, (1 − 1) mod 5
    chapter.page.mouse.move(*chapter.place("first", margin, margin))
    chapter.check((2, 1))


def test_keys_move_the_window_the_picture_and_the_pixel(chapter):
    for panel, traits, sign in (("f", ("dx", "dy"), 1), ("first", ("dx", "dy"), -1),
                                ("second", ("dx2", "dy2"), -1)):  # fmt: skip
        chapter.set(twice=True, dx=0, dy=0, dx2=0, dy2=0)
        chapter.frame(panel).focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Shift+ArrowDown"):
            chapter.page.keyboard.press(key)
        chapter.follow()
        assert [getattr(chapter.explorer, trait) for trait in traits] == [5 * sign, 2 * sign]
        chapter.check()
    chapter.set(pixel=[1, 1])
    chapter.root.locator(".reading").focus()
    for key, pixel in (("ArrowDown", (2, 1)), ("Shift+ArrowDown", (4, 1)),
                       ("Shift+ArrowRight", (4, 4)), ("ArrowUp", (3, 4))):  # fmt: skip
        chapter.page.keyboard.press(key)
        chapter.follow()
        assert chapter.explorer.pixel == pixel  # it stops at the border
    chapter.check()


def test_drag_tap_and_scroll_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Shift(phone)
    shown.set(dx=2, dy=1)
    touch = phone.context.new_cdp_session(phone)

    def swipe(start, end):
        send = lambda kind, points: touch.send(  # noqa: E731
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
        send("touchStart", [{"x": start[0], "y": start[1]}])
        for n in range(1, 9):
            x, y = (a + n / 8 * (b - a) for a, b in zip(start, end, strict=True))
            send("touchMove", [{"x": x, "y": y}])
        send("touchEnd", [])
        phone.wait_for_timeout(100)
        shown.follow()

    middle = shown.place("first", 5, 5)
    top = phone.evaluate("scrollY")
    swipe(middle, shown.place("first", 7, 6))
    assert (shown.explorer.dx, shown.explorer.dy) == (0, 0)
    assert phone.evaluate("scrollY") == top  # the map has moved, not the page
    shown.check()
    margin = Wanted(shown.explorer).margin
    phone.touchscreen.tap(*shown.place("first", margin, margin + 4))
    shown.follow()
    assert shown.explorer.pixel == (0, 4)
    shown.check()
    x, y = shown.place("first", 0, 0)  # beside the map the page scrolls
    swipe((x, y), (x, y - 150))
    assert phone.evaluate("scrollY") > top + 50
    assert (shown.explorer.dx, shown.explorer.dy) == (0, 0)


def test_state_in_words(chapter):
    chapter.set(dx=2, dy=1)
    chapter.frame("first").focus()
    chapter.page.keyboard.press("ArrowUp")
    status = chapter.root.get_by_role("status")
    status.get_by_text("Shift by (3, 1)").wait_for()
    left = int((shift(torch.ones(1, 5, 5), 3, 1) == 0).sum())
    assert f"{left} of 25 pixels leave" in status.inner_text()


def test_texts_of_a_panel_can_be_read_on_a_phone(open_page, server):
    page = open_page(viewport={"width": 390, "height": 844})
    page.goto(f"{server}/{CHAPTER}#shift:twice=true")
    shown = Shift(page)
    sizes = shown.root.evaluate(
        """(root) => [...root.querySelectorAll("text")].map((text) =>
          parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
    )
    assert min(sizes) >= 11


# ---- The mathematics alone -------------------------------------------------------------------

FILES = ("kit.js", "shift.js")
RUN = """(cases) => cases.map(({ map, a, b, border, place }) => {
  const first = moved(map, a, border), second = moved(first, b, border);
  const once = moved(map, [a[0] + b[0], a[1] + b[1]], border);
  return { first: [...first.data], second: [...second.data], differs: differing(second, once),
    at: pixelAt(map, place, border) };
})"""


def test_mathematics_equal_the_package(beside):
    """On 200 random maps, displacements far beyond the border and both kinds of border."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    cases, maps = [], []
    for _ in range(200):
        shape = rng.randint(1, 3), rng.choice([1, 2, 3, 5, 8]), rng.choice([1, 2, 3, 4, 7])
        f = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) > 0.3)
        names = dict(zip(("channels", "height", "width"), shape, strict=True))
        cases.append({
            "map": {"data": f.flatten().tolist(), **names},
            "a": [rng.randint(-9, 9), rng.randint(-9, 9)],
            "b": [rng.randint(-9, 9), rng.randint(-9, 9)],
            "border": rng.choice(["zeros", "roll"]),
            "place": [rng.randint(-12, 12), rng.randint(-12, 12)],
        })  # fmt: skip
        maps.append(f)
    for f, case, got in zip(maps, cases, beside(FILES, RUN, cases),
                            strict=True):  # fmt: skip
        move = (
            shift if case["border"] == "zeros" else lambda f, di, dj: f.roll((-di, -dj), (-2, -1))
        )
        first = move(f, *case["a"])
        second = move(first, *case["b"])
        once = move(f, *(m + n for m, n in zip(case["a"], case["b"], strict=True)))
        assert got["first"] == first.flatten().tolist()
        assert got["second"] == second.flatten().tolist()
        differing = (second != once).any(0).nonzero().tolist()
        assert sorted(got["differs"]) == differing
        index = torch.arange(1.0, f[0].numel() + 1).view(f.shape[1:])  # number + 1, 0 outside
        at = move(index, *case["place"])[0, 0].item() - 1
        assert got["at"] == at


def test_the_page_carries_little(page, server):
    """The maps that are sent, in bytes, and the maps in Python are the same."""
    page.goto(f"{server}/{CHAPTER}")
    states = page.locator('script[type="application/vnd.jupyter.widget-state+json"]')
    models = {k: v for s in states.all_text_contents() for k, v in json.loads(s)["state"].items()}
    ours = [m for m in models.values() if "ShiftExplorer" in m["state"].get("_anywidget_id", "")]
    assert len(ours) == 1
    (buffer,) = ours[0]["buffers"]
    assert len(buffer["data"]) < 60_000
    sent = np.frombuffer(base64.b64decode(buffer["data"]), np.float32)
    explorer = ShiftExplorer()
    explorer.map = "flower"
    np.testing.assert_array_equal(sent[25:], explorer.current_map().flatten().numpy())
    page.evaluate(TWO_FRAMES)
