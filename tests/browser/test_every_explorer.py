"""What holds for every explorer of the built book, whatever it shows."""

import random
import re

import numpy as np
import pytest
import torch
from alone import write_page
from shown import AMOUNT, SETTLED, SIGNED, TWO_FRAMES, Shown, colours

from acmix_edu import ACmix, explorers
from acmix_edu.explorers.loader import source

PLACES = [  # every explorer, on the page that shows it
    ("book/index", "mixing"),
    ("book/01_convolution", "unfold"),
    ("book/02_shift", "shift"),
    ("book/03_depthwise", "kernel"),
    ("book/03_depthwise", "grouped"),
    ("book/03_depthwise", "film"),
    ("book/04_attention", "attention"),
    ("book/05_acmix", "mixing"),
    ("book/05_acmix", "walk"),
    ("book/06_resnet", "budget"),
    ("book/07_fast", "halo"),
    ("book/08_kernel", "program"),
    ("book/09_training", "denoise"),
    ("book/10_convergence", "training"),
]
EVENTS = 300
USABLE = "input, select, button, [tabindex='0']"
OWN = ".own *"  # a picture of the reader's own cannot stand in an address
KEYS = ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Shift+ArrowRight",
        "Shift+ArrowUp", "Space", "PageUp", "PageDown")  # fmt: skip
ONLY_EXPLORERS = "body { pointer-events: none } .acmix-explorer { pointer-events: auto }"
EVERYWHERE = pytest.mark.parametrize(("path", "name"), PLACES)


def visit(page, address, name) -> Shown:
    """Open the page and start all its explorers: one that starts later would move the others.

    A click can come after the text has moved under it, and would follow a link in it: the text
    takes none.
    """
    page.goto(address)
    page.add_style_tag(content=ONLY_EXPLORERS)
    for place in page.locator("div.explorer").all():
        place.scroll_into_view_if_needed()
        place.locator(".acmix-explorer").wait_for()
    return Shown(page, name)


def settle(shown) -> None:
    """Stop what plays, take the pointer away, and wait until the address has followed."""
    pause = shown.root.get_by_role("button", name="Pause")
    for n in range(pause.count()):
        pause.nth(n).click()
    shown.page.mouse.move(0, 0)
    shown.page.evaluate("document.activeElement.blur()")
    shown.page.wait_for_timeout(400)
    shown.page.evaluate(TWO_FRAMES)


def assert_same(shown, other) -> None:
    assert shown.state() == other.state()
    drawn, wanted = shown.drawn(), other.drawn()
    assert set(drawn) == set(wanted)
    assert [n for n in drawn if drawn[n].tobytes() != wanted[n].tobytes()] == []
    assert shown.markup() == other.markup()


# Take the n-th thing that can be used: where to click it, or nothing where it cannot be; a list
# gets its entry at once, and what shall have a key gets the focus.
AIM = """(root, [usable, which, across, down, byKey]) => {
  const things = root.querySelectorAll(usable);
  const thing = things[Math.floor(which * things.length)];
  if (thing.disabled || !thing.checkVisibility()) return null;
  if (thing.tagName === "SELECT") {
    thing.selectedIndex = Math.floor(across * thing.length);
    thing.dispatchEvent(new Event("input", { bubbles: true }));
    return null;
  }
  thing.scrollIntoView({ block: "nearest" });
  if (byKey) thing.focus();
  const { left, top, width, height } = thing.getBoundingClientRect();
  return [left + across * width, Math.min(Math.max(top + down * height, 70), innerHeight - 2)];
}"""


def random_event(shown, rng) -> None:
    """Use something: a key on it, a click anywhere on it, a list's entry."""
    by_key = rng.random() < 0.5
    chance = [rng.random() for _ in range(3)]
    place = shown.root.evaluate(AIM, [f":is({USABLE}):not({OWN})", *chance, by_key])
    if place and by_key:
        shown.page.keyboard.press(rng.choice(KEYS))
    elif place:
        shown.page.mouse.click(*place)


