"""The kernel explorer in the built book: all that is drawn and written is what torch computes."""

import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import write_page
from shown import SAID, SIGNED, TWO_FRAMES, Shown, colours, number, picture

from acmix_edu import shift
from acmix_edu.explorers import KernelExplorer

CHAPTER = "book/03_depthwise.html"
SOBEL = [-1.0, 0, 1, -2, 0, 2, -1, 0, 1]


# ---- What Python says must be drawn ----------------------------------------------------------


def looks_like_a_picture(values):
    return -1e-6 <= values.min() and values.max() <= 1 + 1e-6


def drawings(explorer):
    """Every map by name."""
    result = explorer.result()[0].double()
    end = max(result.abs().max().item(), 1e-12)
    maps = {"picture": picture(explorer.current_image().numpy())}
    if looks_like_a_picture(result):
        maps["result"] = picture(result.clamp(0, 1).numpy()[None])
    else:
        maps["result"] = colours(result.numpy(), -end, end, SIGNED)
    return maps


# ---- What the page shows ---------------------------------------------------------------------

READ = (
    f"(root) => {{ {SAID}"
    + """
  const text = (selector) => said(root.querySelector(selector));
  const rects = {};
  for (const map of root.querySelectorAll(".map:has(canvas)")) {
    for (const rect of map.querySelectorAll("rect:not(.halo)")) {
      const place = ["x", "y", "width", "height"].map((n) => Number(rect.getAttribute(n)));
      (rects[map.querySelector("canvas").dataset.map] ??= []).push(place);
    }
  }
  const cells = [...root.querySelectorAll(".weight")].map((cell) =>
    [cell.querySelector("input").value, cell.textContent, cell.style.background,
      [cell, ...cell.children].map((part) => getComputedStyle(part).color)]);
  return { rects, cells, verdict: text(".verdict"), sum: text(".sum"), range: text(".editor .note"),
    preset: root.querySelector("[name=preset]").value,
    size: Number(root.querySelector("[name=size]").value) };
}"""
)


def close(text, value):
    return number(text) == pytest.approx(value, abs=6e-4, rel=0.006)


class Kernel(Shown):
    """The explorer on a page, and the same explorer in Python."""

    def __init__(self, page, explorer=None):
        super().__init__(page, "kernel")
        self.explorer = explorer or KernelExplorer()

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        return self.follow()

    def follow(self):
        """Bring Python to the state of the page and compare everything."""
        self.page.evaluate(TWO_FRAMES)
        super().follow()
        return self.check()

    def check(self, pixel=None):
        self.compare(drawings(self.explorer))
        read = self.root.evaluate(READ)
        check_bench(read, self.explorer, pixel or self.explorer.pixel)
        check_verdict(read["verdict"], self.explorer)
        for name, values in (("picture", self.explorer.current_image()),
                             ("result", self.explorer.result())):  # fmt: skip
            at = tuple(pixel or self.explorer.pixel)
            place, value = re.search(r"at (\(.*\)): (\S+)$", self.note(name)).groups()
            assert place == str(at) and close(value, values[0][at].item())
        return read


