"""The walk explorer in the built book: every map, shape and number is what explain() returns."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
from alone import write_page
from shown import AMOUNT, SAID, SIGNED, TWO_FRAMES, Shown, colours, number, picture

from acmix_edu import ACmix
from acmix_edu.explorers import WalkExplorer
from acmix_edu.explorers.walk import STEPS

CHAPTER = "book/05_acmix.html"
SMALL = ("x", "q", "k", "v", "q_att", "k_att", "v_att", "pad_k", "pe", "unfold_k", "logits", "att",
         "out_att", "f_all", "f_conv", "out_conv", "out")  # fmt: skip
TERMS = {"out_att": "α Fatt", "out_conv": "+ β Fconv", "out": "= Fout"}  # of the mix
WINDOWED = ("unfold_k", "unfold_v", "unfold_pe", "logits", "att", "f_all", "f_conv")


# ---- What Python says must be drawn ----------------------------------------------------------


class Wanted:
    """What explain() returns, at the indices that a state chooses."""

    def __init__(self, explorer, pixel=None, offset=None):
        module, self.image = explorer._module, explorer._image
        self.module = module
        self.tensors = module.explain(self.image[None])
        self.step = STEPS[explorer.step - 1]
        self.pixel, offset = pixel or explorer.pixel, offset or explorer.offset
        n, e, heads = explorer.head, explorer.channel, module.head
        c, k, kc = n * module.head_dim + e, module.kernel_att, module.kernel_conv
        self.t, self.light = cell(offset, k, module.dilation), cell(offset, kc, 1)
        # the dimension that makes channel c of the convolution path
        self.group = group = c // heads
        own = slice(group * kc**2, (group + 1) * kc**2)
        self.at = {"x": (slice(3 if len(self.image) >= 3 else 1),), "pe": (e,),
                   **dict.fromkeys(("q", "k", "v", "out_att", "out_conv", "out"), (c,)),
                   **dict.fromkeys(("q_att", "k_att", "v_att", "pad_k", "pad_v"), (n, e)),
                   **dict.fromkeys(("unfold_k", "unfold_v"), (n, e, self.t)),
                   **dict.fromkeys(("logits", "att"), (n, self.t)), "unfold_pe": (e, self.t),
                   "f_all": (self.light, group), "f_conv": (own.start + self.light,)}  # fmt: skip
        self.windows = {**dict.fromkeys(("unfold_k", "unfold_v"), (n, e, slice(None))),
                        **dict.fromkeys(("logits", "att"), (n, slice(None))),
                        "unfold_pe": (e, slice(None)), "f_all": (slice(None), group),
                        "f_conv": (own,)}  # fmt: skip

    def map(self, name):
        return self.tensors[name][0][self.at[name]]

    def place(self, name):
        """Where the output pixel stands in a tensor."""
        if name.startswith(("unfold", "logits", "att", "out")):
            return self.pixel
        rim = self.module.dilation * (self.module.kernel_att // 2) * name.startswith("pad")
        return tuple(p * self.module.stride + rim for p in self.pixel)

    def window(self, name):
        i, j = self.place(name)
        values = self.tensors[name][0][(*self.windows[name], i, j)]
        return values.unflatten(0, (round(len(values) ** 0.5), -1))

    def cell(self, name):
        return self.light if name.startswith("f_") else self.t

    def drawings(self):
        made = {name: self.coloured(name, self.map(name)) for name in self.step.tensors}
        made |= {f"small_{name}": self.coloured(name, self.map(name)) for name in SMALL}
        shown = [name for name in self.step.tensors if name in WINDOWED]
        made |= self.light_layer() if "f_all" in shown else {}
        made |= self.mix() if "out" in self.step.tensors else {}
        return made | {f"{n}_window": self.coloured(n, self.window(n)) for n in shown}

    def light_layer(self):
        """The 3N pieces of the dimension in one scale, fc, and the maps that fc makes of them."""
        parts = [self.tensors[f"{name}_att"][0, :, self.group] for name in "qkv"]
        pieces, fc = torch.cat(parts), self.module.fc.weight[..., 0, 0]
        maps = torch.einsum("tm,mhw->thw", fc, pieces)
        torch.testing.assert_close(maps, self.tensors["f_all"][0, :, self.group])

        def alike(name, stack):
            end = max(stack.abs().max().item(), 1e-12)
            return {f"{name}_{n}": colours(one.numpy(), -end, end, SIGNED)
                    for n, one in enumerate(stack)}  # fmt: skip

        return alike("piece", pieces) | alike("light", maps) | {"fc": self.coloured("fc", fc)}

    def rates(self):
        """What the maps of the mix are multiplied by."""
        return dict(
            zip(TERMS, (self.module.rate1.item(), self.module.rate2.item(), 1), strict=True)
        )

    def mix(self):
        """Both paths, weighed, and their sum, in one scale."""
        terms = {name: (rate * self.map(name)).numpy() for name, rate in self.rates().items()}
        np.testing.assert_allclose(terms["out_att"] + terms["out_conv"], terms["out"], atol=1e-4)
        end = self.end_of_mix()
        return {name: colours(values, -end, end, SIGNED) for name, values in terms.items()}

    def end_of_mix(self):
        terms = [rate * self.map(name) for name, rate in self.rates().items()]
        return max(torch.stack(terms).abs().max().item(), 1e-12)

    def coloured(self, name, values):
        if name == "x":
            return picture(self.image.numpy())
        return colours(values.numpy(), *ends(name, values), AMOUNT if is_amount(name) else SIGNED)


def cell(offset, k, dilation):
    """The number of the cell of a k×k window that lies nearest to an offset."""
    place = [int(np.clip(np.floor(n / dilation + 0.5), -(k // 2), k // 2)) + k // 2 for n in offset]
    return place[0] * k + place[1]


def is_amount(name):
    return name in ("logits", "att")


def ends(name, values):
    """The ends of a map's colours."""
    low, high = values.min().item(), values.max().item()
    end = max(abs(low), abs(high), 1e-12)
    if name == "att":
        return 0, max(high, 1e-12)
    return (low, max(high, low + 1e-4 * end, low + 1e-12)) if name == "logits" else (-end, end)