@EVERYWHERE
def test_a_fresh_view_at_its_address_is_the_same(open_page, server, path, name):
    """After 300 random events: nothing in the console, and the address says all there is to see."""
    page = open_page(viewport={"width": 1280, "height": 900})
    shown, rng = visit(page, f"{server}/{path}.html", name), random.Random(name)
    for _ in range(EVENTS):
        random_event(shown, rng)
    settle(shown)
    fresh = open_page(viewport={"width": 1280, "height": 900})
    other = visit(fresh, page.url, name)
    settle(other)
    assert_same(shown, other)


@EVERYWHERE
def test_reset_leads_back(open_page, server, path, name):
    page = open_page(viewport={"width": 1280, "height": 900})
    shown, rng = visit(page, f"{server}/{path}.html", name), random.Random(name)
    start, markup, drawn = shown.state(), shown.markup(), shown.drawn()
    for _ in range(20):
        random_event(shown, rng)
    shown.root.get_by_role("button", name="Reset").click()
    settle(shown)
    assert shown.state() == start
    assert shown.markup() == markup
    assert all((levels == drawn[name]).all() for name, levels in shown.drawn().items())
    assert f"#{name}:" not in page.url


# Where everything is that is drawn, to a tenth of a pixel.
BOXES = """(root) => [...root.querySelectorAll("*")].map((node) => {
  const { x, y, width, height } = node.getBoundingClientRect();
  return [x, y, width, height].map((n) => Math.round(10 * n)).join(" ");
})"""


@EVERYWHERE
@pytest.mark.parametrize("width", [1280, 390])
def test_the_shared_style_may_come_again(open_page, server, path, name, width):
    """Every explorer brings it; that of a second one must not undo the rules of the first."""
    page = open_page(viewport={"width": width, "height": 900})
    shown = visit(page, f"{server}/{path}.html", name)
    settle(shown)
    before = shown.root.evaluate(BOXES)
    page.add_style_tag(content=source("explorer.css"))
    page.evaluate(TWO_FRAMES)
    assert shown.root.evaluate(BOXES) == before


BAD = ("", "nothing=1", "%3D;=&&", "{trait}=", "{trait}=9e99", "{trait}=NaN", "{trait}=x,y",
       "{trait}=1,2,3,4,5")  # fmt: skip


@EVERYWHERE
def test_a_bad_address_does_no_harm(page, server, path, name):
    shown = visit(page, f"{server}/{path}.html", name)
    start = shown.state()
    for bad in BAD:
        part = "&".join(bad.replace("{trait}", trait) for trait in start)
        page.evaluate("(hash) => (location.hash = hash)", f"#{name}:{part}")
        page.evaluate(TWO_FRAMES)
        assert shown.state() == start, f"{bad} changes the state"
    page.goto("about:blank")
    assert visit(page, f"{server}/{path}.html#{name}:{part}", name).state() == start


