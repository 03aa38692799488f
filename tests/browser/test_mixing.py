"""The mixing explorer in the built book: what is drawn is what Python computes for that state."""

import base64
import copy
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from shown import SETTLED, SIGNED, TWO_FRAMES, Shown, colours, number, picture
from test_training_explorer import IN_SIGHT

from acmix_edu import ACmix
from acmix_edu.examples import colour_features
from acmix_edu.explorers import MixingExplorer

CHAPTER, INDEX = "book/05_acmix.html", "index.html"
SLIDERS = ("alpha", "beta", "kernel_att", "dilation", "head", "channel")
KERNELS = ("kernel_att", "kernel_conv", "kernel_mix")
MAPS = ("f_att", "f_conv", "f_out")
# What is seen at first, and what `more` brings: maps and controls by name, how paragraphs begin.
FIRST = {"maps": {"picture", *KERNELS, "f_att", "f_conv", "f_out"},
         "controls": {"alpha", "beta", "head", "preset", "more"},
         "words": {"At row 13", "At every ", "Share of ", "Each kern"}}  # fmt: skip
MORE = {"maps": {"q", "k", "v"},
        "controls": {"channel", "kernel_att", "dilation", "kernel_conv"},
        "words": {"Stage I: ", "Kernels a", "Output ch"}}  # fmt: skip
# What must look different when a control has moved: a thumb that moves proves nothing.
CHANGES = {
    "preset": {"q", "k", "f_att", "f_out"},
    "alpha": {"f_out"},
    "beta": {"f_out"},
    "kernel_att": {"f_att", "f_out", "kernel_att"},
    "dilation": {"f_att", "f_out", "kernel_att"},
    "kernel_conv": {"f_conv", "f_out", "kernel_conv"},
    "head": {"f_att", "f_out", "kernel_att"},
    "channel": {"q", "k", "v", "f_att", "f_conv", "f_out"},
}


# ---- What Python says must be drawn ----------------------------------------------------------


