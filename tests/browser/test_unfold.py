"""The unfold explorer in the built book: all that is drawn and written is what torch computes."""

import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import write_page
from shown import SAID, SIGNED, TWO_FRAMES, Shown, colours, moved, number, picture

from acmix_edu import pointwise_maps, shift
from acmix_edu.explorers import UnfoldExplorer

CHAPTER = "book/01_convolution.html"
SIZES = (1, 3, 5, 7)


# ---- What Python says must be drawn ----------------------------------------------------------


class Wanted:
    """The stages of an explorer's state, by torch and the package."""

    def __init__(self, explorer, pixel=None):
        self.x, self.kernel = explorer.current_image()[None], explorer.current_kernel()
        self.k, self.stride, self.dilation = (
            explorer.kernel_size, explorer.stride, explorer.dilation)  # fmt: skip
        self.step = min(explorer.step, self.k**2)
        self.place = divmod(self.step - 1, self.k)
        self.pixel = [n - n % self.stride for n in pixel or explorer.pixel]
        self.maps = pointwise_maps(self.x, self.kernel)[0, :, 0]
        self.convolution = self.convolve(self.k**2)
        places = [self.dilation * (n - self.k // 2) for n in range(self.k)]
        self.offsets = [(i, j) if explorer.move else (0, 0) for i in places for j in places]
        self.sums = ([self.convolve(t + 1) for t in range(self.k**2)] if explorer.move
                     else self.maps.cumsum(0)[:, :: self.stride, :: self.stride])  # fmt: skip
        self.missing = self.convolution - self.sums[self.step - 1]
        self.done = self.step == self.k**2 and (explorer.move or self.k == 1)
        self.move = [-n for n in self.offsets[self.step - 1]]
        self.product = self.maps[self.step - 1]
        self.slid = shift(self.product, -self.move[0], -self.move[1])
        self.read = [n - move for n, move in zip(self.pixel, self.move, strict=True)]

        self.most = max((self.x.abs().max() * self.kernel.abs().sum(1).max()).item(), 1e-12)
        self.end = max(*(s.abs().max().item() for s in (*self.sums, self.convolution)), 1e-12)

    def convolve(self, count):
        """The convolution by the first cells only."""
        first = torch.arange(self.k**2).view(self.k, self.k) < count
        padding = self.dilation * (self.k // 2)
        return F.conv2d(self.x, self.kernel * first, padding=padding, stride=self.stride,
                        dilation=self.dilation)[0, 0]  # fmt: skip

    def drawings(self):
        root, end = self.most**0.5, self.end
        kept = torch.full_like(self.slid, torch.nan)
        kept[:: self.stride, :: self.stride] = self.slid[:: self.stride, :: self.stride]
        made = {"picture": picture(self.x[0].numpy())}
        for name, values in {"product": self.product, "slid": kept}.items():
            values = values.sign() * values.abs().sqrt()
            made[name] = colours(values.numpy(), -root, root, SIGNED)
        results = {"sum": self.sums[self.step - 1], "convolution": self.convolution}
        for name, values in {**results, "missing": self.missing}.items():
            made[name] = colours(values.numpy(), -end, end, SIGNED)
        return made

    def cells(self):
        """The weight, the pixel and the product of each cell of the kernel."""
        far = self.dilation * (self.k // 2)
        row, column = self.pixel
        padded = F.pad(self.x[0], (far,) * 4)
        read = [padded[:, row + far + i, column + far + j] for i, j in self.offsets]
        window = torch.stack(read, 1).view_as(self.kernel[0])
        return [n.flatten().tolist() for n in
                (self.kernel[0].sum(0), window[0], (self.kernel[0] * window).sum(0))]  # fmt: skip


# ---- What the page shows ---------------------------------------------------------------------


def close(text, value, digits=2):
    """Whether the text is the value with this many decimals; "0" is nothing but 0."""
    allowed = {"abs": 0.51 * 10.0**-digits, "rel": 0.006 * (abs(value) > 1)}
    assert text != "0" or abs(value) < 2e-7
    return number(text) == pytest.approx(value, **allowed) and "e" not in text


def near(text, value):
    """Whether the text, which may have an exponent and two digits, is the value."""
    return number(text) == pytest.approx(value, rel=0.06 if "e" in text else 0.006, abs=6e-4)


# Notes and outlined cells by map, the cells of the kernel, and single lines.
READ = (
    f"(root) => {{ {SAID}"
    + """
  const { notes, rects } = Object.fromEntries(["notes", "rects"].map((kind) => [kind, {}]));
  for (const map of root.querySelectorAll(".map")) {
    const name = map.querySelector("canvas").dataset.map;
    notes[name] = map.querySelector(".note").textContent.split("\\n");
    for (const rect of map.querySelectorAll("rect:not(.halo)")) {
      const place = ["x", "y", "width", "height"].map((n) => Number(rect.getAttribute(n)));
      (rects[`${name} ${rect.getAttribute("class")}`] ??= []).push(place);
    }
  }
  const cells = [...root.querySelectorAll(".cells button")].map((c) =>
    [[...c.children].map((part) => part.textContent).filter(Boolean),
      c.className, c.getAttribute("aria-pressed"), c.tabIndex, c.style.background]);
  const crossed = [...root.querySelectorAll(".cells button")].map((c) =>
    Boolean(c.querySelector(".outside")));
  const [line, scale, title] = [".line", ".scale", ".heading"].map((part) =>
    said(root.querySelector(part)));
  return { notes, rects, cells, crossed, line, scale, title,
    arrow: root.querySelector(".way").textContent,
    entered: root.querySelector("path.entered").getAttribute("d") };
}"""
)


class Unfold(Shown):
    """The explorer on a page, and the same explorer in Python."""

    def __init__(self, page, explorer=None):
        super().__init__(page, "unfold")
        self.explorer = explorer or UnfoldExplorer()

    def check(self, pixel=None):
        """Compare canvases, cells, notes and marks with Python; return the stages."""
        wanted = Wanted(self.explorer, pixel)
        self.compare(wanted.drawings())
        read = self.root.evaluate(READ)
        check_cells(read["cells"], wanted)
        check_words(read, wanted)
        check_line(read["line"], wanted)
        check_notes(read["notes"], wanted)
        check_move(read, wanted)
        check_marks(read["rects"], wanted)
        return wanted


def check_cells(cells, wanted):
    weights, window, products = wanted.cells()
    end = max(map(abs, weights)) ** 0.5 or 1
    assert len(cells) == wanted.k**2
    for t, (parts, kind, pressed, stop, back) in enumerate(cells):
        chosen, added = t == wanted.step - 1, t < wanted.step
        assert (pressed == "true", stop == 0, "chosen" in kind) == (chosen,) * 3
        assert ("added" in kind, "waiting" in kind) == (added, not added)
        assert close(parts[0], weights[t]), f"{t}: weight {parts[0]}, not {weights[t]}"
        assert not any(re.search(r"−0\.00$", part) for part in parts)
        assert close(parts[-1].removeprefix("= "), products[t])
        assert len(parts) == (3 if len(wanted.x[0]) == 1 else 2)
        assert len(parts) == 2 or close(parts[1].removeprefix("× "), window[t])
        level = np.sign(weights[t]) * abs(weights[t]) ** 0.5
        rgb = colours([level], -end, end, SIGNED)[0, :3] if added else []
        assert np.abs(np.array(re.findall(r"\d+", back), float) - rgb).max(initial=0) <= 1


def check_words(read, wanted):
    """The heading of the kernel, the ends of the scales, the padding and the sizes."""
    row, column = wanted.pixel
    assert read["title"] == f"Kernel {wanted.k}×{wanted.k} at pixel ({row}, {column})"
    if len(wanted.x[0]) == 1:
        read_pixels = [(row + i, column + j) for i, j in wanted.offsets]
        height, width = wanted.x.shape[2:]
        assert read["crossed"] == [not (0 <= i < height and 0 <= j < width) for i, j in read_pixels]
    scale = r"scale: −(\S+) to (\S+)|zero everywhere"
    for texts, end in zip(re.findall(scale, read["scale"]), (wanted.most, wanted.end), strict=True):
        assert all(close(text, end, 3) for text in texts) if end > 1e-12 else texts == ("", "")
    sides = ["×".join(map(str, m.shape[-2:])) for m in (wanted.x, wanted.missing)]
    assert f"Padding {wanted.dilation * (wanted.k // 2)}: " in read["scale"]
    assert read["scale"].endswith(f"Size {sides[0]} → {sides[1]}.")


def check_line(line, wanted):
    """The product of the chosen cell, where it has no room for it; the sums so far and of all."""
    weights, window, products = wanted.cells()
    t, shown = wanted.step - 1, line.startswith(f"Cell {wanted.place}: ")
    assert shown == (wanted.k == 7)
    if shown and len(wanted.x[0]) == 1:
        texts = re.search(r": (\S+) × (\S+) = (\S+)\. Sum", line).groups()
        assert all(map(near, texts, (weights[t], window[t], products[t])))
    elif shown:
        assert near(re.search(r"the product is (\S+)\. Sum", line)[1], products[t])
    sums = re.findall(r": (\S+?)[,.](?= |$)", line)
    wanted_sums = [sum(products[: wanted.step]), sum(products)]
    for text, value in zip(sums, wanted_sums[-len(sums) :], strict=True):
        assert close(text, value, 3), line
    assert len(sums) == (1 if wanted.step == wanted.k**2 else 2)


def check_notes(notes, wanted):
    at, (height, width) = tuple(wanted.read), wanted.x.shape[2:]
    inside = 0 <= at[0] < height and 0 <= at[1] < width
    place, value = notes["picture"]
    assert place.replace("−", "-") == f"reads {at}"
    assert inside or value == "0, outside"
    values = wanted.x[0, :, at[0], at[1]].tolist() if inside else []
    for text, wanted_value in zip(value.split(", ") if inside else [], values, strict=True):
        assert close(text, wanted_value, 3)
    out = tuple(n // wanted.stride for n in wanted.pixel)
    now = wanted.sums[wanted.step - 1]
    numbers = {"product": wanted.product[at] if inside else 0, "sum": now[out],
               "slid": wanted.slid[tuple(wanted.pixel)],
               "convolution": wanted.convolution[out]}  # fmt: skip
    for name, number_there in numbers.items():
        text = notes[name][1].split()[-1]
        assert close(text, float(number_there), 3), f"{name}: {text}, not {number_there}"
    by = notes["product"][0].removeprefix("by ")
    if len(wanted.x[0]) == 1:
        assert close(by, wanted.cells()[0][wanted.step - 1], 3)
    else:
        assert by == str(wanted.place)
    assert notes["sum"][0] == f"{wanted.step} of {wanted.k**2} maps"
    says, gap = notes["missing"]
    assert says == ("✓ only rounding" if wanted.done else "at most")
    largest = 0 if wanted.done else wanted.missing.abs().max().item()
    rounding = 2e-6 * max(1, now.abs().max().item())
    assert number(gap) == pytest.approx(largest, abs=max(6e-4, rounding), rel=0.006)


def check_move(read, wanted):
    """The way in words and as an arrow, and the pixels that are hatched."""
    down, right = wanted.move
    names = ((down, "down", "up"), (right, "right", "left"))
    words = [f"{abs(n)} {ahead if n > 0 else back}" for n, ahead, back in names if n]
    assert read["notes"]["slid"][0] == (", ".join(words) or "stays in place")
    arrows = ["↖↑↗", "←·→", "↙↓↘"]
    assert read["arrow"] == arrows[np.sign(down) + 1][np.sign(right) + 1] + "\ufe0e"
    entered = (shift(torch.ones_like(wanted.slid), -down, -right) == 0).nonzero().tolist()
    strokes = re.findall(r"M(\d+) (\d+)l1 -1", read["entered"])
    assert [[int(y) - 1, int(x)] for x, y in strokes] == entered


def check_marks(rects, wanted):
    """The window, the pixel it is for, and the pixels that it reads."""
    row, column = wanted.pixel
    out = [n / wanted.stride for n in wanted.pixel]
    here = {"product": wanted.read, "slid": wanted.pixel, "picture": wanted.read}
    here |= {name: out for name in ("sum", "convolution", "missing")}
    marks = {f"{name} here": [[at[1], at[0], 1, 1]] for name, at in here.items()}
    far = wanted.dilation * (wanted.k // 2)
    marks["picture convolution"] = [[column - far, row - far, 2 * far + 1, 2 * far + 1]]
    if wanted.dilation > 1:
        marks["picture read"] = [[column + j, row + i, 1, 1] for i, j in wanted.offsets]
    assert rects == marks


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Unfold(page)


# ---- Controls --------------------------------------------------------------------------------


def test_first_drawing_and_every_control(shown):
    assert shown.check().step == 4
    for name in ("stride", "dilation", "step"):
        shown.click_track(name)
        moved(shown, name)
        shown.press_one(name)
        moved(shown, name)
    for name, option in (("preset", "sharpen"), ("kernel_size", "5")):
        shown.control(name).select_option(option)
        moved(shown, name)
        shown.control(name).focus()
        shown.page.keyboard.press("ArrowUp")
        moved(shown, name)


def random_state(rng):
    k = rng.choice(SIZES)
    return {"preset": rng.choice(["edge", "sharpen", "blur"]), "kernel_size": k,
            "stride": rng.randint(1, 3), "dilation": rng.randint(1, 3),
            "step": rng.choice([1, k * k // 2 + 1, k * k, 49]), "move": rng.random() < 0.7,
            "pixel": [rng.choice([0, 1, 23, 46, 47]) for _ in range(2)]}  # fmt: skip


def test_many_states(shown):
    """Random states and extremes: large kernels, corners, every stride and dilation."""
    rng = random.Random(1)
    states = [random_state(rng) for _ in range(14)]
    states.append({"kernel_size": 7, "dilation": 3, "stride": 3, "step": 1, "pixel": [47, 47]})
    states.append({"kernel_size": 1, "preset": "edge", "step": 49, "pixel": [0, 0]})
    for state in states:
        shown.root.evaluate("(root, state) => root.model.set(state)", state)
        shown.page.evaluate(TWO_FRAMES)
        shown.follow()
        shown.check()


def test_the_sum_is_the_convolution_only_at_the_end(shown):
    shown.control("step").focus()
    shown.page.keyboard.press("End")
    assert moved(shown, "step").step == 9
    drawn = shown.drawn()
    assert np.abs(drawn["sum"].astype(int) - drawn["convolution"]).max() <= 1
    shown.page.keyboard.press("ArrowLeft")
    moved(shown, "step")
    drawn = shown.drawn()
    assert np.abs(drawn["sum"].astype(int) - drawn["convolution"]).max() > 20


def test_without_the_move_a_kernel_only_multiplies(shown):
    """Sobel's numbers add up to zero, those of the blur to one."""
    shown.control("move").click()
    moved(shown, "move")
    shown.control("step").focus()
    shown.page.keyboard.press("End")
    wanted = moved(shown, "step")
    assert not wanted.done and wanted.sums[-1].abs().max() < 1e-6
    shown.control("preset").select_option("blur")
    torch.testing.assert_close(moved(shown, "preset").sums[-1], wanted.x[0, 0])
    shown.control("move").press("Space")
    assert moved(shown, "move").done


def test_choose_a_cell(shown):
    """By mouse and by the arrow keys, up to the borders of the kernel."""
    cells = shown.root.locator(".cells button")
    cells.nth(7).click()
    assert moved(shown, "step").place == (2, 1)
    for key, place in (("ArrowUp", (1, 1)), ("ArrowRight", (1, 2)), ("ArrowRight", (1, 2)),
                       ("ArrowDown", (2, 2)), ("ArrowDown", (2, 2)), ("Home", (0, 0)),
                       ("ArrowUp", (0, 0)), ("ArrowDown", (1, 0)), ("ArrowLeft", (1, 0)),
                       ("End", (2, 2)), ("ArrowLeft", (2, 1))):  # fmt: skip
        shown.page.keyboard.press(key)
        shown.page.evaluate(TWO_FRAMES)
        shown.follow()
        assert Wanted(shown.explorer).place == place, key
        focused = shown.page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused.startswith(f"Cell {place}")
    shown.check()


def test_player(shown):
    """One step back and on; play goes on to the end, stops there, and starts again."""
    for name, step in (("One step back", 3), ("One step on", 4)):
        shown.root.get_by_role("button", name=name).click()
        assert moved(shown, "step").step == step
    shown.root.locator(".cells button").nth(7).click()
    play = shown.root.get_by_role("button", name="Play", exact=True)
    play.click()
    shown.root.get_by_role("button", name="Pause").wait_for()
    shown.root.get_by_text("✓ only rounding").wait_for()
    play.wait_for()
    assert moved(shown, "step").step == 9
    play.click()
    shown.root.get_by_role("button", name="Pause").click()
    shown.page.evaluate(TWO_FRAMES)
    assert shown.state()["step"] == 1
    play.click()
    shown.root.locator(".cells button").nth(4).click()  # stops it
    shown.page.wait_for_timeout(900)
    assert shown.state()["step"] == 5


def test_a_smaller_kernel_has_fewer_steps(shown):
    """The slider ends at k²; a larger step counts as all."""
    shown.root.evaluate("(root) => root.model.set({ kernel_size: 7, step: 40 })")
    moved(shown, "kernel_size")
    shown.control("kernel_size").select_option("3")
    moved(shown, "kernel_size")
    slider = shown.control("step")
    assert (slider.get_attribute("max"), slider.input_value()) == ("9", "9")
    assert slider.get_attribute("aria-valuetext") == "9 of 9"
    shown.root.get_by_role("button", name="One step back").click()
    assert moved(shown, "step").step == 8


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_numbers_fit_into_their_cells(shown, width):
    """At every size, and never smaller than 11 pixels."""
    shown.page.set_viewport_size({"width": width, "height": 800})
    for k in SIZES:
        shown.root.evaluate("(root, k) => root.model.set('kernel_size', k)", k)
        shown.page.evaluate(TWO_FRAMES)
        cells = shown.root.locator(".cells button").evaluate_all(
            "(all) => all.map((p) => [p.scrollWidth - p.clientWidth, p.scrollHeight - "
            "p.clientHeight, parseFloat(getComputedStyle(p).fontSize)])"
        )
        assert all(wide <= 1 and high <= 1 and size >= 11 for wide, high, size in cells), (k, cells)


# ---- Pixels ----------------------------------------------------------------------------------


def test_point_and_pin_by_mouse(shown):
    shown.root.evaluate("(root) => root.model.set('stride', 2)")
    shown.follow()
    pinned = shown.explorer.pixel
    points = {"picture": [(5, 7), (5, 7)], "sum": [(20, 3), (40, 6)],
              "convolution": [(0, 0), (0, 0)], "slid": [(30, 47), (30, 47)],
              "product": [(12, 21), (12, 22)], "missing": [(1, 2), (2, 4)]}  # fmt: skip
    for name, (cell, pixel) in points.items():
        shown.page.mouse.move(*shown.place(name, *cell))
        shown.page.evaluate(TWO_FRAMES)
        shown.check(pixel)
    shown.page.mouse.move(0, 0)
    shown.check(pinned)
    shown.page.mouse.click(*shown.place("convolution", 9, 20))
    shown.page.mouse.move(0, 0)
    assert moved(shown, "pixel").pixel == [18, 40]


def test_pin_by_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Unfold(phone)
    for name, pixel in (("picture", (2, 44)), ("sum", (31, 11))):
        phone.touchscreen.tap(*shown.place(name, *pixel))
        assert moved(shown, "pixel").pixel == list(pixel)
    phone.touchscreen.tap(*centre(shown.root.locator(".cells button").nth(2)))
    assert moved(shown, "step").step == 3


def centre(locator):
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_move_by_arrow_keys(shown):
    shown.explorer.pixel = (24, 6)
    shown.frame("picture").focus()
    for key in ("ArrowRight", "Shift+ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft"):
        shown.page.keyboard.press(key)
    assert moved(shown, "pixel").pixel == [28, 7]
    for _ in range(3):
        shown.page.keyboard.press("Shift+ArrowLeft")
    assert moved(shown, "pixel").pixel == [28, 0]
    shown.root.evaluate("(root) => root.model.set({ stride: 3, pixel: [47, 0] })")
    shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("ArrowUp")
    assert moved(shown, "pixel").pixel == [42, 0]


# ---- The page --------------------------------------------------------------------------------


def test_state_in_words(shown):
    shown.root.locator(".cells button").nth(8).click()
    status = shown.root.locator("[role=status]")
    status.get_by_text("9 of 9 maps added. Missing: nothing but rounding").wait_for()
    assert status.inner_text().startswith("Cell (2, 2), moved: 1 up, 1 left.")


TOPS = """(root) => [...root.querySelectorAll(".frame")].map((frame) =>
  Math.round(frame.getBoundingClientRect().top + scrollY)).join()"""


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_jumps_while_it_plays(open_page, server, width):
    page = open_page(viewport={"width": width, "height": 840})
    page.goto(f"{server}/{CHAPTER}")
    shown = Unfold(page)
    heights = set()
    for step in range(1, 10):
        shown.root.evaluate("(root, step) => root.model.set('step', step)", step)
        page.evaluate(TWO_FRAMES)
        heights.add(shown.root.evaluate(TOPS))
    assert len(heights) == 1


def test_your_own_picture_and_kernel(page, tmp_path):
    """In colour, not square, at every size; the kernel is cut, or gets zeros around it."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(3, 9, 14, generator=generator) * 3 - 1
    explorer = UnfoldExplorer(image, torch.randn(3, 5, 5, generator=generator))
    page.goto(write_page(explorer, tmp_path / "page.html"))
    shown = Unfold(page, explorer)
    shown.check()
    says = {"3": "Your 5×5 kernel is cut to its middle.", "5": "hatched",
            "7": "Your 5×5 kernel has zeros around it."}  # fmt: skip
    for k in ("7", "3", "1"):
        shown.control("kernel_size").select_option(k)
        moved(shown, "kernel_size")
        assert says.get(k, "cut") in shown.root.locator(".scale").inner_text()
    shown.control("preset").select_option("blur")
    moved(shown, "preset")


# ---- unfold.js against the package -----------------------------------------------------------

FILES = ("engine.js", "kit.js", "unfold.js")
RUN = """(cases) => cases.map(({ f, weights, kernel, dilation, stride }) => {
  const map = { ...f, data: Float32Array.from(f.data) }, moves = movesOf({ kernel, dilation });
  const sums = growingSums(map, weights, moves, stride);
  const whole = convolved(map, weights, moves, stride);
  return [...sums, whole].map(({ data, height, width }) => [height, width, Array.from(data)]);
})"""


def test_mathematics_on_random_configurations(beside):
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    cases, explorers = [], []
    for _ in range(100):
        channels, k = rng.choice([1, 3]), rng.choice(SIZES)
        image = torch.randn(channels, rng.randint(1, 13), rng.randint(1, 11), generator=generator)
        explorer = UnfoldExplorer(image, torch.randn(channels, k, k, generator=generator))
        explorer.stride, explorer.dilation = rng.randint(1, 3), rng.randint(1, 3)
        explorers.append(explorer)
        f = {"data": image.flatten().tolist(), **explorer.sizes}
        cases.append({"f": f, "weights": explorer.current_kernel().flatten().tolist(),
                      "kernel": k, "dilation": explorer.dilation,
                      "stride": explorer.stride})  # fmt: skip
    for made, explorer in zip(beside(FILES, RUN, cases), explorers, strict=True):
        wanted = Wanted(explorer)
        tensors = [*wanted.sums, wanted.sums[-1]]
        for (height, width, data), tensor in zip(made, tensors, strict=True):
            got = torch.tensor(data, dtype=torch.float32).view(height, width)
            torch.testing.assert_close(got, tensor, rtol=1e-5, atol=2e-5)
