"""The film explorer in the built book: all that is drawn and written is what the film holds."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
from shown import SAID, SIGNED, TWO_FRAMES, Shown, colours, number

from acmix_edu.explorers import FilmExplorer
from acmix_edu.training import film
from acmix_edu.training.denoise import held_out, psnr

CHAPTER = "book/03_depthwise.html"
STARTS = {"acmix": "shift start", "lost-init": "random start"}

READ = (
    f"(root) => {{ {SAID}"
    + """
  const rects = [...root.querySelectorAll("rect.here")].map((rect) =>
    ["x", "y", "width", "height"].map((n) => Number(rect.getAttribute(n))));
  const told = [...root.querySelectorAll("[data-told]")].map((line) =>
    [line.dataset.told, [...line.querySelectorAll("b")].map((b) => b.textContent)]);
  const lines = [...root.querySelectorAll(".chart svg")].map((svg) =>
    [...svg.querySelectorAll("path")].map((path) => path.getAttribute("d")));
  const ends = [...root.querySelectorAll(".chart")].map((chart) =>
    [chart.querySelector("[data-told]").dataset.told,
      [...chart.querySelectorAll(".ends span")].map((end) => end.textContent)]);
  const text = (name) => said(root.querySelector(name));
  return { rects, told: Object.fromEntries(told), ends: Object.fromEntries(ends), lines,
    reading: text(".reading"), scale: text(".scale") };
}"""
)


def close(text, value):
    return number(text) == pytest.approx(value, abs=6e-4, rel=0.006)


def recorded():
    """The weights [moments, 4, 9, 3, 3] and the records, by start."""
    films = {start: film(start) for start in STARTS}
    steps = [told["step"] for told in FilmExplorer().told["acmix"]]
    chosen = {s: [f for f in frames if f["step"] in steps] for s, frames in films.items()}
    return {s: (torch.stack([f["state"]["operator.dep_conv.weight"][:4] for f in frames]), frames)
            for s, frames in chosen.items()}  # fmt: skip


RECORDED = recorded()


def side_by_side(kernels, end):
    """Nine kernels in three rows, 3×3 dots a number, with a transparent line of one dot between."""
    rows = [torch.cat([kernels[3 * p + q] for q in range(3)], 1) for p in range(3)]
    dots = torch.cat(rows).numpy().repeat(3, 0).repeat(3, 1)
    apart = np.insert(np.insert(dots, [9, 18], np.nan, 0), [9, 18], np.nan, 1)
    return colours(apart, -end, end, SIGNED)


class Film(Shown):
    def __init__(self, page):
        super().__init__(page, "film")

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        return self.check()

    def check(self, cell=None):
        self.page.evaluate(TWO_FRAMES)
        state = self.state()
        moment, channel, change = state["moment"], state["channel"], state["change"]
        every = {s: w[:, channel] - w[0, channel] * change for s, (w, _) in RECORDED.items()}
        end = max(w.abs().max().item() for w in every.values())
        self.compare({start: side_by_side(w[moment], end) for start, w in every.items()})
        read = self.root.evaluate(READ)
        assert close(re.search(r"scale: −\S+ to (\S+)", read["scale"])[1], end)
        assert read["scale"].startswith("Change since" if change else "The numbers")
        self.check_notes(moment, channel)
        check_reading(read, moment, channel, cell or state["cell"])
        check_charts(read, moment)
        return state

    def check_notes(self, moment, channel):
        for start, (weights, _) in RECORDED.items():
            kernels = weights[moment, channel].flatten(1).abs()
            home = (kernels.diagonal() == kernels.amax(1)).sum().item()
            far = (weights[moment] - weights[moment, channel]).abs().max().item()
            note = self.note(start)
            assert note.startswith(f"{home} of 9 are largest")
            assert close(re.search(r"differ from this one by at most (\S+)\.$", note)[1], far)


def check_reading(read, moment, channel, cell):
    row, column = cell
    t, p, q = 3 * (row // 3) + column // 3, row % 3, column % 3
    assert read["rects"] == [[3 * column + column // 3, 3 * row + row // 3, 3, 3]] * 2
    assert read["reading"].startswith(f"weight[{channel}, {t}, {p}, {q}]: ")
    for start, (weights, _) in RECORDED.items():
        now, first = re.search(
            rf"{STARTS[start]} (\S+), at the start (\S+?)[;.](?= |$)", read["reading"]
        ).groups()
        assert close(now, weights[moment, channel, t, p, q].item())
        assert close(first, weights[0, channel, t, p, q].item())


def check_charts(read, moment):
    steps = np.array([frame["step"] for frame in RECORDED["acmix"][1]])
    across = 100 * np.sqrt(steps / 1000)
    clean, noisy = held_out()
    for (name, texts), (cursor, *lines) in zip(read["told"].items(), read["lines"], strict=True):
        values = [[f[name] for f in frames] for _, frames in RECORDED.values()]
        high = max(map(max, values))
        top, bottom = read["ends"][name]
        assert close(top, high) and number(bottom) == 0
        assert number(re.match(r"M(\S+) 0V100", cursor)[1]) == pytest.approx(across[moment])
        if name == "psnr":
            level = float(re.fullmatch(r"M0 (\S+)H100", lines.pop(0))[1])
            assert level == pytest.approx(100 - 100 * psnr(noisy, clean) / high)
        # What is to come is not shown: it is asked for in the text.
        for text, line, dot, wanted in zip(texts, lines[:2], lines[2:], values, strict=True):
            assert close(text, wanted[moment])
            spots = np.stack([across, 100 - 100 * np.array(wanted) / high], 1)
            np.testing.assert_allclose(points_of(line), spots[: moment + 1], atol=1e-9)
            np.testing.assert_allclose(
                points_of(dot.removesuffix("h0.01")), spots[[moment]], atol=1e-9
            )


def points_of(line):
    return [tuple(map(float, p.split())) for p in re.split("[ML]", line)[1:]]


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Film(page)


def test_first_drawing_and_every_control(shown):
    before = shown.check()
    for name in ("moment", "channel"):
        for change in (shown.click_track, shown.press_one):
            change(name)
            after = shown.check()
            assert after[name] != before[name]
            before = after
    shown.control("change").click()
    assert shown.check()["change"]
    shown.control("change").press("Space")
    assert not shown.check()["change"]


def test_many_states(shown):
    rng = random.Random(0)
    for _ in range(20):
        shown.set(moment=rng.choice([0, 1, 7, 12, 19]), channel=rng.randrange(4),
                  change=rng.random() < 0.5, cell=[rng.randrange(9), rng.randrange(9)])  # fmt: skip


def test_player(shown):
    shown.root.get_by_role("button", name="One step on").click()
    assert shown.check()["moment"] == 1
    shown.set(moment=17)
    play = shown.root.get_by_role("button", name="Play", exact=True)
    play.click()
    shown.root.get_by_role("button", name="Pause").wait_for()
    play.wait_for()
    assert shown.check()["moment"] == 19
    assert shown.control("moment").get_attribute("aria-valuetext") == "1000"


def test_a_click_on_a_chart_chooses_the_moment(shown):
    chart = shown.root.locator(".chart svg").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    for part, moment in ((0.5, 9), (0.01, 0), (0.99, 19)):
        shown.page.mouse.click(box["x"] + part * box["width"], box["y"] + 20)
        assert shown.check()["moment"] == moment


def test_point_pin_and_steer(shown):
    """On a line between two kernels, the number after it is meant."""
    points = [("acmix", (0, 2), (0, 0)), ("acmix", (14, 28), (4, 8)),
              ("lost-init", (23, 10), (7, 3)), ("lost-init", (9, 19), (3, 6))]  # fmt: skip
    for name, place, cell in points:
        shown.page.mouse.move(*shown.place(name, *place))
        shown.check(cell)
    shown.page.mouse.click(*shown.place("lost-init", 17, 24))
    shown.page.mouse.move(0, 0)
    assert shown.check()["cell"] == [5, 7]
    shown.frame("acmix").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowUp"):
        shown.page.keyboard.press(key)
    assert shown.check()["cell"] == [0, 8]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_steps_have_room(page, server, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    for chart in Film(page).root.locator(".chart").all():
        boxes = [step.bounding_box() for step in chart.locator(".along span").all()]
        assert all(a["x"] + a["width"] < b["x"] for a, b in itertools.pairwise(boxes))
        words = chart.locator(".told").bounding_box()
        assert all(box["y"] + box["height"] <= words["y"] for box in boxes)


def test_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Film(phone)
    phone.touchscreen.tap(*shown.place("lost-init", 21, 7))
    assert shown.check()["cell"] == [6, 2]


def test_state_in_words(shown):
    shown.set(moment=19)
    shown.root.locator("[role=status]").get_by_text("Step 1000, output 0. Shift start:").wait_for()


def test_what_the_chapter_says():
    """At the last step every shift is still to be seen, and no random kernel has become one."""
    home = {}
    for start, (weights, _) in RECORDED.items():
        last = weights[-1].flatten(2).abs()
        home[start] = (last.diagonal(dim1=1, dim2=2) == last.amax(2)).float().mean(1)
    assert (home["acmix"] > 0.8).all() and home["acmix"][0] == 1
    assert (home["lost-init"] < 0.5).all()
