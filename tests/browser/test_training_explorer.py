"""The training explorer in the built book: its curves and numbers are those of the records."""

import functools
import itertools
import json
import re

import numpy as np
import pytest
from shown import SETTLED, TWO_FRAMES, Shown, number

from acmix_edu.explorers import TrainingExplorer
from acmix_edu.training import ARMS, load
from acmix_edu.training.network import CONTROLS
from acmix_edu.training.runs import records

CHAPTER = "book/10_convergence.html"
CHARTS = """(root) => Object.fromEntries([...root.querySelectorAll("[data-chart]")].map((chart) => [
  chart.dataset.chart, {
    ends: [...chart.querySelectorAll(".ends span")].map((end) => end.textContent),
    mean: [...chart.querySelectorAll("path.mean")].map((path) => path.getAttribute("d")),
    seed: [...chart.querySelectorAll("path.seed")].map((path) => path.getAttribute("d")),
    cursor: chart.querySelector(".cursor").getAttribute("d"),
    note: [...chart.querySelectorAll(".entry")].map((one) => one.textContent).join("\\n"),
    chance: chart.querySelector("path.chance")?.getAttribute("d"),
    level: chart.querySelector(".level").checkVisibility(),
    visible: chart.checkVisibility() }]))"""


RACE = """(root) => Object.fromEntries([...root.querySelectorAll(".arm-row")].map((row) => {
  const [line, ...dots] = [...row.querySelectorAll("path")].map((path) => path.getAttribute("d"));
  return [row.dataset.arm,
    [line, dots, row.querySelector(".value").textContent, row.getAttribute("aria-pressed")]];
}))"""
SCALE = """(root) => [...root.querySelectorAll(".arm-scale span")].map((span) =>
  [span.textContent, parseFloat(span.style.left)])"""


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Shown(page, "training")


def logs(task, arm):
    return [run["records"] for run in records(task)["runs"] if run["arm"] == arm]


def wanted_lines(measure, task, arm, beside):
    """The label and the curves [seed, epoch] of each line of a chart."""
    if measure in ("test_accuracy", "loss"):  # a loss before training is None, here NaN
        return {name: np.array([[r[measure] for r in log] for log in logs(task, name)], float)
                for name in (arm, beside)}  # fmt: skip
    layers = len(logs(task, arm)[0][0]["layers"])
    return {f"layer {n + 1}": np.array([[r["layers"][n][measure] for r in log]
            for log in logs(task, arm)]) for n in range(layers)}  # fmt: skip


def points(path):
    found = re.findall(r"[ML](\S+) ([^ML]+)", path)
    return np.array(found, float).reshape(-1, 2)


def check(shown):
    """Hold every line, number and cursor of every chart against the records."""
    shown.page.evaluate(TWO_FRAMES)
    state, charts = shown.state(), shown.root.evaluate(CHARTS)
    task, arm, beside = (state[name] for name in ("task", "arm", "beside"))
    last = len(logs(task, arm)[0]) - 1
    epoch = min(state["epoch"], last)
    assert len(charts) == 7
    for measure, chart in charts.items():
        lines = wanted_lines(measure, task, arm, beside)
        shown_first = measure == "test_accuracy"
        assert chart["visible"] == (shown_first or (state["inside"] and len(lines) > 0))
        first = 1 if measure == "loss" else 0
        unit = 100 if shown_first else 1  # accuracies are written in per cent
        high, low = (number(end.removesuffix(" %")) / unit for end in chart["ends"])
        assert chart["level"] == shown_first
        if shown_first:
            assert (high, low) == (1, lowest(task))
            down = float(re.fullmatch(r"M0 (\S+)H100", chart["chance"])[1])
            assert down == pytest.approx(100 - along(chance_of(task), task))
        assert len(chart["mean"]) == len(lines)
        assert len(chart["seed"]) == sum(map(len, lines.values()))
        for (label, curves), path in zip(lines.items(), chart["mean"], strict=True):
            drawn = points(path)
            np.testing.assert_allclose(drawn[:, 0], 100 * np.arange(first, epoch + 1) / last)
            values = high - (high - low) * drawn[:, 1] / 100
            wanted = curves.mean(0)[first : epoch + 1]  # what is to come is not shown
            np.testing.assert_allclose(values, wanted, atol=0.01 * (high - low))
            said = re.search(rf"{re.escape(label)}: (.*)", chart["note"])[1]
            if epoch < first:
                assert said == "none yet"
            else:
                assert ("%" in said) == shown_first
                at, read = curves[:, epoch], re.findall(r"−?\d[\d.]*", said)
                wanted = unit * np.array([at.mean(), at.min(), at.max()])
                np.testing.assert_allclose([*map(number, read)], wanted, atol=6e-3 * unit,
                                           rtol=6e-3)  # fmt: skip
        np.testing.assert_allclose(float(chart["cursor"][1:].split()[0]), 100 * epoch / last)
    check_race(shown.root.evaluate(RACE), task, arm, epoch)
    (low, _), (word, at), (high, _) = shown.root.evaluate(SCALE)
    assert (low, word, high) == (f"{100 * lowest(task):.0f} %", "chance", "100 %")
    assert at == pytest.approx(along(chance_of(task), task), abs=1e-3)
    return json.dumps(charts)