def grey_kernels(module, x, pixel, channel):
    """What adds up to the effective kernel, summed over inputs; NaN where a path has no tap."""
    kernels = module.effective_kernels(x, *pixel)
    kernels["attention"] = module.rate1 * kernels["attention"]
    kernels["convolution"] = module.rate2 * kernels["convolution"]
    att, conv, mixed = (
        kernels[path][channel].sum(0).double().numpy()
        for path in ("attention", "convolution", "mix")
    )
    side = len(att)
    taps_att, taps_conv = np.zeros((side, side), bool), np.zeros((side, side), bool)
    reach, half = module.dilation * (module.kernel_att // 2), module.kernel_conv // 2
    middle = side // 2
    lattice = slice(middle - reach, middle + reach + 1, module.dilation)
    taps_att[lattice, lattice] = True
    taps_conv[middle - half : middle + half + 1, middle - half : middle + half + 1] = True
    return (
        np.where(taps_att, att, np.nan),
        np.where(taps_conv, conv, np.nan),
        np.where(taps_att | taps_conv, mixed, np.nan),
    )


def with_rates(module, alpha, beta):
    module = copy.deepcopy(module)
    with torch.no_grad():
        module.rate1.fill_(alpha), module.rate2.fill_(beta)
    return module


def drawings(explorer, pixel=None):
    """Every canvas by name, as Python computes it for the explorer's state."""
    module, x = explorer.current_module(), explorer.current_image()[None]
    pixel = explorer.pixel if pixel is None else pixel
    c = explorer.head * module.head_dim + explorer.channel
    seen = module.explain(x)
    made = {"picture": picture(x[0].numpy())}
    for name in ("q", "k", "v"):
        values = seen[name][0, c].numpy()
        end = max(np.abs(values).max(), 1e-12)  # a head may be zero everywhere
        made[name] = colours(values, -end, end, SIGNED)
    at_first = with_rates(module, *explorer.rates[explorer.preset])
    paths = summands(module, seen, c)
    end = max(map(largest, paths + summands(at_first, at_first.explain(x), c)))
    made |= {name: rooted(values, end) for name, values in zip(MAPS, paths, strict=True)}
    kernels, own = (grey_kernels(m, x, pixel, c) for m in (module, at_first))
    for name, kernel, first in zip(KERNELS, kernels, own, strict=True):
        end = largest(kernel) if name == "kernel_mix" else max(largest(kernel), largest(first))
        made[name] = rooted(kernel, end)
    return made


def summands(module, seen, channel):
    """Each path times its rate, and their sum, the output."""
    paths = module.rate1 * seen["out_att"], module.rate2 * seen["out_conv"], seen["out"]
    return [path[0, channel].numpy() for path in paths]


def largest(values):
    return max(np.nanmax(np.abs(values)), 1e-12)  # a rate may be zero


def rooted(values, end):
    """Colours by the square root of the size, from −end to end."""
    return colours(np.sign(values) * np.sqrt(np.abs(values)), -(end**0.5), end**0.5, SIGNED)


# ---- What the page draws ---------------------------------------------------------------------


class Mixing(Shown):
    """The mixing explorer on a page, and the same explorer in Python."""

    def __init__(self, page, number=0, explorer=None):
        super().__init__(page, "mixing", number)
        self.explorer = explorer or explorer_of(page)

    def follow(self):
        self.explorer.preset = self.state()["preset"]  # first: it brings its rates
        super().follow()

    def check(self, pixel=None):
        """Compare every canvas and the norm share with Python; return what is drawn."""
        drawn = self.compare(drawings(self.explorer, pixel))
        share = float(self.root.locator(".bar").get_attribute("data-share"))
        module = self.explorer.current_module()
        both = bool(module.rate1) or bool(module.rate2)
        if both:
            wanted_share = module.norm_share(self.explorer.current_image()[None]).item()
            assert share == pytest.approx(wanted_share, abs=1e-5)
        return drawn


def explorer_of(page):
    """Build the Python explorer from the module and the image that the page itself holds."""
    states = page.locator('script[type="application/vnd.jupyter.widget-state+json"]')
    models = {k: v for s in states.all_text_contents() for k, v in json.loads(s)["state"].items()}
    ours = [m for m in models.values() if "MixingExplorer" in m["state"].get("_anywidget_id", "")]
    entry = ours[0]
    state = entry["state"]
    for buffer in entry["buffers"]:
        state[buffer["path"][0]] = np.frombuffer(base64.b64decode(buffer["data"]), np.float32)
    sizes, start = state["sizes"], state["start"]

    def preset(places):
        module = ACmix(sizes["in_planes"], sizes["out_planes"], start["kernel_att"], sizes["heads"],
                       sizes["kernel_conv"], sizes["stride"], start["dilation"])  # fmt: skip
        module.load_state_dict({
            name: torch.tensor(state["weights"][slice(*places[name.replace(".", "_")])])
            .view_as(own) for name, own in module.state_dict().items()
        })  # fmt: skip
        return module

    modules = {name: preset(state["places"][name]) for name in state["rates"]}
    image = torch.tensor(state["image"]).view(-1, sizes["height"], sizes["width"])
    look = {name: start[name] for name in ("head", "channel", "pixel", "more")}
    return MixingExplorer(modules, image, **look)


def same(a, b):
    return a.shape == b.shape and bool((a == b).all())


@pytest.fixture(params=[f"http {CHAPTER}", f"file {CHAPTER}", f"http {INDEX}"])
def shown(request, page, server, built_book):
    scheme, path = request.param.split()
    page.goto(f"{server}/{path}" if scheme == "http" else (built_book / path).as_uri())
    return Mixing(page)


@pytest.fixture
def chapter(page, server):
    page.goto(f"{server}/{CHAPTER}")
    return Mixing(page)


# ---- Controls --------------------------------------------------------------------------------


def moved(shown, name, before):
    """Follow the page, see that something happened, and compare everything with Python."""
    old = getattr(shown.explorer, name)
    shown.follow()
    assert getattr(shown.explorer, name) != old, f"{name} has not moved"
    drawn = shown.check()
    for changed in CHANGES[name]:
        assert not same(drawn[changed], before[changed]), f"{changed} ignores {name}"
    return drawn


def test_first_drawing_and_every_control(shown):
    drawn = shown.check()
    shown.control("more").check()
    for name in SLIDERS:  # by mouse: a click on the track
        shown.click_track(name)
        drawn = moved(shown, name, drawn)
    shown.control("kernel_conv").select_option("5")
    drawn = moved(shown, "kernel_conv", drawn)
    shown.root.get_by_text("seeded, untrained weights").wait_for()
    for name in SLIDERS:  # by keyboard
        shown.press_one(name)
        drawn = moved(shown, name, drawn)
    shown.control("kernel_conv").focus()
    shown.page.keyboard.press("ArrowUp")
    drawn = moved(shown, "kernel_conv", drawn)
    for preset in ("trained", "hand-set"):
        shown.control("preset").select_option(preset)
        drawn = moved(shown, "preset", drawn)


def test_a_rate_makes_its_own_path_paler_and_leaves_the_other(chapter):
    first = chapter.drawn()
    chapter.control("alpha").fill("0.1")
    drawn = chapter.drawn()
    changed = {name for name in first if not same(first[name], drawn[name])}
    assert changed == {"kernel_att", "f_att", "kernel_mix", "f_out"}
    assert drawn["f_att"].sum() > first["f_att"].sum()  # nearer to white
    chapter.control("alpha").fill("0")
    drawn = chapter.drawn()
    middle = (slice(2, 5), slice(2, 5))  # what the convolution reads
    assert same(drawn["kernel_mix"][middle], drawn["kernel_conv"][middle])


SEEN = """(root) => {
  const list = (of, say) =>
    [...root.querySelectorAll(of)].filter((node) => node.checkVisibility()).map(say);
  return { maps: list("[data-map]", (map) => map.dataset.map),
    controls: list("[name]", (input) => input.name),
    words: list("p:not([role], .own *)", (p) => p.textContent.slice(0, 9)) };
}"""


def seen(shown):
    shown.page.evaluate(SETTLED)
    return {kind: set(names) for kind, names in shown.root.evaluate(SEEN).items()}


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_what_is_folded_opens_and_closes(page, server, way):
    page.goto(f"{server}/{INDEX}")
    shown = Mixing(page)
    label = shown.root.get_by_text("More: q, k, v, channel, window, dilation, kernel")
    both = {kind: FIRST[kind] | MORE[kind] for kind in FIRST}

    def turn():
        label.click() if way == "mouse" else shown.control("more").press("Space")

    assert seen(shown) == FIRST
    turn()
    assert seen(shown) == both and shown.state()["more"] is True
    page.keyboard.press("Tab")  # from the box to the first of what it has opened
    assert page.evaluate("document.activeElement.name") == "channel"
    turn()
    assert seen(shown) == FIRST and shown.state()["more"] is False
    turn()
    shown.root.get_by_role("button", name="Reset").click()
    assert seen(shown) == FIRST


def test_a_link_opens_what_it_speaks_of(phone, server):
    """On a phone, where not all of the explorer is in sight."""
    phone.goto(f"{server}/{INDEX}")
    shown = Mixing(phone)
    phone.locator("main a[href='#mixing:more=true']").tap()
    phone.evaluate(SETTLED)
    assert shown.state()["more"] is True
    assert all(shown.frame(name).evaluate(IN_SIGHT) for name in "qkv")


def test_a_link_leaves_the_chosen_pixel(page, server):
    """Unless it names one; the address holds the pixel, and so does the browser's own Back."""
    page.goto(f"{server}/{INDEX}")
    shown = Mixing(page)
    start = shown.state()
    page.mouse.click(*shown.place("picture", 23, 20))
    page.locator("main a[href='#mixing:beta=0']").click()
    page.wait_for_timeout(400)  # the address follows
    assert shown.state() == {**start, "beta": 0, "pixel": [23, 20]}
    assert "pixel=23,20" in page.url
    page.go_back()
    page.evaluate(SETTLED)
    assert shown.state() == {**start, "pixel": [23, 20]}
    page.go_forward()
    page.evaluate(SETTLED)
    assert shown.state() == {**start, "beta": 0, "pixel": [23, 20]}
    page.locator("main a[href*='preset=trained']").click()
    page.evaluate(SETTLED)
    assert shown.state()["pixel"] == [13, 12]
    page.mouse.click(*shown.place("picture", 5, 5))
    shown.root.get_by_role("button", name="Reset").click()
    assert shown.state() == start


def test_a_rate_that_is_nearly_zero_has_no_sign(page, server):
    page.goto(f"{server}/book/05_acmix.html#mixing:alpha=-0.001&beta=-0.006")
    control = Shown(page, "mixing").control
    said = [control(name).get_attribute("aria-valuetext") for name in ("alpha", "beta")]
    assert said == ["0.00", "−0.01"]


def test_chapter_5_starts_open(chapter):
    assert chapter.state()["more"] is True and MORE["maps"] <= seen(chapter)["maps"]
    chapter.control("more").press("Space")
    assert not MORE["maps"] & seen(chapter)["maps"]


def test_extremes(chapter):
    """The ends of every slider, and kernels that are larger than they are useful."""
    for state in (
        {"kernel_att": "Home", "dilation": "End", "alpha": "Home"},
        {"kernel_att": "End", "dilation": "End", "beta": "End"},
        {"kernel_att": "End", "dilation": "Home", "head": "End", "channel": "End"},
    ):
        for name, key in state.items():
            chapter.control(name).focus()
            chapter.page.keyboard.press(key)
        chapter.follow()
        chapter.check()
    for kernel in ("1", "7"):
        chapter.control("kernel_conv").select_option(kernel)
        chapter.follow()
        chapter.check()


# ---- Pixels ----------------------------------------------------------------------------------


def test_point_and_pin_by_mouse(shown):
    pinned = shown.explorer.pixel
    shown.control("more").check()
    for name, pixel in (("picture", (5, 7)), ("v", (20, 3)), ("f_out", (0, 0))):
        shown.page.mouse.move(*shown.place(name, *pixel))
        shown.check(pixel)
    shown.page.mouse.move(0, 0)
    shown.check(pinned)
    shown.page.mouse.click(*shown.place("picture", 9, 30))
    shown.page.mouse.move(0, 0)
    shown.explorer.pixel = (9, 30)
    shown.check()


def test_pin_by_tap_on_a_phone(phone, server):
    phone.goto(f"{server}/{CHAPTER}")
    shown = Mixing(phone)
    for name, pixel in (("picture", (2, 44)), ("f_conv", (31, 11))):
        phone.touchscreen.tap(*shown.place(name, *pixel))
        shown.explorer.pixel = pixel
        shown.check()


def test_move_by_arrow_keys(shown):
    row, column = shown.explorer.pixel
    shown.frame("picture").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowDown", "ArrowUp", "ArrowLeft"):
        shown.page.keyboard.press(key)
    shown.explorer.pixel = (row + 5, column + 1)
    shown.check()
    for _ in range(12):  # it stops at the border
        shown.page.keyboard.press("Shift+ArrowLeft")
    shown.explorer.pixel = (row + 5, 0)
    shown.check()


def test_numbers_of_a_kernel_cell(chapter):
    """The value at the pointed or steered offset is written below each kernel."""
    module, x = chapter.explorer.current_module(), chapter.explorer.current_image()[None]
    c = chapter.explorer.head * module.head_dim + chapter.explorer.channel
    kernels = grey_kernels(module, x, chapter.explorer.pixel, c)

    def says(row, column):
        chapter.page.evaluate(TWO_FRAMES)
        for name, kernel in zip(KERNELS, kernels, strict=True):
            note = chapter.root.locator(f'.map:has(canvas[data-map="{name}"]) .note').inner_text()
            low, high, said = re.match(r"(.*) to (.*)\n(?:\(.*\)|itself): (.*)", note).groups()
            middle = len(kernel) // 2
            assert number(low) == pytest.approx(np.nanmin(kernel), rel=0.06, abs=6e-4)
            assert number(high) == pytest.approx(np.nanmax(kernel), rel=0.06, abs=6e-4)
            value = kernel[middle + row, middle + column]
            assert (
                said == "–"
                if np.isnan(value)
                else number(said) == pytest.approx(value, rel=0.06, abs=6e-4)
            )

    says(0, 0)
    middle = len(kernels[0]) // 2
    chapter.page.mouse.move(*chapter.place("kernel_att", middle - 1, middle + 1))
    says(-1, 1)
    chapter.page.mouse.move(0, 0)
    says(0, 0)  # only clicking makes it stay
    chapter.page.mouse.click(*chapter.place("kernel_att", middle - 1, middle + 1))
    chapter.page.mouse.move(0, 0)
    says(-1, 1)
    chapter.frame("kernel_mix").focus()
    chapter.page.keyboard.press("ArrowLeft")
    chapter.page.keyboard.press("ArrowUp")
    says(-2, 0)


def test_state_in_words(chapter):
    """The status line says the pixel, the entropy and the share that Python computes."""
    chapter.frame("picture").focus()
    chapter.page.keyboard.press("ArrowDown")
    row, column = chapter.explorer.pixel
    chapter.explorer.pixel = (row + 1, column)
    status = chapter.root.locator(".status")
    status.get_by_text(f"Pixel row {row + 1}, column {column}").wait_for()
    module, x = chapter.explorer.current_module(), chapter.explorer.current_image()[None]
    window = module.explain(x)["att"][0, chapter.explorer.head, :, row + 1, column]
    said = status.inner_text()
    fraction = entropy_of(window)
    shown = re.search(r"entropy (\S+)", chapter.note("kernel_att"))[1]
    for entropy in (re.search(r"entropy (\S+) of", said)[1], shown):
        assert number(entropy) == pytest.approx(fraction, abs=6e-4)
    assert f"attention {100 * module.norm_share(x).item():.0f} %" in said


def entropy_of(window):
    return (-torch.special.xlogy(window, window).sum() / np.log(len(window))).item()


# ---- The page --------------------------------------------------------------------------------


def test_same_model_shown_twice(page, server, built_book):
    """Two views of one model move together; one can be used with the mouse on the other."""
    html = (built_book / CHAPTER).read_text(encoding="utf-8")
    *_, view = re.findall(  # the page's last explorer is this one
        r'<script type="application/vnd.jupyter.widget-view\+json">.*?</script>', html, re.DOTALL
    )
    twice = html.replace(view, f"{view}</div><div>{view}", 1)
    page.route(f"**/{CHAPTER}", lambda route: route.fulfill(body=twice, content_type="text/html"))
    page.goto(f"{server}/{CHAPTER}")
    first, second = Mixing(page, 0), Mixing(page, 1)
    first.control("alpha").focus()
    page.keyboard.press("End")
    page.mouse.click(*second.place("picture", 3, 4))
    page.mouse.move(0, 0)
    for shown in (first, second):
        shown.follow()
        shown.explorer.pixel = (3, 4)
        assert shown.explorer.alpha == float(shown.control("alpha").get_attribute("max"))
        shown.check()


# ---- The walk along the edges ----------------------------------------------------------------

FASTER = (
    "{ const real = setTimeout; setTimeout = (call, ms, ...rest) => real(call, ms / 5, ...rest); }"
)
NOTE = """({ model }) => {
  const save = model.save_changes;
  window.noted = [];
  model.save_changes = () => {
    noted.push(["pixel", "alpha", "beta"].map((trait) => model.get(trait)));
    save.call(model);
  };
}"""


def button(shown, name):
    return shown.root.get_by_role("button", name=name, exact=True)


def test_the_walk_plays_and_goes_back(page, server):
    page.add_init_script(FASTER)
    page.goto(f"{server}/{INDEX}")
    shown = Mixing(page)
    shown.control("alpha").fill("1")
    page.mouse.click(*shown.place("picture", 3, 4))
    before = shown.state()
    shown.root.evaluate(NOTE)
    button(shown, "Along the edges").click()
    button(shown, "Stop").wait_for()
    button(shown, "Along the edges").wait_for()
    way = shown.explorer.sizes["edges"]
    walked = [[pixel, 0.5, 0.5] for pixel in way]  # with the weights' own rates
    assert page.evaluate("noted") == [
        *walked, [way[-1], 0.5, 0], [way[-1], 0, 0.5], [[3, 4], 1, 0.5]
    ]  # fmt: skip
    assert shown.state() == before


STOPS = {
    "tap": lambda shown: shown.page.touchscreen.tap(*shown.place("picture", 2, 44)),
    "mouse": lambda shown: shown.page.mouse.move(*shown.place("picture", 2, 44)),
    "key": lambda shown: shown.frame("picture").press("ArrowRight"),
    "slider": lambda shown: shown.control("head").press("ArrowRight"),
    "again": lambda shown: button(shown, "Stop").press("Enter"),
    "reset": lambda shown: button(shown, "Reset").click(),
    "hide": lambda shown: shown.page.evaluate(
        "document.dispatchEvent(new Event('visibilitychange'))"
    ),
}


@pytest.mark.parametrize("use", STOPS.values(), ids=STOPS)
def test_any_use_stops_the_walk(phone, server, use):
    phone.goto(f"{server}/{INDEX}")
    shown = Mixing(phone)
    button(shown, "Along the edges").press("Enter")
    button(shown, "Stop").wait_for()
    use(shown)
    button(shown, "Along the edges").wait_for(timeout=4000)  # the walk takes nine seconds
    left = shown.state()
    phone.wait_for_timeout(700)
    assert shown.state() == left


# ---- A picture of the reader's own -----------------------------------------------------------

IMAGE = """(root) => {
  const { buffer, byteOffset, byteLength } = root.model.get("image");
  return Array.from(new Uint8Array(buffer, byteOffset, byteLength));
}"""
DROP = """(frame, bytes) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(bytes)], "own.png", { type: "image/png" }));
  const at = { bubbles: true, cancelable: true };
  frame.dispatchEvent(new DragEvent("drop", { ...at, dataTransfer: carried }));
}"""
PASTE = DROP.replace('new DragEvent("drop", { ...at, dataTransfer', 'new ClipboardEvent("paste", { '
                     "...at, clipboardData")  # fmt: skip


@pytest.fixture
def png():
    """A picture of 96×192: red left, blue right; its middle square is half red, half blue."""
    pixels = np.zeros((96, 192, 3), np.uint8)
    pixels[:, :96, 0], pixels[:, 96:, 2] = 255, 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def follow_picture(shown):
    """Take over the page's picture, compare all that is drawn, return it as colours."""
    shown.page.mouse.move(0, 0)
    shown.page.wait_for_timeout(100)
    shown.explorer.image = bytes(shown.root.evaluate(IMAGE))
    shown.follow()
    shown.check()
    image = shown.explorer.current_image()
    torch.testing.assert_close(image, colour_features(image[:3] + 0.5))
    return image[:3] + 0.5


@pytest.mark.parametrize("way", ["open", "drop", "paste"])
def test_own_picture(chapter, png, way):
    first = chapter.drawn()
    if way == "open":
        file = {"name": "own.png", "mimeType": "image/png", "buffer": png}
        chapter.root.get_by_label("A picture file").set_input_files(file)
        chapter.root.get_by_text("Your picture own.png").wait_for()
    else:
        chapter.frame("picture").focus()
        chapter.frame("picture").evaluate(DROP if way == "drop" else PASTE, list(png))
        chapter.root.get_by_text("Your picture own.png").wait_for()
    assert not button(chapter, "Along the edges").is_visible()  # they are another picture's
    colours = follow_picture(chapter)
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    torch.testing.assert_close(colours[:, 5, 4], red)
    torch.testing.assert_close(colours[:, 40, 44], blue)
    chapter.root.get_by_role("button", name="Reset").click()
    assert button(chapter, "Along the edges").is_visible()
    again = chapter.drawn()
    assert all(same(again[name], first[name]) for name in first)


def test_a_file_that_is_no_picture(chapter):
    before = chapter.drawn()
    file = {"name": "own.png", "mimeType": "image/png", "buffer": b"nonsense"}
    chapter.root.get_by_label("A picture file").set_input_files(file)
    chapter.root.get_by_text("cannot read that file").wait_for()
    after = chapter.drawn()
    assert all(same(after[name], before[name]) for name in before)


def test_draw(chapter):
    """By pointer, and by the arrow keys and the space bar; the colour is the chosen one."""
    page = chapter.page
    chapter.root.get_by_label("Colour to draw").fill("#00ff00")
    chapter.root.get_by_role("button", name="Draw").click()
    page.mouse.move(*chapter.place("picture", 6, 7))
    page.mouse.down()
    page.mouse.move(*chapter.place("picture", 6, 10), steps=8)
    page.mouse.up()
    colours = follow_picture(chapter)
    green = torch.tensor([0, 1.0, 0])
    torch.testing.assert_close(colours[:, 6, 6:12], green[:, None].expand(3, 6))
    assert not torch.allclose(colours[:, 4, 8], green)
    chapter.frame("picture").focus()
    page.keyboard.press("Shift+ArrowDown")
    row, column = chapter.state()["pixel"]
    page.keyboard.press("Space")
    torch.testing.assert_close(follow_picture(chapter)[:, row, column], green)
    chapter.root.get_by_role("button", name="Draw").click()
    before = chapter.drawn()
    page.mouse.click(*chapter.place("picture", 30, 30))
    page.mouse.move(0, 0)
    assert same(chapter.drawn()["picture"], before["picture"])
