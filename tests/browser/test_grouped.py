"""The grouped explorer in the built book: what is lit is what the gradients of the package say."""

import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shown import SIGNED, TWO_FRAMES, Shown, colours

from acmix_edu.explorers import GroupedExplorer

CHAPTER = "book/03_depthwise.html"


# ---- What Python says must be drawn ----------------------------------------------------------


def drawings(explorer):
    """Every map by name."""
    weight = explorer.module().weight.detach()
    return {f"kernels{c}": side_by_side(kernels) for c, kernels in enumerate(weight)}


def side_by_side(kernels):
    """k² kernels in k rows of k, 3×3 dots a weight, with a transparent line of one dot between."""
    k = kernels.shape[-1]
    side = 3 * k + 1
    cells = np.full((k * side, k * side), np.nan)
    for t in range(k * k):
        row, column = side * (t // k), side * (t % k)
        dots = kernels[t].numpy().repeat(3, 0).repeat(3, 1)
        cells[row : row + 3 * k, column : column + 3 * k] = dots
    return colours(cells[:-1, :-1], -1, 1, SIGNED)


def readings(module):
    """Which map each kernel [c, t] reads: the one that makes its gradient other than zero."""
    k, outputs = module.kernel_size, module.dims * module.kernels
    reads = torch.full((outputs, k * k), -1)
    for m in range(module.dims * k * k):
        maps = torch.zeros(1, module.dims * k * k, k, k)
        maps[0, m] = 1
        (gradient,) = torch.autograd.grad(module(maps).sum(), module.weight)
        touched = gradient.abs().sum((2, 3)) > 0
        assert (reads[touched] == -1).all()
        reads[touched] = m
    return reads


def lit_parts(explorer, part, channel, tap):
    """The maps, kernels and outputs that belong to a part, by the gradients of the package."""
    reads = readings(explorer.module())
    c, t = min(channel, len(reads) - 1), min(tap, reads.shape[1] - 1)
    if part == "map":
        kernels = (reads == reads[c, t]).nonzero().tolist()
    else:
        kernels = [[c, t]] if part == "kernel" else [[c, n] for n in range(reads.shape[1])]
    maps = {reads[c, t].item() for c, t in kernels}
    return maps, {tuple(kernel) for kernel in kernels}, {c for c, _ in kernels}


# ---- What the page shows ---------------------------------------------------------------------

READ = """(root) => {
  const text = (selector) => root.querySelector(selector).textContent;
  const rects = {};
  for (const map of root.querySelectorAll(".map:has(canvas)")) {
    for (const rect of map.querySelectorAll("rect:not(.halo)")) {
      const place = ["x", "y", "width", "height"].map((n) => Number(rect.getAttribute(n)));
      (rects[map.querySelector("canvas").dataset.map] ??= []).push(place);
    }
  }
  const lit = [...root.querySelectorAll(".tile.lit")].map((tile) =>
    [tile.dataset.part, Number(tile.textContent.match(/\\d+/)[0])]);
  const heads = [...root.querySelectorAll(".heads button")].map((head) =>
    [head.querySelector("b").textContent, head.getAttribute("aria-pressed")]);
  return { rects, lit, heads, words: text(".words"), code: text("code"), marked: text("mark"),
    count: text(".count") };
}"""


class Grouped(Shown):
    """The explorer on a page, and the same explorer in Python."""

    def __init__(self, page):
        super().__init__(page, "grouped")
        self.explorer = GroupedExplorer()

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        self.follow()

    def follow(self):
        """Bring Python to the state of the page and compare everything."""
        self.page.evaluate(TWO_FRAMES)
        super().follow()
        self.check()

    def check(self, lit=None):
        self.compare(drawings(self.explorer))
        check_plan(self.root.evaluate(READ), self.explorer, *(lit or self.lit()))

    def lit(self):
        return [self.explorer.part, self.explorer.channel, self.explorer.tap]


def check_plan(read, explorer, part, channel, tap):
    module, k = explorer.module(), explorer.kernel_size
    maps, kernels, outputs = lit_parts(explorer, part, channel, tap)
    assert {n for kind, n in read["lit"] if kind == "map"} == maps
    assert {n for kind, n in read["lit"] if kind == "output"} == outputs
    side = 3 * k + 1
    marked = {(int(name.removeprefix("kernels")), (y // side) * k + x // side)
              for name, places in read["rects"].items() if name.startswith("kernels")
              for x, y, width, height in places if width == height == 3 * k}  # fmt: skip
    assert marked == kernels
    x = torch.randn(2, module.dims * k * k, 7, 6)
    out = module(x)
    shapes = [f"{name} [B, {t.shape[1]}, H, W]" for name, t in (("maps", x), ("out", out))]
    shapes.insert(1, f"weight {list(module.weight.shape)}")
    pressed = [str(p == part).lower() for p in ("map", "kernel", "output")]
    assert read["heads"] == [list(head) for head in zip(shapes, pressed, strict=True)]
    assert read["marked"] == {"map": "maps", "kernel": "weight", "output": "out"}[part]
    scope = {"F": F, "maps": x, "weight": module.weight}
    exec(read["code"], scope)
    torch.testing.assert_close(scope["out"], out)
    ones, all_weights = re.search(r"(\d+) of (\d+) weights are 1", read["count"]).groups()
    assert int(ones) == module.weight.count_nonzero() == module.weight.sum()
    assert int(all_weights) == module.weight.numel()
    check_words(read["words"], part, maps, kernels, outputs, module)


def check_words(words, part, maps, kernels, outputs, module):
    k, taps = module.kernel_size, module.kernel_size**2
    if part == "map":
        (m,) = maps
        assert words.startswith(f"Map {m} = e·k² + t: dimension e = {m // taps}, "
                                f"kernel position t = {m % taps}.")  # fmt: skip
        assert ("One kernel reads" if len(kernels) == 1 else f"{len(kernels)} kernels") in words
    elif part == "kernel":
        ((c, t),), (m,) = kernels, maps
        move = f"({t // k - k // 2}, {t % k - k // 2})".replace("-", "−")
        assert words.startswith(f"weight[{c}, {t}] is one kernel, {k}×{k}: the shift by {move} ")
        assert words.endswith(f"It reads map {m} and adds to output {c}.")
    else:
        (c,) = outputs
        e, n = divmod(c, module.kernels)
        assert words.startswith(f"Output {c} = e·N + n: dimension e = {e}, set n = {n}.")
        assert f"maps {min(maps)} … {max(maps)}," in words


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Grouped(page)


# ---- Controls --------------------------------------------------------------------------------


def test_first_drawing_and_every_control(shown):
    shown.check()
    for name in ("dims", "sets"):
        for use in (shown.click_track, shown.press_one):  # by mouse, by keyboard
            before = shown.state()
            use(name)
            shown.follow()
            assert shown.state()[name] != before[name]
    shown.control("kernel_size").select_option("5 × 5")
    shown.follow()
    assert shown.explorer.kernel_size == 5


def test_many_states(shown):
    rng = random.Random(0)
    for _ in range(16):
        shown.set(kernel_size=rng.choice([3, 5]), dims=rng.randint(1, 2), sets=rng.randint(1, 4),
                  part=rng.choice(["map", "kernel", "output"]), channel=rng.randrange(8),
                  tap=rng.randrange(25))  # fmt: skip


# ---- The pointer and the keys ----------------------------------------------------------------


def test_light_a_part(shown):
    """Under the mouse for a while, by a click for good, by the arrow keys from part to part."""
    shown.set(dims=2, sets=2)
    before = shown.lit()
    places = {("output", 3, 0): shown.root.get_by_text("Σ 3", exact=True),
              ("map", 2, 5): shown.root.locator(".tile").get_by_text("14", exact=True)}  # fmt: skip
    for lit, tile in places.items():
        tile.hover()
        shown.check(lit=lit)
    shown.page.mouse.move(*shown.place("kernels1", 24, 14))  # row 2, column 1 of the kernels
    shown.page.evaluate(TWO_FRAMES)
    shown.check(lit=("kernel", 1, 7))
    shown.page.mouse.move(0, 0)
    shown.check(lit=before)
    shown.page.mouse.click(*shown.place("kernels3", 0, 27))
    shown.page.mouse.move(0, 0)
    shown.follow()
    assert shown.lit() == ["kernel", 3, 2]
    shown.root.locator(".plan").focus()
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowUp", "ArrowLeft", "ArrowDown"):
        shown.page.keyboard.press(key)
        shown.page.evaluate(TWO_FRAMES)
    shown.follow()
    assert shown.lit() == ["kernel", 1, 2]
    for name, part in (("maps", "map"), ("out", "output"), ("weight", "kernel")):
        shown.root.get_by_role("button", name=name).press("Enter")
        shown.follow()
        assert shown.lit() == [part, 1, 2]


def test_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Grouped(phone)
    shown.set(dims=2, sets=2)
    phone.touchscreen.tap(*shown.place("kernels2", 14, 14))
    shown.follow()
    assert shown.lit() == ["kernel", 2, 4]
    shown.root.get_by_text("Σ 1", exact=True).tap()
    shown.follow()
    assert shown.lit() == ["output", 1, 0]


def test_state_in_words(shown):
    shown.set(sets=3, part="output", channel=2)
    shown.root.get_by_role("status").get_by_text("Output 2 = e·N + n").wait_for()