@functools.cache
def chance_of(task):
    return 1 / len(load(task).classes)


@functools.cache
def lowest(task):
    """Where the accuracies begin: below chance and all that was recorded, at a tenth or at 0."""
    least = min(r["test_accuracy"] for run in records(task)["runs"] if run["arm"] in ARMS
                for r in run["records"])  # fmt: skip
    tenths = [n / 10 for n in range(10) if n / 10 < min(least, chance_of(task))]
    return max(tenths, default=0)


def along(accuracy, task):
    """Its place on the rows, in percent."""
    return 100 * (accuracy - lowest(task)) / (1 - lowest(task))


def check_race(rows, task, arm, epoch):
    assert list(rows) == list(ARMS)
    for name, (line, dots, said, pressed) in rows.items():
        wanted = [log[epoch]["test_accuracy"] for log in logs(task, name)]
        at, height = np.array([re.fullmatch(r"M(\S+) (\S+)h0.01", dot).groups() for dot in dots],
                              dtype=float).T  # fmt: skip
        np.testing.assert_allclose(at, along(np.array(wanted), task), atol=1e-9)
        check_heights(at, height)
        dotted = float(re.fullmatch(r"M(\S+) 0V10", line)[1])
        assert dotted == pytest.approx(along(chance_of(task), task))
        assert number(said.removesuffix(" %")) == pytest.approx(100 * np.mean(wanted), abs=6e-2)
        assert (pressed == "true") == (name == arm)


def check_heights(at, height):
    """A dot stands in the middle of its row, equal ones side by side about it, and apart."""
    assert height.min() >= 1 and height.max() <= 9
    for place in set(at):
        alone, equal = (abs(at - place) < 1).sum() == 1, np.sort(height[at == place])
        assert np.diff(equal).min(initial=9) >= 0.8
        assert not alone or equal.tolist() == [5]
        assert (abs(at - place) < 1).sum() > len(equal) or equal.mean() == pytest.approx(5)