def check_bench(read, explorer, pixel):
    kernel = explorer.current_kernel()
    k = len(kernel)
    window = F.pad(explorer.current_image()[0], (k // 2,) * 4)
    window = window[pixel[0] : pixel[0] + k, pixel[1] : pixel[1] + k].flatten().tolist()
    end = max(kernel.abs().max().item(), 1)
    low, high = re.match(r"scale: (\S+) to (\S+)\n", read["range"]).groups()
    assert close(low, -end) and close(high, end)
    assert (len(read["cells"]), read["size"]) == (k * k, k)
    for value, weight, (text, under, back, inks) in zip(
        window, explorer.kernel, read["cells"], strict=True
    ):
        assert float(text) == pytest.approx(weight, rel=1e-3)
        assert close(under.removeprefix("× "), value)
        assert under.startswith("× ") or (k == 5 and not 0 <= min(window) <= max(window) < 9.995)
        rgb = colours([weight], -end, end, SIGNED)[0, :3]
        assert np.abs(np.array(re.findall(r"\d+", back), float) - rgb).max() <= 1
        dark = rgb @ (0.3, 0.59, 0.11) <= 125
        assert set(inks) == {"rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)"}
    assert close(read["sum"].rpartition("= ")[2], explorer.result()[0][tuple(pixel)].item())
    terms = re.findall(r"(\S+) × (\S+)", read["sum"])
    used = [(w, v) for w, v in zip(explorer.kernel, window, strict=True) if w != 0]
    largest = sorted(range(len(used)), key=lambda n: -abs(used[n][0] * used[n][1]))[:3]
    assert ("…" in read["sum"]) == (len(used) > 3)
    used = [used[n] for n in sorted(largest)]
    for (weight, value), (wanted_weight, wanted_value) in zip(terms, used, strict=True):
        assert number(weight) == pytest.approx(wanted_weight, rel=1e-3)
        assert close(value, wanted_value)
    check_window(read["rects"], kernel, pixel)


def check_window(rects, kernel, pixel):
    k, (row, column) = len(kernel), pixel
    marks = [[column - k // 2, row - k // 2, k, k]]
    if kernel.count_nonzero() == 1:
        i, j = kernel.nonzero()[0].tolist()
        marks.append([column + j - k // 2, row + i - k // 2, 1, 1])
    assert rects["picture"] == marks
    assert rects["result"] == [[column, row, 1, 1]]


def check_verdict(verdict, explorer):
    kernel, move = explorer.current_kernel(), explorer.displacement()
    if move is None:
        assert verdict.startswith("Not a shift: ")
        used, total = kernel.count_nonzero().item(), sum(explorer.kernel)
        if used > 1:
            assert f"{used} cells are not zero" in verdict
            assert close(re.search(r"sum to (\S+?)[.,](?= |$)", verdict)[1], total)
            assert ("even area" in verdict) == (abs(total) < 1e-9)
        assert used != 1 or close(re.search(r"multiplies by (\S+?)\.$", verdict)[1], total)
        assert used or "no cell is left" in verdict
        return
    x = explorer.current_image()
    assert torch.equal(explorer.result(), shift(x, *move))
    place, way, count, apart = re.fullmatch(
        r"✓ This is the shift by (\(.*\)): the picture (?:goes )?(.*)\. Of (\d+) numbers, (\d+) "
        r"differ from a plain copy\.", verdict).groups()  # fmt: skip
    assert place.replace("−", "-") == str(move)
    assert (int(count), int(apart)) == (x.numel(), 0)
    spot = torch.zeros(11, 11)
    spot[5, 5] = 1  # where does it go?
    down, right = ((shift(spot[None, None], *move)[0, 0]).nonzero()[0] - 5).tolist()
    words = [f"{abs(n)} {ahead if n > 0 else back}" for n, ahead, back in
             ((down, "down", "up"), (right, "right", "left")) if n]  # fmt: skip
    assert way == (", ".join(words) or "stays")


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Kernel(page)


# ---- Controls --------------------------------------------------------------------------------


def test_first_drawing_and_every_control(shown):
    assert shown.check()["preset"] == "shift (−1, −1)"
    shown.control("preset").select_option("shift (0, 1)")
    shown.follow()
    assert shown.explorer.displacement() == (0, 1)
    shown.control("preset").focus()
    shown.page.keyboard.press("ArrowDown")
    shown.follow()
    assert shown.explorer.displacement() == (1, -1)
    shown.control("size").select_option("5")
    shown.follow()
    assert (shown.explorer.displacement(), len(shown.explorer.kernel)) == ((1, -1), 25)
    shown.control("size").focus()
    shown.page.keyboard.press("ArrowUp")
    shown.follow()
    assert len(shown.explorer.kernel) == 9


def ready_made(k):
    """The named kernels, from their definitions."""
    smooth, rise = {3: ([1, 2, 1], [-1, 0, 1]), 5: ([1, 4, 6, 4, 1], [-1, -2, 0, 2, 1])}[k]
    middle = torch.zeros(k, k)
    middle[k // 2, k // 2] = 1
    made = {"box: the mean": torch.full((k, k), 1 / k**2),
            "Sobel: vertical": torch.outer(torch.tensor(smooth), torch.tensor(rise)),
            "Laplacian: all edges": 1 - k**2 * middle}  # fmt: skip
    if k == 3:
        name, numbers = KernelExplorer().learnt
        made[name] = torch.tensor(numbers).view(3, 3)
    for t in range(k * k):
        i, j = t // k - k // 2, t % k - k // 2
        one = torch.zeros(k, k)
        one[t // k, t % k] = 1
        made[f"shift ({i}, {j})".replace("-", "−")] = one
    return made


@pytest.mark.parametrize("k", [3, 5])
def test_every_ready_made_kernel(shown, k):
    if k == 5:
        shown.control("size").select_option("5")
    offered = shown.control("preset").locator("option").all_inner_texts()
    assert set(offered) == set(ready_made(k))
    for name in [n for n in offered if "shift" not in n] + offered[:: k + 2]:
        shown.control("preset").select_option(name)
        shown.page.evaluate(TWO_FRAMES)
        got = torch.tensor(shown.state()["kernel"], dtype=torch.float32).view(k, k)
        torch.testing.assert_close(got, ready_made(k)[name].float())
        assert shown.follow()["preset"] == name


def test_another_size(shown):
    """A named kernel stays what it is; others are cut to their middle, or get a ring of zeros."""
    shown.set(kernel=SOBEL)
    shown.control("size").select_option("5")
    assert shown.follow()["preset"] == "Sobel: vertical"
    own = torch.arange(25.0) - 7
    shown.set(kernel=own.tolist())
    shown.control("size").select_option("3")
    assert shown.follow()["preset"] == "by hand"
    inner = own.view(5, 5)[1:4, 1:4]
    assert shown.state()["kernel"] == inner.flatten().tolist()
    shown.control("size").select_option("5")
    shown.follow()
    assert shown.state()["kernel"] == F.pad(inner, (1,) * 4).flatten().tolist()
    shown.set(kernel=[1.0] + [0.0] * 24)
    shown.control("size").select_option("3")
    assert "no cell is left" in shown.follow()["verdict"]


def test_type_a_kernel(shown):
    """By the keyboard, cell after cell; no word changes anything, and no number is too large."""
    cells = shown.root.locator(".weight input")
    cells.nth(0).focus()
    for value in SOBEL:
        shown.page.keyboard.press("Control+a")
        shown.page.keyboard.type(f"{value:g}")
        shown.page.keyboard.press("Tab")
    assert shown.follow()["preset"] == "Sobel: vertical"
    assert shown.state()["kernel"] == SOBEL
    cells.nth(4).fill("0.125")
    assert shown.follow()["preset"] == "by hand"
    assert shown.follow()["range"].endswith("numbers from −100 to 100")
    for typed, used in (("500", "100"), ("1e9", "100"), ("-101", "-100"), ("-1e3", "-100")):
        cells.nth(4).fill(typed)
        assert shown.follow()["cells"][4][0] == used  # at once
        assert shown.state()["kernel"][4] == float(used)
    cells.nth(4).fill("0.125")
    cells.nth(4).fill("")
    cells.nth(4).blur()
    assert shown.follow()["cells"][4][0] == "0.125"
    cells.nth(4).focus()
    shown.page.keyboard.press("ArrowUp")
    shown.follow()
    assert shown.state()["kernel"][4] == 0.25


def test_click_and_type(shown):
    """What is typed takes the place of what was there."""
    cells = shown.root.locator(".weight input")
    for cell, value in ((0, "0"), (5, "1")):
        cells.nth(cell).click()
        shown.page.keyboard.type(value)
    assert shown.follow()["preset"] == "shift (0, 1)"


def random_state(rng):
    k = rng.choice([3, 5])
    kernel = [round(rng.uniform(-2, 2), 2) if rng.random() < 0.5 else 0.0 for _ in range(k * k)]
    if rng.random() < 0.5:
        kernel = [0.0] * (k * k)
        kernel[rng.randrange(k * k)] = rng.choice([1.0, 1.0, -1.0, 0.25])
    return {"kernel": kernel, "pixel": [rng.choice([0, 1, 24, 46, 47]) for _ in range(2)]}


def test_many_states(shown):
    rng = random.Random(0)
    states = [random_state(rng) for _ in range(16)]
    states += [{"kernel": [0.0] * 9}, {"kernel": [100.0] * 25, "pixel": [0, 0]},
               {"kernel": [-100.0] * 9}]  # fmt: skip
    for state in states:
        shown.set(**state)


# ---- The pointer and the keys ----------------------------------------------------------------


def test_point_and_pin_a_pixel(shown):
    pinned = shown.explorer.pixel
    for name, pixel in (("picture", (5, 7)), ("result", (0, 0)), ("result", (47, 20))):
        shown.page.mouse.move(*shown.place(name, *pixel))
        shown.page.evaluate(TWO_FRAMES)
        shown.check(pixel)
    shown.page.mouse.move(0, 0)
    shown.check(pinned)
    shown.page.mouse.click(*shown.place("result", 9, 40))
    shown.page.mouse.move(0, 0)
    shown.follow()
    assert shown.explorer.pixel == (9, 40)
    shown.frame("picture").focus()
    for key in ("ArrowRight", "Shift+ArrowDown", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowRight"):
        shown.page.keyboard.press(key)
    shown.follow()
    assert shown.explorer.pixel == (13, 47)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_pictures_keep_their_size(shown, width):
    """With either kernel; beside each other, the kernel is a square of the same size."""
    shown.page.set_viewport_size({"width": width, "height": 800})
    sizes = []
    for kernel in (SOBEL, [1.0] * 25):
        shown.set(kernel=kernel)
        sizes.append([shown.root.locator(part).bounding_box()
                      for part in (".frame >> nth=0", ".frame >> nth=1", ".cells")])  # fmt: skip
    for small, large in zip(*(size[:2] for size in sizes), strict=True):
        assert (small["width"], small["height"]) == (large["width"], large["height"])
    if width == 1280:
        for picture, _, cells in sizes:
            assert cells["width"] == pytest.approx(picture["width"], abs=1)
            assert cells["height"] == pytest.approx(picture["height"], abs=1)


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_numbers_fit_into_their_cells(shown, width):
    shown.page.set_viewport_size({"width": width, "height": 800})
    learnt = KernelExplorer().learnt[1]
    for kernel in (learnt, [-0.125] * 9, [-0.25, 12.5, -10] * 8 + [0.04]):
        shown.set(kernel=kernel)
        cut = shown.root.locator(".weight, .weight *").evaluate_all(
            "(all) => all.filter((p) => p.scrollWidth > p.clientWidth + 1).map((p) => p.outerHTML)"
        )
        assert cut == []


def test_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Kernel(phone)
    phone.touchscreen.tap(*shown.place("picture", 2, 44))
    shown.follow()
    assert shown.explorer.pixel == (2, 44)


# ---- The page --------------------------------------------------------------------------------


def test_state_in_words(shown):
    shown.set(kernel=SOBEL)
    status = shown.root.locator("[role=status]")
    status.get_by_text("Not a shift: 6 cells are not zero").wait_for()


def test_your_own_map_and_kernel(page, tmp_path):
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(9, 14, generator=generator)
    explorer = KernelExplorer(image, torch.randn(5, 5, generator=generator))
    page.goto(write_page(explorer, tmp_path / "page.html"))
    shown = Kernel(page, explorer)
    assert shown.check()["preset"] == "by hand"
    shown.control("preset").select_option("shift (−2, 2)")
    shown.follow()
    shown.root.get_by_role("button", name="Reset").click()
    assert shown.follow()["preset"] == "by hand"


# ---- kernel.js against the package -----------------------------------------------------------

FILES = ("engine.js", "kit.js", "kernel.js")
RUN = """(cases) => cases.map(({ f, kernel, pixel, move }) => {
  const map = { ...f, data: Float32Array.from(f.data) }, k = Math.sqrt(kernel.length);
  return [convolved(map, kernel).data, copied(map, move).data, windowAt(map, pixel, k),
    displacementOf(kernel) ?? []].map((values) => Array.from(values));
})"""


def test_mathematics_on_random_configurations(beside):
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    cases, explorers = [], []
    for n in range(100):
        image = torch.randn(rng.randint(1, 13), rng.randint(1, 11), generator=generator)
        k = rng.choice([3, 5])
        explorer = KernelExplorer(image, torch.randn(k, k, generator=generator))
        if n % 2:
            explorer.kernel = random_state(rng)["kernel"]
        pixel = [rng.randrange(side) for side in image.shape]
        move = [rng.randint(-3, 3) for _ in range(2)]
        f = {"data": image.flatten().tolist(), "channels": 1, **explorer.sizes}
        cases.append({"f": f, "kernel": explorer.kernel, "pixel": pixel, "move": move})
        explorers.append(explorer)
    made = [[torch.tensor(values, dtype=torch.float32) for values in case]
            for case in beside(FILES, RUN, cases)]  # fmt: skip
    for (result, copy, window, move), explorer, case in zip(made, explorers, cases, strict=True):
        x, k = explorer.current_image(), len(explorer.current_kernel())
        row, column = case["pixel"]
        wanted = explorer.result().flatten()
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(copy, shift(x[None], *case["move"]).flatten())
        padded = F.pad(x[0], (k // 2,) * 4)[row : row + k, column : column + k]
        assert torch.equal(window, padded.flatten())
        assert (tuple(move.tolist()) or None) == explorer.displacement()
