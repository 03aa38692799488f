"""The budget explorer in the built book: every bar, column, curve and number is the package's."""

import json
import math
import random
import re
from collections import namedtuple

import numpy as np
import pytest
from shown import TWO_FRAMES, Shown

from acmix_edu import acmix_cost, conv_cost
from acmix_edu.explorers import BudgetExplorer

CHAPTER = "book/06_resnet.html"
FIELDS = {"multiply-adds": "multiply_adds", "parameters": "parameters", "memory": "activations"}
ALL = list(acmix_cost(4, 4, 1, 1))
OPERATORS = {
    "convolution": ["convolution"],
    "attention": ["stage I", "position", "attention"],
    "path": ["stage I", "fc", "shift and sum"],
    "ACmix": ALL,
}
UNITS = {"": 1, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
UNITS |= {unit: 1024**n for n, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))}
WIDTHS = {1: (64, 56), 2: (128, 28), 3: (256, 14), 4: (512, 7)}  # layer: C, side of its output
READ = """(root) => {
  const all = (node, selector) => [...node.querySelectorAll(selector)];
  const shown = (node) => (node.hidden ? "" : node.innerText);
  const text = (selector) => shown(root.querySelector(selector));
  const segments = (node, side) => Object.fromEntries(all(node, ".segment").map((one) =>
    [one.dataset.stage, parseFloat(one.style[side])]));
  return {
    bars: Object.fromEntries(all(root, ".operator").map((bar) => [bar.dataset.operator,
      { value: bar.querySelector(".cost").textContent, name: bar.querySelector(".name").textContent,
        segments: segments(bar, "width"),
        texts: all(bar, ".segment").map((one) => one.textContent) }])),
    blocks: all(root, ".block").map((block) => ({ segments: segments(block, "height"),
      plain: parseFloat(block.querySelector(".plain").style.bottom),
      here: block.getAttribute("aria-pressed"), label: block.getAttribute("aria-label") })),
    areas: Object.fromEntries(all(root, ".area").map((area) =>
      [area.dataset.stage, area.getAttribute("d")])),
    cursor: parseFloat(root.querySelector(".cursor").getAttribute("d").slice(1)),
    chips: Object.fromEntries(all(root, ".chip").map((chip) =>
      [chip.dataset.stage, chip.querySelector(".number").textContent])),
    lit: [...new Set(all(root, ".lit").map((node) => node.dataset.stage))],
    unlit: all(root, "[data-stage]:is(.segment, .chip, .area):not(.lit)").map((node) =>
      node.dataset.stage),
    legend: all(root, ".legend .entry").map((one) => one.textContent.trim()),
    exact: all(root, ".counted b").map((one) => one.title),
    heading: text(".heading"), counted: text(".counted"), half: text(".half"),
    reading: text(".reading"), verdict: text(".verdict"), formula: text(".formula"),
    heads: text(".heads"), memo: text(".memo") };
}"""


class Budget(Shown):
    """The budget explorer on a page, and one in Python that follows it."""

    def __init__(self, page):
        super().__init__(page, "budget")
        self.explorer = BudgetExplorer()

    def read(self) -> dict:
        self.page.evaluate(TWO_FRAMES)
        return self.root.evaluate(READ)

    def set(self, **state):
        self.root.evaluate("(root, state) => root.model.set(state)", state)
        return self