def test_every_control(shown):
    seen = [check(shown)]
    for name, value in (("task", "texture"), ("arm", "lost-init"), ("beside", "conv3x3")):
        shown.control(name).select_option(value)
        seen.append(check(shown))
    shown.click_track("epoch")
    seen.append(check(shown))
    shown.press_one("epoch")
    seen.append(check(shown))
    for name in ("One step back", "One step on"):
        shown.root.get_by_role("button", name=name).click()
        seen.append(check(shown))
    assert all(a != b for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("width", [320, 1280])
def test_the_words_above_the_rows_have_room(page, server, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    shown = Shown(page, "training")
    for task in ("match", "texture", "digits"):
        shown.control("task").select_option(task)
        page.evaluate(TWO_FRAMES)
        words = shown.root.locator(".arm-scale span").all()
        low, chance, high = (word.bounding_box() for word in words)
        assert low["x"] + low["width"] < chance["x"]
        assert chance["x"] + chance["width"] < high["x"]


def test_a_row_chooses_its_arm(shown):
    row = shown.root.locator(".arm-row[data-arm=small-beta]")
    row.click()
    check(shown)
    shown.root.locator(".arm-row[data-arm=attention]").press("Enter")
    check(shown)
    assert shown.state()["arm"] == "attention"


def test_what_is_inside_opens_and_closes(shown):
    for opened in (True, False):
        shown.control("inside").click()
        check(shown)
        assert shown.state()["inside"] == opened
        assert shown.root.locator("[data-chart]:visible").count() == (7 if opened else 1)


def test_the_controls_are_not_among_the_arms(shown):
    """They are recorded on one task alone."""
    assert {run["arm"] for run in records("match")["runs"]} - set(ARMS) == set(CONTROLS)
    names = shown.control("arm").locator("option").all_inner_texts()
    assert names == list(ARMS)


LINES = """(root) => [...root.querySelectorAll("[data-chart=test_accuracy] .mean")].map((path) => {
  const { stroke, strokeDasharray } = getComputedStyle(path);
  return [stroke, strokeDasharray !== "none"];
})"""


def test_the_colour_of_an_arm_says_what_it_has(shown):
    """One for attention alone, one for a convolution, one for both; the arm beside is dashed."""
    seen = {}
    for arm, beside in (("attention", "acmix"), ("conv3x3", "convolution"),
                        ("lost-init", "small-beta")):  # fmt: skip
        shown.control("arm").select_option(arm)
        shown.control("beside").select_option(beside)
        shown.page.evaluate(TWO_FRAMES)
        (seen[arm], solid), (seen[beside], dashed) = shown.root.evaluate(LINES)
        assert dashed and not solid
    assert seen["conv3x3"] == seen["convolution"]
    assert seen["acmix"] == seen["lost-init"] == seen["small-beta"]
    assert len(set(seen.values())) == 3


HUES = """(root) => [...root.querySelectorAll("[data-chart=entropy] .mean")].map((path, n) => [
  getComputedStyle(path).stroke,
  getComputedStyle(root.querySelectorAll("[data-chart=entropy] .key")[n]).borderTopColor ])"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_layer_has_a_hue(open_page, server, theme):
    page = open_page(color_scheme=theme)
    page.goto(f"{server}/{CHAPTER}")
    hues = Shown(page, "training").root.evaluate(HUES)
    assert all(line == key for line, key in hues)
    assert len({line for line, _ in hues}) == len(hues) == 3


def test_an_arm_without_acmix_has_no_layers(shown):
    shown.control("arm").select_option("conv3x3")
    shown.control("inside").check()
    check(shown)
    assert shown.root.locator("[data-chart]:visible").count() == 2
    assert shown.root.get_by_text("conv3x3 has no ACmix to look into").is_visible()


def test_a_chart_takes_the_pointer(shown):
    shown.control("inside").check()
    svg = shown.root.locator("[data-chart=share] svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    shown.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 10)
    check(shown)
    last = len(logs("match", "acmix")[0]) - 1
    assert shown.state()["epoch"] == round(0.5 * last)


IN_SIGHT = """(box) => {
  const { top, bottom } = box.getBoundingClientRect();
  const head = document.querySelector(".bd-header-article").getBoundingClientRect().bottom;
  return top >= head && bottom <= innerHeight;
}"""


@pytest.mark.parametrize("measure", ["test_accuracy", "share"])
def test_a_link_lands_on_the_chart_that_the_text_speaks_of(phone, server, measure):
    """On a phone, where not all charts are in sight: first who starts late, then the share."""
    phone.goto(f"{server}/{CHAPTER}")
    shown = Shown(phone, "training")
    first, second = phone.locator("main li a[href^='#training:epoch=6']").all()[:2]
    (second if measure == "share" else first).tap()
    phone.evaluate(SETTLED)
    assert shown.state()["epoch"] == 6 and shown.state()["inside"] == (measure == "share")
    assert shown.root.locator(f"[data-chart={measure}]").evaluate(IN_SIGHT)


def test_play_goes_to_the_end_of_the_task_and_pauses(shown):
    shown.root.get_by_role("button", name="Play").click()
    shown.page.wait_for_function("() => document.querySelector('[name=epoch]').value >= 2")
    shown.root.get_by_role("button", name="Pause").click()
    at = shown.state()["epoch"]
    shown.page.wait_for_timeout(900)
    assert shown.state()["epoch"] == at
    check(shown)


def test_python_has_the_same_curves():
    explorer = TrainingExplorer(task="digits", arm="attention")
    for curves, log in zip(explorer.run(), logs("digits", "attention"), strict=True):
        assert curves["test_accuracy"] == [r["test_accuracy"] for r in log]
        assert curves["entropy"][2] == [r["layers"][2]["entropy"] for r in log]


def test_own_records_start_with_what_they_hold():
    few = records("match")
    few["runs"] = [run for run in few["runs"] if run["arm"] in ("lost-init", "acmix")]
    explorer = TrainingExplorer({"mine": few})
    assert (explorer.task, explorer.arm, explorer.beside) == ("mine", "acmix", "acmix")


def test_tasks_without_a_common_arm_are_refused():
    few = {task: records(task) for task in ("texture", "match")}
    for task, arm in (("texture", "acmix"), ("match", "loud-alpha")):
        few[task]["runs"] = [run for run in few[task]["runs"] if run["arm"] == arm]
    with pytest.raises(ValueError, match="an arm in common"):
        TrainingExplorer(few)
    assert TrainingExplorer({"match": few["match"]}, arm="loud-alpha", beside="loud-alpha").run()
