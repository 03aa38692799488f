"""What holds for every explorer of the built book, whatever it shows."""

import random
import re

import pytest
from playwright.sync_api import Error
from shown import TWO_FRAMES, Shown

from acmix_edu import explorers

PLACES = [  # every explorer, on the page that shows it
    ("book/index", "mixing"),
    ("book/01_convolution", "unfold"),
    ("book/02_shift", "shift"),
    ("book/03_depthwise", "kernel"),
    ("book/04_attention", "attention"),
    ("book/05_acmix", "mixing"),
    ("book/05_acmix", "walk"),
    ("book/05_acmix", "walk"),
    ("book/06_resnet", "budget"),
]
EVENTS = 300
USABLE = "input, select, button, [tabindex='0']"
OWN = ".own *"  # a picture of the reader's own cannot stand in an address
KEYS = ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Shift+ArrowRight",
        "Shift+ArrowUp", "Space", "PageUp", "PageDown")  # fmt: skip
EVERYWHERE = pytest.mark.parametrize(("path", "name"), PLACES)


def visit(page, address, name) -> Shown:
    page.goto(address)
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


def random_event(shown, rng) -> None:
    """Use something: a key on what has the focus, a click anywhere, a list's entry."""
    usable = shown.root.locator(f":is({USABLE}):not({OWN})")
    thing = usable.nth(rng.randrange(usable.count()))
    try:
        if not thing.is_visible() or not thing.is_enabled():
            return
        if thing.evaluate("(e) => e.tagName") == "SELECT":
            thing.select_option(index=rng.randrange(thing.locator("option").count()))
        elif rng.random() < 0.5:
            thing.focus()
            shown.page.keyboard.press(rng.choice(KEYS))
        else:
            box = thing.bounding_box()
            at = {"x": rng.random() * (box["width"] - 1), "y": rng.random() * (box["height"] - 1)}
            thing.click(position=at, force=True, timeout=2_000)
    except Error as error:
        if "detached" not in str(error):  # it was drawn again in the meantime
            raise


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
    start, markup = shown.state(), shown.markup()
    for _ in range(20):
        random_event(shown, rng)
    shown.root.get_by_role("button", name="Reset").click()
    settle(shown)
    assert shown.state() == start
    assert shown.markup() == markup
    assert f"#{name}:" not in page.url


@EVERYWHERE
@pytest.mark.parametrize("bad", ["", "nothing=1", "%3D;=&&", "{trait}=", "{trait}=9e99",
                                 "{trait}=NaN", "{trait}=x,y", "{trait}=1,2,3,4,5"])  # fmt: skip
def test_a_bad_address_does_no_harm(page, server, path, name, bad):
    fresh = visit(page, f"{server}/{path}.html", name)
    start = fresh.state()
    part = "&".join(bad.replace("{trait}", trait) for trait in start)
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
    unnamed = shown.root.evaluate(
        """(root, usable) => [...root.querySelectorAll(usable)].filter((node) => !(
          node.labels?.[0]?.textContent || node.getAttribute("aria-label") || node.textContent
        ).trim()).map((node) => node.outerHTML)""",
        USABLE,
    )
    assert unnamed == []


def test_links_in_the_text_set_an_explorer(open_page, server):
    """Every link leads to a state that differs from the start and is taken whole."""
    for path in sorted({path for path, _ in PLACES}):
        page = open_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{server}/{path}.html")
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
            assert {pair.split("=")[0] for pair in wanted.split("&")} <= set(changed)


def test_no_explorer_is_left_out():
    shown = {name for _, name in PLACES}
    widgets = [getattr(explorers, name) for name in explorers.__all__]
    widgets = [w for w in widgets if issubclass(w, explorers.explorer.Explorer)]
    assert {w.__name__.removesuffix("Explorer").lower() for w in widgets} == shown