@pytest.fixture
def shown(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Budget(page)


# ---- What Python says ------------------------------------------------------------------------


def dividing(heads, channels):
    return next(n for n in range(heads, 0, -1) if channels % n == 0)


def counts(state, channels, side, stride):
    """Every stage by name and the convolution, in the units of the measure."""
    field, out = FIELDS[state["measure"]], math.ceil(side / stride)
    k, heads = state["kernel_conv"], dividing(state["heads"], channels)
    costs = acmix_cost(channels, channels, side, side, kernel_att=state["kernel_att"],
                       head=heads, kernel_conv=k, stride=stride)  # fmt: skip
    costs["convolution"] = conv_cost(channels, channels, k, out, out)
    bytes_each = state["batch"] * state["precision"] if field == "activations" else 1
    return {stage: getattr(cost, field) * bytes_each for stage, cost in costs.items()}


def total(costs, stages=ALL):
    return sum(costs[stage] for stage in stages)


def blocks_of(state):
    """[layer, C, side, stride] of every block, from the structure of a ResNet."""
    layers = {"ResNet-26": (1, 2, 4, 1), "ResNet-38": (2, 3, 5, 2), "ResNet-50": (3, 4, 6, 3)}
    for layer, blocks in enumerate(layers[state["network"]], start=1):
        channels, side = WIDTHS[layer]
        for block in range(blocks):
            stride = 2 if layer > 1 and block == 0 else 1
            yield layer, channels, side * stride, stride


def assert_amount(text, value):
    """A number and its unit, to the digit that is written."""
    written, unit = re.fullmatch(r"([\d,.]+) ?([A-Za-z]*)", text).groups()
    apart = abs(float(written.replace(",", "")) * UNITS[unit] - value)
    digits = len(written.partition(".")[2])
    assert apart <= 0.501 * 10**-digits * UNITS[unit] * (digits > 0), f"{text}, not {value:,}"


def assert_shares(drawn, costs, largest):
    assert set(drawn) <= set(costs)
    for stage, percent in drawn.items():
        assert percent == pytest.approx(100 * costs[stage] / largest, abs=1e-3), stage


def check(shown):
    """Hold all that is drawn and written against Python; return it as text."""
    seen, state = shown.read(), shown.state()
    costs = counts(state, state["channels"], state["side"], state["stride"])
    shown.follow()
    field = FIELDS[state["measure"]]
    factor = state["batch"] * state["precision"] if field == "activations" else 1
    assert {s: getattr(c, field) * factor for s, c in shown.explorer.costs().items()} == {
        stage: costs[stage] for stage in ALL
    }
    check_bars(seen, state, costs)
    check_blocks(seen, state, shown.explorer.networks[state["network"]], factor)
    check_chart(seen, state)
    check_reading(seen, state, costs, factor)
    return json.dumps(seen)


def check_bars(seen, state, costs):
    longest = max(total(costs, stages) for stages in OPERATORS.values())
    assert list(seen["bars"]) == list(OPERATORS)
    k = state["kernel_conv"]
    assert seen["bars"]["convolution"]["name"] == f"{k}×{k} convolution"
    for name, stages in OPERATORS.items():
        bar, whole = seen["bars"][name], total(costs, stages)
        assert list(bar["segments"]) == stages
        assert_shares(bar["segments"], costs, longest)
        assert_amount(bar["value"], whole)
        for stage, text in zip(stages, bar["texts"], strict=True):
            if text.startswith(">"):
                assert 0.995 <= costs[stage] / whole < 1 or costs[stage] == whole
            elif text:
                assert abs(float(text[:-2]) - 100 * costs[stage] / whole) <= 0.5001
    assert list(seen["chips"]) == ["convolution", *ALL]
    for stage, text in seen["chips"].items():
        if stage == "mix" and state["measure"] == "multiply-adds":
            assert text == "not counted"  # and so not free
        else:
            assert_amount(text, costs[stage])
    times, apart, saved = re.fullmatch(
        r"ACmix takes ([\d.]+) times the [\w-]+ of the \d+×\d+ convolution\. "
        r"As two modules its paths would take (.*): sharing Stage I saves (.*)\.",
        seen["verdict"],
    ).groups()
    assert abs(float(times) - total(costs) / costs["convolution"]) <= 0.00501
    assert_amount(apart, total(costs, OPERATORS["attention"]) + total(costs, OPERATORS["path"]))
    assert_amount(saved, costs["stage I"])


def check_blocks(seen, state, network, factor):
    blocks = list(blocks_of(state))
    costs = [counts(state, *block[1:]) for block in blocks]
    highest = max(max(total(c), c["convolution"]) for c in costs)
    chosen = (state["channels"], state["side"], state["stride"])
    for (layer, *sizes), cost, block in zip(blocks, costs, seen["blocks"], strict=True):
        assert list(block["segments"]) == ALL
        room = highest / 0.95  # above the tallest
        assert_shares(block["segments"] | {"convolution": block["plain"]}, cost, room)
        assert block["here"] == str(tuple(sizes) == chosen).lower()
        channels, side, stride = sizes
        head, amounts = block["label"].rsplit(": ", 1)
        mixed, plain = amounts.split(", the convolution ")
        size = f"{channels} channels, {side}×{side}, stride {stride}"
        assert head == f"Layer {layer}: ACmix with {size}"
        assert_amount(mixed, total(cost))
        assert_amount(plain, cost["convolution"])
    rest = network["rest"][state["measure"]] * factor
    plain = rest + sum(cost["convolution"] for cost in costs)
    mixed = rest + sum(map(total, costs))
    said = re.search(
        r"pixels: ([\d,.]+(?: [A-Z]\w*)?)(?: [\w-]+)? with \d+×\d+ convolutions → "
        r"([\d,.]+(?: [A-Z]\w*)?) with ACmix \(([\d.]+)×\)",
        seen["counted"],
    )
    for text, value in zip(said.groups(), (plain, mixed), strict=False):
        assert_amount(text, value)
    assert abs(float(said[3]) - mixed / plain) <= 0.00501
    assert seen["exact"] == [f"{plain:,}", f"{mixed:,}"]
    k = state["kernel_conv"]
    assert seen["legend"] == [f"{k}×{k} convolution", *(s.replace("stage", "Stage") for s in ALL)]
    low = {b[0]: total(c) for b, c in zip(blocks, costs, strict=True) if total(c) < highest / 50}
    told = re.compile(r" In layer (\d) the columns are too low to be seen: (.*?) each\.")
    said = told.findall(seen["counted"])
    assert [int(layer) for layer, _ in said] == list(low)
    for (_, text), value in zip(said, low.values(), strict=True):
        assert_amount(text, value)
    channels, side, stride = chosen
    out = math.ceil(side / stride)
    many = state["measure"] == "memory" and state["batch"] > 1
    images = f"{state['batch']} images" if many else "one image"
    assert f" on {images} of 224×224 pixels" in seen["counted"]
    assert seen["heading"].startswith(
        f"One module, {images}: [{channels}, {side}, {side}] → [{channels}, {out}, {out}]"
    )
    assert ("stride" in seen["heading"]) == (stride > 1)
    assert ("as in layer" in seen["heading"]) == (chosen in [b[1:] for b in blocks])


def along(channels):
    return 100 * min(max(math.log(channels / 8) / math.log(2048 / 8), 0), 1)


def check_chart(seen, state):
    """The areas meet, and lie where Python puts the sums of the shares."""
    heads = dividing(state["heads"], state["channels"])
    wide = state | {"heads": heads}
    assert seen["cursor"] == pytest.approx(along(state["channels"]), abs=0.006)
    widths = sorted({heads * max(1, math.floor(8 * 256 ** (n / 32) / heads + 0.5))
                     for n in range(33)})  # fmt: skip
    costs = [counts(wide, channels, state["side"], state["stride"]) for channels in widths]
    shares = np.array([[c[stage] / total(c) for c in costs] for stage in ALL])
    sums = np.vstack([np.zeros(len(widths)), shares.cumsum(0)])
    for n, stage in enumerate(ALL):
        points = np.array(re.findall(r"([\d.]+) ([\d.-]+)", seen["areas"][stage]), float)
        assert len(points) == 2 * len(widths)
        below, above = points[: len(widths)], points[len(widths) :][::-1]
        for line, wanted in ((below, sums[n]), (above, sums[n + 1])):
            np.testing.assert_allclose(line[:, 0], [along(c) for c in widths], atol=0.006)
            np.testing.assert_allclose(100 - line[:, 1], 100 * wanted, atol=0.006)
    now = counts(state, state["channels"], state["side"], state["stride"])
    share = float(re.match(r"Stage I is ([\d.]+) %", seen["half"])[1])
    assert abs(share - 100 * now["stage I"] / total(now)) <= 0.0501
    half = re.search(r"It is at least half from C = ([\d,]+) on", seen["half"])
    assert_half(wide, half and int(half[1].replace(",", "")))


def assert_half(state, half):
    """The share is a half there, and is not at the multiple of the heads before; or nowhere."""

    def is_half(channels):
        costs = counts(state, channels, state["side"], state["stride"])
        return 2 * costs["stage I"] >= total(costs)

    heads = state["heads"]
    if half is None:
        assert not is_half(heads * 2**40)
    else:
        assert half % heads == 0 and is_half(half)
        assert half == heads or not is_half(half - heads)


def check_reading(seen, state, costs, factor):
    assert seen["lit"] == [state["stage"]] and state["stage"] not in seen["unlit"]
    stage = state["stage"]
    assert seen["reading"].startswith(stage.replace("stage", "Stage") + ":")
    if stage == "mix" and state["measure"] == "multiply-adds":
        assert "are not counted. It writes" in seen["reading"] and "%" not in seen["reading"]
    else:
        exact = re.search(r"([\d,]+) (numbers|parameters|multiply-adds)", seen["formula"])[1]
        assert int(exact.replace(",", "")) * factor == costs[stage]
        share = re.search(r": (< )?([\d.]+) % of ACmix", seen["reading"])
        assert (share is None) == (stage == "convolution")
        percent = 100 * costs[stage] / total(costs)
        if share and share[1]:
            assert 0 < percent < 0.0501 and share[2] == "0.1"
        elif share:
            assert abs(float(share[2]) - percent) <= 0.0501
            assert (share[2] == "0.0") == (percent == 0)
    heads = dividing(state["heads"], state["channels"])
    assert (f"counted are {heads}." in seen["heads"]) == (heads != state["heads"])
    copies = re.search(r"(\d+) cop\w+ of k and of v", seen["memo"])
    assert copies is None or int(copies[1]) == state["kernel_att"] ** 2
    assert (copies is not None) == (state["measure"] == "memory")


# ---- The tests -------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", FIELDS)
def test_every_slider(shown, measure):
    """By mouse and by keyboard; what is drawn changes, and is Python's every time."""
    seen = [check(shown.set(measure=measure))]
    sliders = ["channels", "heads", "kernel_att", "kernel_conv"]
    sliders += {"memory": ["side", "batch"], "multiply-adds": ["side"]}.get(measure, [])
    for name in sliders:
        for use in (shown.click_track, shown.press_one):
            use(name)
            seen.append(check(shown))
            silent = measure == "parameters" and name == "kernel_att"  # a window has no weights
            assert (seen[-1] == seen[-2]) == silent, name
    shown.root.get_by_role("button", name="Reset").click()
    assert check(shown.set(measure=measure)) == seen[0]


def test_lists(shown):
    seen = check(shown)
    assert not shown.control("batch").is_visible()
    shown.control("measure").select_option("memory")
    shown.page.evaluate(TWO_FRAMES)
    assert shown.control("batch").is_visible()
    full = counts(shown.state(), 64, 56, 1)
    check(shown)
    shown.control("precision").focus()
    shown.page.keyboard.press("ArrowDown")
    assert check(shown) != seen
    assert 2 * total(counts(shown.state(), 64, 56, 1)) == total(full)


@pytest.mark.parametrize(
    "state",
    [
        {"channels": 1, "heads": 64, "kernel_att": 1, "kernel_conv": 1, "side": 1, "stage": "mix"},
        {"channels": 4096, "heads": 64, "kernel_att": 31, "kernel_conv": 15, "side": 512,
         "batch": 1024, "measure": "memory", "stage": "attention"},
        {"channels": 1000, "heads": 7, "measure": "parameters", "stage": "position"},
        {"channels": 8, "heads": 8, "kernel_att": 1, "kernel_conv": 1, "side": 7, "stride": 8,
         "measure": "memory", "network": "ResNet-26", "stage": "convolution"},
        {"channels": 4093, "heads": 4, "side": 511, "stride": 3, "network": "ResNet-38",
         "stage": "shift and sum"},
    ],
)  # fmt: skip
def test_extremes(shown, state):
    check(shown.set(**state))


def test_blocks(shown):
    """Each network, each kind of block, by mouse and by keyboard."""
    for network in ("ResNet-26", "ResNet-38", "ResNet-50"):
        shown.root.get_by_role("button", name=network).click()
        check(shown)
    columns = shown.root.locator(".block")
    assert columns.count() == 16
    for n in (3, 4, 13, 15):
        columns.nth(n).focus()
        shown.page.keyboard.press("Enter") if n % 2 else columns.nth(n).click()
        _, *sizes = list(blocks_of(shown.state()))[n]
        assert [shown.state()[t] for t in ("channels", "side", "stride")] == sizes
        check(shown)


def test_stages_light_up(shown):
    """By hovering, by a click that stays, and by the keyboard."""
    page, segment = shown.page, shown.root.locator(".operator[data-operator=ACmix] .segment").nth
    segment(2).hover()
    assert shown.read()["lit"] == ["attention"] and shown.state()["stage"] == "stage I"
    assert shown.read()["reading"].startswith("attention:")
    page.mouse.move(0, 0)
    assert shown.read()["lit"] == ["stage I"]
    segment(4).click()
    page.mouse.move(0, 0)
    assert shown.read()["lit"] == ["shift and sum"] == [shown.state()["stage"]]
    for stage in ["convolution", *ALL]:
        shown.root.locator(f".chip[data-stage='{stage}']").focus()
        page.keyboard.press("Space")
        assert shown.state()["stage"] == stage
        check(shown)
    page.keyboard.press("Shift+Tab")
    assert shown.read()["lit"] == ["shift and sum"] and shown.state()["stage"] == "mix"
    page.evaluate("document.activeElement.blur()")
    assert shown.read()["lit"] == ["mix"]


def test_a_click_on_the_chart_chooses_the_channels(shown):
    chart = shown.root.locator(".widths svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    for channels in (8, 128, 1024, 2048):
        shown.page.mouse.click(box["x"] + max(min(along(channels), 99), 1) / 100 * box["width"],
                               box["y"] + box["height"] / 2)  # fmt: skip
        assert shown.state()["channels"] == channels
        check(shown)


def test_taps(phone, server):
    """On a phone a tap pins a stage, and the columns are wide enough for a finger."""
    phone.goto(f"{server}/{CHAPTER}")
    shown = Budget(phone)
    shown.root.locator(".operator[data-operator=ACmix] .segment").nth(2).tap()
    assert shown.read()["lit"] == ["attention"] == [shown.state()["stage"]]
    shown.root.locator(".block").nth(3).tap()
    assert shown.state()["stride"] == 2
    check(shown)
    for box in (block.bounding_box() for block in shown.root.locator(".block").all()):
        assert box["width"] >= 24 and box["height"] >= 24


def test_what_is_seen_is_what_is_said(open_page, server):
    """Lengths on the screen follow the styles, and each stage has one colour of its own."""
    page = open_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page.goto(f"{server}/{CHAPTER}")
    shown = Budget(page)
    seen = shown.root.evaluate("""(root) => [...root.querySelectorAll(".segment")].map((one) => {
      const { width, height } = one.getBoundingClientRect(), inBar = one.closest(".track");
      const around = one.parentElement, side = inBar ? "width" : "height";
      return [one.dataset.stage, getComputedStyle(one).background,
        inBar ? width / around.clientWidth : height / around.clientHeight,
        parseFloat(one.style[side]) / 100];
    })""")
    colours = {}
    for stage, colour, length, wanted in seen:
        assert length == pytest.approx(wanted, abs=0.02)
        assert colours.setdefault(stage, colour) == colour
    assert len(set(colours.values())) == len(colours) == 1 + len(ALL)


# ---- The formulas alone ----------------------------------------------------------------------

Size = namedtuple("Size", "channels heads side stride kernel_att kernel_conv")
FILES = ("kit.js", "budget.js")
RUN = """(cases) => cases.map(([measure, state]) => {
  const sizes = sizesOf(state), costs = Object.entries(costsOf(measure, sizes));
  return [Object.fromEntries(costs.map(([stage, cost]) => [stage, `${cost}`])),
    `${halfFrom(measure, sizes)}`];
})"""


def random_size(rng):
    return Size(rng.randint(1, 4096), rng.randint(1, 64), rng.randint(1, 512), rng.randint(1, 8),
                rng.randrange(1, 32, 2), rng.randrange(1, 16, 2))  # fmt: skip


@pytest.mark.parametrize("measure", FIELDS)
def test_formulas_equal_package(beside, measure):
    """Whole numbers, equal to the last digit; and where Stage I becomes half."""
    rng = random.Random(measure)
    sizes = [random_size(rng) for _ in range(200)]
    got = beside(FILES, RUN, [[measure, size._asdict()] for size in sizes])
    for size, (costs, half) in zip(sizes, got, strict=True):
        state = size._asdict() | {"measure": measure, "batch": 1, "precision": 1}
        wanted = counts(state, size.channels, size.side, size.stride)
        assert {stage: int(cost) for stage, cost in costs.items()} == wanted
        state["heads"] = dividing(size.heads, size.channels)
        assert_half(state, None if half == "undefined" else int(half))