def close(text, value):
    """Whether a number as the page writes it is the value: three digits, or three decimals."""
    return number(text) == pytest.approx(value, rel=0.055 if abs(value) < 1e-3 else 0.006, abs=6e-4)


# ---- What the page shows ---------------------------------------------------------------------

READ = (
    f"(root) => {{ {SAID}"
    + """
  const text = (node) => node.textContent;
  const all = (at, read) => [...root.querySelectorAll(at)].map(read);
  return {
    head: text(root.querySelector(".head")), formula: text(root.querySelector(".formula")),
    code: text(root.querySelector(".code code")), where: text(root.querySelector(".code p")),
    why: text(root.querySelector(".why")),
    blocks: all(".diagram button", (b) => [text(b.querySelector("b")),
      text(b.querySelector(".size")), b.getAttribute("aria-current")]),
    lit: all(".wires .lit", (w) => Number(w.dataset.to)),
    tables: all(".axes", (t) => [text(t.caption), ...[...t.rows].map((row) =>
      [...row.cells].map(text))]),
    sum: all(".sum", text), chosen: all(".weighed .chosen canvas", (c) => c.dataset.map),
    row: all(".weighed rect.here", (r) => ["y", "x", "height", "width"]
      .map((n) => Number(r.getAttribute(n)))),
    maps: Object.fromEntries(all(".shown .map", (m) => [m.querySelector("canvas").dataset.map,
      { title: text(m.querySelector(".title")), note: said(m.querySelector(".note")),
        marks: [...m.querySelectorAll("rect:not(.halo)")].map((r) => [r.getAttribute("class"),
          ...["y", "x", "height", "width"].map((n) => Number(r.getAttribute(n)))]) }])),
  };
}"""
)


def bare(text):
    """A text of the table without its signs for indices."""
    return re.sub(r"[_{}]", "", text)