@EVERYWHERE
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits(open_page, server, path, name, theme):
    """Nothing scrolls sideways at any width, and every control has a name."""
    page = open_page(viewport={"width": 1280, "height": 800}, color_scheme=theme)
    shown = visit(page, f"{server}/{path}.html", name)
    for width in (1280, 700, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(TWO_FRAMES)
        inner, outer = shown.root.evaluate("(root) => [root.scrollWidth, root.clientWidth]")
        assert inner <= outer, f"{inner - outer} px too wide at {width} px"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = shown.root.evaluate(
        """(root, usable) => [...root.querySelectorAll(usable)].filter((node) => !(
          node.labels?.[0]?.textContent || node.getAttribute("aria-label") || node.textContent
        ).trim()).map((node) => node.outerHTML)""",
        USABLE,
    )
    assert unnamed == []


@EVERYWHERE
def test_fits_with_large_text(open_page, server, path, name):
    """Twice as large as usual, at widths of a desk, a tablet and a phone."""
    page = open_page(viewport={"width": 1280, "height": 800})
    shown = visit(page, f"{server}/{path}.html", name)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    for width in (1280, 640, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(TWO_FRAMES)
        inner, outer = shown.root.evaluate("(root) => [root.scrollWidth, root.clientWidth]")
        assert inner <= outer, f"{inner - outer} px too wide at {width} px"


# The labels of boxes that need a second line.
BROKEN = """(root) => [...root.querySelectorAll(".toggle span")].filter((label) =>
  label.offsetHeight > 1.5 * parseFloat(getComputedStyle(label).lineHeight))
  .map((label) => label.textContent)"""
# The sliders that a browser would fill from their end, though their zero is in the middle.
FILLED = """(root) => [...root.querySelectorAll("[type=range]")].filter((input) => input.min < 0
  && (input.min !== `-${input.max}` || getComputedStyle(input).appearance !== "none"))
  .map((input) => input.name)"""


@EVERYWHERE
def test_labels_and_sliders_on_a_desk(open_page, server, path, name):
    page = open_page(viewport={"width": 1280, "height": 800})
    root = visit(page, f"{server}/{path}.html", name).root
    assert root.evaluate(BROKEN) == []
    assert root.evaluate(FILLED) == []


# What can be touched and is smaller than 24 pixels, with what waits for its turn; a box that is
# ticked has the room of its label.
SMALL = """(root) => {
  for (const node of root.querySelectorAll("[hidden]")) node.hidden = false;
  return [...root.querySelectorAll("input, select, button, .file")].filter((node) => {
    const target = node.type === "checkbox" ? node.closest("label") : node;
    const { width, height } = target.getBoundingClientRect();
    return node.checkVisibility() && Math.min(width, height) < 24;
  }).map((node) => node.outerHTML.slice(0, 200));
}"""


@EVERYWHERE
@pytest.mark.parametrize("width", [390, 320])
def test_a_finger_finds_every_control(phone, server, path, name, width):
    phone.set_viewport_size({"width": width, "height": 640})
    assert visit(phone, f"{server}/{path}.html", name).root.evaluate(SMALL) == []


OPEN_ANSWERS = "document.querySelectorAll('main details').forEach((box) => (box.open = true))"


def test_links_in_the_text_set_an_explorer(open_page, server):
    """Every link leads to a state that differs from the start and is taken whole."""
    for path in sorted({path for path, _ in PLACES}):
        page = open_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{server}/{path}.html")
        page.evaluate(OPEN_ANSWERS)
        for link in page.locator("main a[href^='#'][href*=':']").all():
            name, wanted = re.fullmatch(r"#(\w+):(.*)", link.get_attribute("href")).groups()
            shown = Shown(page, name)
            shown.root.get_by_role("button", name="Reset").click()
            start = shown.state()
            link.click()
            page.evaluate(TWO_FRAMES)
            state = shown.state()
            changed = {t: state[t] for t in state if state[t] != start[t]}
            assert changed, f"{path}: {link.get_attribute('href')} changes nothing"
            for trait, value in (pair.split("=") for pair in wanted.split("&")):
                at_start = start[trait]
                if isinstance(at_start, list):  # of a place that the reader may have left
                    at_start = ",".join(map(str, at_start))
                assert trait in changed or str(at_start) == value


IN_WINDOW = """(root, traits) => {
  const aims = [...traits.map((trait) => `[data-aim~=${trait}]`), '[data-aim=""]'];
  const aim = aims.map((selector) => root.querySelector(selector)).find(Boolean);
  const { top, bottom } = (aim ?? root).getBoundingClientRect();
  const tall = !aim && root.offsetHeight > innerHeight - 64;
  const seen = top >= 63 && (tall || bottom <= innerHeight + 1);
  return seen || `from ${top} to ${bottom}, scrolled by ${scrollY}`;
}"""


# What lies under the way back, where the explorer ends in the window.
COVERED = """(root) => {
  const back = root.querySelector(".back"), box = back.getBoundingClientRect();
  if (back.hidden || root.getBoundingClientRect().bottom > innerHeight) return null;
  const parts = [...root.querySelectorAll("p:not(.status), .note, input, select, button, .frame")];
  return parts.filter((part) => part !== back && part.checkVisibility()).find((part) => {
    const { left, right, top, bottom } = part.getBoundingClientRect();
    return left < box.right && right > box.left && top < box.bottom && bottom > box.top;
  })?.outerHTML ?? null;
}"""


# What stands at the window's lower end beside the way back, while the explorer goes on below.
LOWER_END = """(root) => {
  const back = root.querySelector(".back"), { left, right, bottom } = root.getBoundingClientRect();
  if (back.hidden || bottom <= innerHeight) return [];
  const top = back.getBoundingClientRect().top + 1;
  return [left + 2, (left + right) / 2, right - 2].flatMap((x) => [top, innerHeight - 1].map((y) =>
    document.elementFromPoint(x, y))).filter((node) => !node.closest(".way-back"))
    .map((node) => node.outerHTML.slice(0, 200));
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_link_brings_what_it_sets_into_the_window(open_page, server, width):
    """The part that a link is about is seen whole; without one, as much as fits from the top."""
    for path in sorted({path for path, _ in PLACES}):
        page = open_page(viewport={"width": width, "height": 800})
        page.goto(f"{server}/{path}.html")
        page.evaluate(OPEN_ANSWERS)
        Shown(page, dict(PLACES)[path])  # all have started
        for link in page.locator("main a[href^='#'][href*=':']").all():
            href = link.get_attribute("href")
            name, pairs = re.fullmatch(r"#(\w+):(.*)", href).groups()
            root = page.locator(f".acmix-explorer.{name}")
            root.get_by_role("button", name="Reset").click()
            link.click()
            page.evaluate(SETTLED)
            traits = [pair.split("=")[0] for pair in pairs.split("&")]
            where = root.evaluate(IN_WINDOW, traits)
            assert where is True, f"{path}: {href} {where}"
            assert root.evaluate(COVERED) is None, f"{path}: {href}"
            assert width > 390 or root.evaluate(LOWER_END) == [], f"{path}: {href}"


LINK_IN_WINDOW = """(link) => {
  const { top, bottom } = link.getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_way_back_to_the_text(open_page, server, width):
    """A button leads back to the link that was followed, and so does the browser's own Back."""
    page = open_page(viewport={"width": width, "height": 600})
    page.goto(f"{server}/book/06_resnet.html")
    budget = Shown(page, "budget")
    first, second = page.locator("main a[href^='#budget:']").all()[:2]
    at_first = budget.state()
    first.click()
    page.evaluate(SETTLED)
    state = budget.state()
    back = budget.root.get_by_role("button", name="Back to the text")
    assert not first.evaluate(LINK_IN_WINDOW)
    back.click()
    page.evaluate(SETTLED)
    assert first.evaluate(LINK_IN_WINDOW)
    assert first.evaluate("(link) => link === document.activeElement")
    back.wait_for(state="hidden")
    second.click()
    page.evaluate(SETTLED)
    assert budget.state() != state and not second.evaluate(LINK_IN_WINDOW)
    page.go_back()
    page.evaluate(SETTLED)
    assert budget.state() == state and second.evaluate(LINK_IN_WINDOW)
    page.go_back()  # to an address that names no explorer
    page.evaluate(SETTLED)
    assert budget.state() == at_first
    page.go_forward()
    page.evaluate(SETTLED)
    assert budget.state() == state


TOP = "(node) => Math.round(node.getBoundingClientRect().top)"


def test_back_leads_to_the_line_where_the_link_was(page, server):
    """Though the link has made the explorer, above that line, twice as high."""
    page.goto(f"{server}/book/10_convergence.html")
    Shown(page, "training")
    page.evaluate(OPEN_ANSWERS)
    link = page.locator("main a[href*='arm=small-beta']")
    link.evaluate("(link) => link.scrollIntoView({ block: 'center', behavior: 'instant' })")
    page.evaluate(SETTLED)
    top = link.evaluate(TOP)
    link.click()
    page.wait_for_timeout(600)
    assert abs(link.evaluate(TOP) - top) > 100
    page.go_back()
    page.wait_for_timeout(600)
    assert abs(link.evaluate(TOP) - top) <= 2


def test_back_undoes_a_link_whatever_another_explorer_does(page, server):
    page.goto(f"{server}/book/03_depthwise.html")
    page.evaluate(OPEN_ANSWERS)
    grouped, film = Shown(page, "grouped"), Shown(page, "film")
    page.locator("main a[href='#grouped:dims=2']").click()
    film.click_track("moment")
    for go, dims in ((page.go_back, 1), (page.go_forward, 2), (page.go_back, 1)):
        page.wait_for_timeout(500)  # the address is written a little later
        go()
        page.wait_for_timeout(500)
        assert grouped.state()["dims"] == dims


def test_a_link_to_an_explorer_that_has_not_started(page, server):
    page.goto(f"{server}/book/05_acmix.html")
    page.evaluate(OPEN_ANSWERS)
    link = page.locator("main a[href='#mixing:preset=lost-init']")
    link.scroll_into_view_if_needed()
    mixing = page.locator(".acmix-explorer.mixing")
    assert mixing.count() == 0
    link.click()
    mixing.get_by_role("button", name="Back to the text").wait_for()
    assert mixing.evaluate("(root) => root.model.get('preset')") == "lost-init"
    page.wait_for_timeout(400)  # the address follows
    page.go_back()
    page.wait_for_timeout(400)
    assert mixing.evaluate("(root) => root.model.get('preset')") != "lost-init"
    assert link.evaluate(LINK_IN_WINDOW)


@pytest.mark.parametrize("again", ["reload", "another page and back", "reload at a section"])
def test_the_readers_place_is_kept(page, server, again):
    """What was set in an explorer comes back, and the window stays at the line that was read."""
    page.goto(f"{server}/book/06_resnet.html")
    budget = Shown(page, "budget")
    budget.click_track("channels")
    page.wait_for_timeout(500)
    state, place = budget.state(), page.locator("#exercises")
    place.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
    if "section" in again:
        page.locator("a[href='#exercises']").first.evaluate("(link) => link.click()")
        page.wait_for_timeout(500)
        assert page.url.endswith("#exercises")
    top = place.evaluate(TOP)
    if "back" in again:
        page.goto(f"{server}/book/glossary.html")
        page.go_back()
    else:
        page.reload()
    page.wait_for_timeout(1500)  # for what would scroll
    assert abs(place.evaluate(TOP) - top) <= 2
    assert Shown(page, "budget").state() == state
    budget.click_track("side")
    page.wait_for_timeout(500)
    assert "#budget:" in page.url and "exercises" not in page.url


def test_a_hidden_page_stops_the_player(page, tmp_path):
    page.goto(write_page(made("film"), tmp_path / "page.html"))
    play = Shown(page, "film").root.locator(".play")
    play.click()
    assert "Pause" in play.inner_text()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert "Play" in play.inner_text()


@pytest.mark.parametrize(
    "hash", ["#film:moment=5%", "#grouped:part=toString", "#film:cell=1e300,1"]
)
def test_a_broken_address_breaks_nothing(open_page, server, hash):
    page = open_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{server}/book/03_depthwise.html{hash}")
    for name in ("kernel", "grouped", "film"):
        shown = Shown(page, name)
        assert shown.state() == shown.root.evaluate("(root) => root.model.get('start')")


def test_no_explorer_is_left_out():
    shown = {name for _, name in PLACES}
    widgets = [getattr(explorers, name) for name in explorers.__all__]
    widgets = [w for w in widgets if issubclass(w, explorers.explorer.Explorer)]
    assert {w.__name__.removesuffix("Explorer").lower() for w in widgets} == shown


def made(name) -> explorers.explorer.Explorer:
    """An explorer by its name in the address, with names that are not in alphabetical order."""
    if name == "mixing":
        modules = {preset: ACmix(3, 8, head=2) for preset in ("two", "one")}
        return explorers.MixingExplorer(modules, torch.rand(3, 12, 12))
    return getattr(explorers, f"{name.capitalize()}Explorer")()


@pytest.mark.parametrize("name", sorted({name for _, name in PLACES}))
def test_the_page_holds_little(name):
    sent = [value for value in made(name).get_state().values() if isinstance(value, bytes)]
    assert sum(map(len, sent)) < (150_000 if name == "denoise" else 60_000)


@pytest.mark.parametrize("name", sorted({name for _, name in PLACES}))
def test_the_order_of_names_says_nothing(page, tmp_path, name):
    """A stored notebook has the names of its dicts sorted: the same must be drawn."""
    explorer, seen = made(name), []
    for sort_keys in (False, True):
        page.goto(write_page(explorer, tmp_path / "page.html", sort_keys=sort_keys))
        seen.append(Shown(page, name))
        seen[-1] = (seen[-1].drawn(), seen[-1].markup())
    (drawn, markup), (again, markup_again) = seen
    assert {n: d.tobytes() for n, d in drawn.items()} == {n: d.tobytes() for n, d in again.items()}
    assert markup == markup_again


def test_numbers_for_a_reader(beside):
    """Without a power of ten where larger ones stand beside them; "0" is zero and nothing else."""
    said = beside(["kit.js"], "(values) => values.map(figure)", [12.34, -1.07, 5.2e-7, -4e-4, 0])
    assert said == ["12.3", "−1.07", "0.000", "−0.000", "0"]
    said = beside(["kit.js"], "(values) => values.map(precise)", [12.34, 5.2e-7, -4e-4, 0])
    assert said == ["12.3", "5.2e−7", "−4.0e−4", "0"]


SCALE = """([low, high, stops, rooting]) => {
  const bar = scaleBar(low, high, { SIGNED, AMOUNT }[stops], rooting ? { curve: rooted } : {});
  document.body.append(bar);
  const ramp = bar.querySelector(".ramp");
  return [bar.ariaLabel ?? bar.textContent, ramp?.textContent, ramp?.style.background];
}"""


def test_the_bar_of_a_scale(beside):
    """Its ends, and the colour of every value between them, as the maps are drawn."""
    for low, high, name, stops, rooting in (
        (-0.5, 0.5, "SIGNED", SIGNED, False),
        (-2, 2, "SIGNED", SIGNED, True),
        (-3, 9, "AMOUNT", AMOUNT, False),
    ):
        heard, middle, background = beside(["kit.js"], SCALE, [low, high, name, rooting])
        ends = [f"{end:.2f}" if abs(end) >= 1 else f"{end:.3f}" for end in (low, high)]
        assert heard == "scale: " + " to ".join(ends).replace("-", "−")
        assert middle == ("0" if name == "SIGNED" else "")
        shown = np.array(re.findall(r"rgb\((\d+), (\d+), (\d+)\)", background), float)
        values = np.linspace(low, high, len(shown))
        root = (lambda v: np.sign(v) * np.abs(v) ** 0.5) if rooting else (lambda v: v)
        wanted = colours(root(values), root(low), root(high), stops)
        assert len(shown) > 30 and np.abs(shown - wanted[:, :3]).max() <= 1
    assert beside(["kit.js"], SCALE, [-1e-12, 1e-12, "SIGNED", False])[0] == "zero everywhere"