# How far the shapes in the diagram's blocks reach beyond their blocks; nothing where it is hidden.
SHAPES = """(root) => [...root.querySelectorAll(".diagram .size")].map((size) => {
  const range = document.createRange(), block = size.closest("button").getBoundingClientRect();
  range.selectNodeContents(size.parentElement); // the step's name, and the shape below it
  const { right, bottom } = range.getBoundingClientRect();
  return size.checkVisibility() ? Math.max(right - block.right, bottom - block.bottom) : null;
})"""


class Walk(Shown):
    """The explorer on a page, and the same explorer in Python."""

    def __init__(self, page, explorer=None):
        super().__init__(page, "walk")
        self.explorer = explorer or WalkExplorer()

    def check(self, pixel=None, offset=None):
        """Compare canvases, texts, tables, notes and marks with Python."""
        self.follow()
        wanted = Wanted(self.explorer, pixel, offset)
        drawn, read = self.compare(wanted.drawings()), self.root.evaluate(READ)
        self.check_step(wanted, read)
        self.check_sum(wanted, read)
        for name, shown in read["maps"].items():
            check = self.check_term if "out" in wanted.step.tensors else self.check_map
            check(wanted, name, shown)
        return drawn

    def check_step(self, wanted, read):
        step, tensors = wanted.step, wanted.tensors
        n = self.explorer.step
        assert read["head"] == f"{n}. {step.title}: {bare(step.symbol)}"
        assert read["formula"] == bare(step.formula) and read["why"] == bare(step.why)
        assert read["code"] == "\n".join(step.code)
        assert read["where"].startswith(step.where.split(".", 1)[1])
        sizes = ["×".join(map(str, tensors[next(iter(s.tensors))].shape)) for s in STEPS]
        names = [f"{i} {s.title}" for i, s in enumerate(STEPS, 1)]
        current = ["step" if i == n else None for i in range(1, len(STEPS) + 1)]
        assert read["blocks"] == [list(row) for row in zip(names, sizes, current, strict=True)]
        assert set(read["lit"]) == ({n} if n not in (1, 5) else set())
        named = [name for caption, *_ in read["tables"] for name in caption.split(", ")]
        assert sorted(named) == sorted(step.tensors)
        for caption, axes, shape, _ in read["tables"]:
            for name in caption.split(", "):
                assert axes == [bare(axis) for axis in step.tensors[name].split()]
                assert shape == [str(size) for size in tensors[name].shape]

    def check_sum(self, wanted, read):
        """Below fc stands the chosen row as a sum; its row and its map are outlined."""
        if "f_all" not in wanted.step.tensors:
            assert read["sum"] == read["chosen"] == read["row"] == []
            return
        fc, heads, (text,) = wanted.module.fc.weight[..., 0, 0], wanted.module.head, read["sum"]
        left, right = text.split("  =  ")
        assert left == f"map {wanted.light}, dimension {wanted.group}"
        terms = re.findall(r"([−+]?) ?(\d\S*) ([qkv])(\d+)", right)
        assert [(name, int(n)) for *_, name, n in terms] == [
            (name, n) for name in "qkv" for n in range(heads)
        ]
        for (sign, size, *_), weight in zip(terms, fc[wanted.light].tolist(), strict=True):
            assert close(sign.replace("+", "") + size, weight)
        assert read["chosen"] == [f"light_{wanted.light}"]
        assert read["row"] == [[wanted.light, 0, 1, 3 * heads]]

    def check_map(self, wanted, shown_as, shown):
        """The title is an expression whose value is drawn; the note has its ends and a number."""
        name = shown_as.removesuffix("_window")
        windowed, place = shown_as != name, wanted.place(name)
        values = wanted.window(name) if windowed else wanted.map(name)
        evaluated = eval(shown["title"], {}, dict(wanted.tensors))
        torch.testing.assert_close(evaluated.flatten(), values.flatten(), rtol=0, atol=0)
        if name == "x":
            found = re.fullmatch(r"at \((\d+), (\d+)\): (.*)", shown["note"])
            assert (int(found[1]), int(found[2])) == place
            for text, value in zip(found[3].split(", "), values[:, *place], strict=True):
                assert close(text, value.item())
            return
        line, where = shown["note"].split("\n")
        low, high = re.fullmatch(r"scale: (\S+) to (\S+)", line).groups()
        for text, value in zip((low, high), ends(name, values), strict=True):
            assert close(text, value)
        label, said = where.split(": ")
        if windowed:
            k, n = len(values), wanted.cell(name)
            step = 1 if name.startswith("f_") else wanted.module.dilation
            far = [(m - k // 2) * step for m in divmod(n, k)]
            assert label.replace("−", "-") == f"offset ({far[0]}, {far[1]}), number {n}"
            assert close(said, values.flatten()[n].item())
            here = [*divmod(n, k), 1, 1]
        else:
            assert label == f"at ({place[0]}, {place[1]})"
            assert close(said, values[place].item())
            here = [*place, 1, 1]
        assert ["here", *here] in shown["marks"]

    def check_term(self, wanted, name, shown):
        """One of the three maps of the mix: what it is, the scale, the product at the pixel."""
        rate, value = wanted.rates()[name], wanted.map(name)[wanted.pixel].item()
        assert shown["title"] == TERMS[name]
        end, row, column, product = re.fullmatch(
            r"scale: −(\S+) to \1\nat \((\d+), (\d+)\): (.*)", shown["note"]
        ).groups()
        assert close(end, wanted.end_of_mix())
        assert (int(row), int(column)) == tuple(wanted.pixel)
        numbers = re.findall(r"[^\s·=]+", product)
        for text, number_there in zip(numbers, (rate, value, rate * value)[-len(numbers) :],
                                      strict=True):  # fmt: skip
            assert close(text, number_there)
        assert product.count("·") == product.count("=") == len(numbers) // 2 == int(rate != 1)
        assert ["here", *wanted.pixel, 1, 1] in shown["marks"]


@pytest.fixture
def walk(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Walk(page)


# ---- Steps -----------------------------------------------------------------------------------


def test_every_step_by_its_block(walk):
    for n in range(len(STEPS), 0, -1):
        walk.root.locator(".diagram button").nth(n - 1).click()
        assert walk.state()["step"] == n
        walk.check()


def test_steps_by_buttons_keys_and_play(walk):
    back, on = (walk.root.get_by_role("button", name=f"One step {way}") for way in ("back", "on"))
    on.click()
    on.click()
    assert walk.state()["step"] == 3
    back.click()
    assert walk.state()["step"] == 2
    walk.press_one("step")
    assert walk.state()["step"] == 3
    walk.root.locator(".diagram button").nth(8).focus()
    walk.page.keyboard.press("Enter")
    assert walk.state()["step"] == 9
    walk.check()
    walk.click_track("step")
    assert walk.state()["step"] < 9
    walk.control("step").press("End")
    walk.root.get_by_role("button", name="Play").click()  # from the start again
    assert walk.state()["step"] == 1
    walk.page.wait_for_timeout(2700)
    assert walk.state()["step"] == 2
    walk.root.locator(".diagram button").nth(4).click()  # stops it
    assert walk.root.get_by_role("button", name="Play").count() == 1


def test_the_mix_as_three_maps(walk):
    """In the order of the formula, also after the steps that show the first two alone."""
    for step in (9, 12, 13):
        walk.root.locator(".diagram button").nth(step - 1).click()
        walk.check()
    names = walk.root.locator(".shown .map canvas").evaluate_all(
        "(all) => all.map((canvas) => canvas.dataset.map)"
    )
    assert names == list(TERMS)
    walk.root.locator(".diagram button").nth(8).click()
    walk.check()


# ---- What is looked at -----------------------------------------------------------------------


def test_head_and_dimension(walk):
    walk.control("step").press("End")
    before = walk.check()
    for name, changed in (("head", "small_att"), ("channel", "small_q")):
        walk.click_track(name)
        drawn = walk.check()
        assert (drawn[changed] != before[changed]).any()
        assert (drawn["out"] != before["out"]).any()
        before = drawn
        walk.press_one(name)
        walk.check()


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_pixel_by_mouse_and_keys(walk, step):
    walk.root.locator(".diagram button").nth(step - 1).click()
    name, pinned = next(iter(STEPS[step - 1].tensors)), walk.explorer.pixel
    rim = 3 if name.startswith("pad") else 0
    walk.page.mouse.move(*walk.place(name, 30 + rim, 5 + rim))
    walk.check(pixel=(30, 5))
    walk.page.mouse.move(0, 0)
    walk.check(pixel=pinned)
    walk.page.mouse.click(*walk.place(name, 40 + rim, 20 + rim))
    walk.page.mouse.move(0, 0)
    assert walk.state()["pixel"] == [40, 20]
    walk.frame(name).focus()
    for key in ("Shift+ArrowDown", "ArrowDown", "ArrowUp", "Shift+ArrowDown", "ArrowLeft"):
        walk.page.keyboard.press(key)
    assert walk.state()["pixel"] == [47, 19] if step != 11 else True
    walk.check()


@pytest.mark.parametrize(("step", "k"), [(6, 7), (8, 7), (10, 3), (11, 3)])
def test_offset_by_mouse_and_keys(walk, step, k):
    walk.root.locator(".diagram button").nth(step - 1).click()
    name = f"{next(iter(STEPS[step - 1].tensors))}_window"
    pinned = walk.explorer.offset
    walk.page.mouse.move(*walk.place(name, 0, 1))
    walk.check(offset=(-(k // 2), 1 - k // 2))
    walk.page.mouse.move(0, 0)
    walk.check(offset=pinned)
    walk.page.mouse.click(*walk.place(name, k // 2, k // 2))
    walk.page.mouse.move(0, 0)
    before = walk.check()
    walk.page.mouse.click(*walk.place(name, k - 1, 0))
    walk.page.mouse.move(0, 0)
    assert walk.state()["offset"] == [k // 2, -(k // 2)]
    drawn = walk.check()
    changed = f"small_{name.removesuffix('_window')}"
    assert (drawn[changed] != before[changed]).any()
    walk.frame(name).focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowDown", "ArrowDown"):
        walk.page.keyboard.press(key)
    assert walk.state()["offset"] == [k // 2, 1 - k // 2]
    walk.check()


def test_a_row_of_fc_by_mouse_and_keys(walk):
    walk.root.locator(".diagram button").nth(9).click()
    pinned = walk.explorer.offset
    walk.page.mouse.move(*walk.place("fc", 6, 11))
    walk.check(offset=(1, -1))
    walk.page.mouse.move(0, 0)
    walk.check(offset=pinned)
    walk.page.mouse.click(*walk.place("fc", 1, 3))
    walk.page.mouse.move(0, 0)
    assert walk.state()["offset"] == [-1, 0]
    walk.page.mouse.click(*walk.place("light_8", 20, 20))
    walk.page.mouse.move(0, 0)
    assert walk.state()["offset"] == [1, 1]
    walk.check()
    walk.frame("fc").focus()
    for key, offset in (("ArrowUp", [1, 0]), ("ArrowLeft", [1, 0]), ("Shift+ArrowUp", [-1, 1]),
                        ("Shift+ArrowUp", [-1, -1]), ("ArrowDown", [-1, 0])):  # fmt: skip
        walk.page.keyboard.press(key)
        assert walk.state()["offset"] == offset
    walk.check()


def test_the_pieces_stand_above_their_weights_and_the_maps_beside(open_page, server):
    """The columns and rows of fc lead to its pieces and maps, on a phone, too."""
    page = open_page(viewport={"width": 320, "height": 800})
    page.goto(f"{server}/{CHAPTER}#walk:step=10")
    walk = Walk(page)
    boxes = walk.root.evaluate("""(root) => Object.fromEntries(
      [...root.querySelectorAll(".weighed canvas")].map((canvas) => {
        const { x, y, width, height } = canvas.getBoundingClientRect();
        return [canvas.dataset.map, [x, y, width, height]];
      }))""")
    left, top, width, height = boxes["fc"]
    for n in range(9):
        _, y, size, tall = boxes[f"light_{n}"]
        assert size > 16 and abs(y + tall / 2 - top - (n + 0.5) * height / 9) < 1.5
    for m in range(12):
        x, _, size, _ = boxes[f"piece_{m}"]
        assert size > 16 and abs(x + size / 2 - left - (m + 0.5) * width / 12) < 1.5


def test_a_large_offset_stands_for_the_edge(page, server):
    page.goto(f"{server}/{CHAPTER}#walk:step=7&offset=99,-99&pixel=0,47&head=3&channel=0")
    Walk(page).check()


def test_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    walk = Walk(phone)
    walk.root.locator(".diagram button").nth(7).tap()
    phone.touchscreen.tap(*walk.place("att", 3, 44))
    phone.touchscreen.tap(*walk.place("att_window", 6, 6))
    state = walk.state()
    assert (state["step"], state["pixel"], state["offset"]) == (8, [3, 44], [3, 3])
    walk.check()


def test_state_in_words(walk):
    walk.control("step").press("ArrowRight")
    wanted = "Step 2, Project: q, k, v; q 1 by 16 by 48 by 48, k 1 by 16 by 48 by 48, "
    walk.root.locator(".status").get_by_text(wanted).wait_for()


# ---- The reader's own modules ----------------------------------------------------------------


def randomised(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize(("arguments", "sides"), [
    (dict(in_planes=3, out_planes=6, head=2, kernel_att=5, kernel_conv=5, stride=2, dilation=2),
     (9, 13)),
    (dict(in_planes=1, out_planes=1, head=1, kernel_att=1, kernel_conv=1, stride=3), (1, 5)),
    (dict(in_planes=2, out_planes=6, head=3, kernel_att=3, dilation=4), (7, 5)),
])  # fmt: skip
def test_own_modules(page, tmp_path, arguments, sides):
    module = randomised(ACmix(**arguments), 1)
    explorer = WalkExplorer(module, torch.randn(arguments["in_planes"], *sides))
    page.goto(write_page(explorer, tmp_path / "page.html"))
    walk = Walk(page, explorer)
    for n in range(len(STEPS)):
        walk.root.locator(".diagram button").nth(n).click()
        walk.check()


FILES = ("engine.js", "kit.js", "walk.js")
RUN = """(cases) => cases.map((traits) => {
  const bytes = (list) => new Uint8Array(Float32Array.from(list).buffer);
  const model = { get: (name) =>
    (["image", "weights"].includes(name) ? bytes(traits[name]) : traits[name]) };
  const pass = readPass(model), at = lookAt(model, pass, traits.offset);
  const tensors = traits.table.flatMap((step) => step.tensors).slice(1);
  return tensors.map((tensor) => [expression(tensor, at, pass),
    [...valuesOf(pass, tensor, at)], ...(!hasWindows(tensor) ? [] : [
      expression(tensor, at, pass, [0, 0]),
      [...windowOf(pass, tensor, at, [0, 0])]])]);
})"""


def test_the_mathematics_on_random_modules(beside):
    """Every map of 100 random modules is the value of the expression above it."""
    rng, cases, explorers = random.Random(5), [], []
    for seed in range(100):
        heads = rng.randint(1, 3)
        module = randomised(ACmix(rng.randint(1, 4), heads * rng.randint(1, 3),
            rng.choice([1, 3, 5, 7]), heads, rng.choice([1, 3, 5]), rng.randint(1, 3),
            rng.randint(1, 3)), seed)  # fmt: skip
        image = torch.randn(module.in_planes, rng.randint(1, 8), rng.randint(1, 9))
        explorer = WalkExplorer(module, image)
        explorer.head, explorer.channel = rng.randrange(heads), rng.randrange(module.head_dim)
        explorer.offset = (rng.randint(-5, 5), rng.randint(-5, 5))
        explorers.append(explorer)
        cases.append({
            **explorer.state(), "table": explorer.table, "sizes": explorer.sizes,
            "places": explorer.places, "image": image.flatten().tolist(),
            "weights": np.frombuffer(explorer.weights, np.float32).tolist(),
        })  # fmt: skip
    for explorer, made in zip(explorers, beside(FILES, RUN, cases),
                              strict=True):  # fmt: skip
        tensors = explorer._module.explain(explorer._image[None])
        for texts in made:
            for text, values in zip(texts[::2], texts[1::2], strict=True):
                wanted = eval(text, {}, dict(tensors)).flatten()
                drawn = torch.tensor(values, dtype=torch.float32)
                torch.testing.assert_close(drawn, wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_a_step_is_seen_with_its_diagram(open_page, server, size):
    """On the first screen: the controls, all blocks, and the beginning of the step."""
    page = open_page(viewport=dict(zip(("width", "height"), size, strict=True)))
    page.goto(f"{server}/{CHAPTER}")
    walk = Walk(page)
    walk.root.evaluate("(root) => root.scrollIntoView()")
    page.evaluate(TWO_FRAMES)
    assert walk.root.locator(".formula").bounding_box()["y"] < size[1] - 20
    assert walk.root.locator(".diagram button").last.bounding_box()["y"] < size[1] - 20


def test_every_step_fits(open_page, server):
    page = open_page(viewport={"width": 320, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    walk = Walk(page)
    for n in range(len(STEPS)):
        walk.root.locator(".diagram button").nth(n).click()
        page.evaluate(TWO_FRAMES)
        inner, outer = walk.root.evaluate("(root) => [root.scrollWidth, root.clientWidth]")
        assert inner <= outer, f"{STEPS[n].title} is {inner - outer} px too wide"


@pytest.mark.parametrize("width", [1280, 768, 700, 390, 360, 320])
def test_every_block_says_its_name_and_its_shape(open_page, server, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    walk = Walk(page)
    beyond = walk.root.evaluate(SHAPES)
    assert len(beyond) == len(STEPS)
    assert all(by is not None and by <= 0 for by in beyond), beyond


@pytest.mark.parametrize("width", [1920, 1280, 768, 390])
def test_every_block_shows_its_map(open_page, server, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}")
    sides = (
        Walk(page)
        .root.locator(".diagram button")
        .evaluate_all("(all) => all.map((block) => block.querySelector('.frame').offsetWidth)")
    )
    assert len(sides) == len(STEPS) and min(sides) > 20


@pytest.mark.parametrize("width", [390, 1280])
def test_the_explanation_stands_between_the_formula_and_the_maps(open_page, server, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.goto(f"{server}/{CHAPTER}#walk:step=2")
    boxes = [Walk(page).root.locator(f".{name}").first.bounding_box()
             for name in ("formula", "why", "maps")]  # fmt: skip
    for above, below in itertools.pairwise(boxes):
        assert 0 <= below["y"] - above["y"] - above["height"] < 20
        assert above["x"] == below["x"]


@pytest.mark.parametrize("width", [768, 1280, 1920])
def test_every_step_is_as_high_as_the_others(open_page, server, width):
    """What stands below does not move while it plays, and a whole step is on the screen."""
    page = open_page(viewport={"width": width, "height": 900})
    page.goto(f"{server}/{CHAPTER}")
    walk, heights = Walk(page), []
    for n in range(len(STEPS)):
        walk.root.locator(".diagram button").nth(n).click()
        page.evaluate(TWO_FRAMES)
        heights.append(walk.root.bounding_box()["height"])
    assert max(heights) < min(790, min(heights) + 1), heights


def test_the_text_says_how_the_border_is_drawn(page, server):
    page.goto(f"{server}/{CHAPTER}#walk:step=4")
    walk = Walk(page)
    dashes = walk.root.locator("rect.edge").first.evaluate(
        "(line) => getComputedStyle(line).strokeDasharray"
    )
    on, off = map(float, re.findall(r"[\d.]+", dashes))
    kind = "dotted" if on < off else "dashed"
    assert f"The {kind} line is the border" in walk.root.locator(".why").inner_text()
