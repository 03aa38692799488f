"""The pages stay light, and what was cut from them is not missed."""

import html
import io
import re
import unicodedata

import pytest
from fontTools.ttLib import TTFont
from PIL import Image
from test_pages import EXTRA, PAGES, visit
from weight import weigh

KB = 1024
# Each icon that a page draws: its sign, and the family and weight of its font.
ICONS = """() => [...document.querySelectorAll("*")].flatMap(e => ["::before", "::after"].map(p => {
    const {content, fontFamily, fontWeight} = getComputedStyle(e, p);
    return [content.replaceAll('"', ""), fontFamily.replaceAll('"', ""), fontWeight];
})).filter(([content]) => /^[\\ue000-\\uf8ff]/.test(content))"""
FONTS = {
    ("Book Icons Free", "900"): "icons-solid-900",
    ("Book Icons Free", "400"): "icons-regular-400",
    ("Book Icons Brands", "400"): "icons-brands-400",
}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_light(page, server, name):
    weight = weigh(page, f"{server}/{name}.html")
    lazy = weight.pop("lazy")
    assert sum(weight.values()) <= 450 * KB, weight
    assert lazy <= 300 * KB, f"the figures weigh {lazy} bytes"


@pytest.mark.parametrize("name", PAGES + EXTRA)
def test_every_icon_has_its_sign_in_the_font(page, server, built_book, name):
    visit(page, f"{server}/{name}.html")
    icons = {tuple(icon) for icon in page.evaluate(ICONS)}
    assert icons, "there is no icon at all"
    for sign, family, weight in icons:
        assert ord(sign) in signs(built_book, FONTS[family, weight]), f"{sign!a} of {family}"


@pytest.mark.parametrize("name", PAGES)
def test_every_sign_of_the_formulas_is_in_their_font(built_book, name):
    page = (built_book / f"{name}.html").read_text("utf-8")
    formulas = " ".join(re.findall(r"<math.*?</math>", page, flags=re.DOTALL))
    drawn = set(map(ord, html.unescape(re.sub("<[^>]*>", "", formulas)))) - {ord(" ")}
    missing = drawn - signs(built_book, "math")
    assert not missing, [unicodedata.name(chr(sign)) for sign in missing]


def signs(book, name: str) -> set[int]:
    font = TTFont(io.BytesIO((book / f"_static/fonts/{name}.woff2").read_bytes()))
    return set(font.getBestCmap())


def test_formulas_are_drawn_with_their_font_and_no_script(open_page, server):
    page = open_page(java_script_enabled=False)
    page.goto(f"{server}/book/05_acmix.html")
    box = page.locator("math[display=block] mfrac").first.bounding_box()
    assert box["height"] > 30 and box["width"] > 50, box


def test_wide_formulas_scroll_in_their_own_box_with_the_keyboard(open_page, server):
    page = open_page(viewport={"width": 320, "height": 568})  # the smallest phone
    visit(page, f"{server}/book/api_stages.html")
    wide = page.locator("div.math[tabindex='0']")
    wide.first.wait_for()
    wide.first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")


def test_a_page_is_dark_before_any_script_comes(open_page, server):
    page = open_page(color_scheme="dark")
    page.route("**/*.js*", lambda route: route.fulfill(body=""))
    page.goto(f"{server}/book/glossary.html")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("name", PAGES)
def test_figures_wait_and_keep_their_place(built_book, name):
    page = (built_book / f"{name}.html").read_text("utf-8")
    for image in re.findall(r"<img [^>]*_images/[^>]*>", page):
        told = [int(n) for n in re.search(r'width="(\d+)" height="(\d+)"', image).groups()]
        assert 'loading="lazy"' in image
        file = built_book / "_images" / re.search(r'_images/([^"]+)', image)[1]
        if file.suffix == ".svg":
            assert 'viewBox="0 0 {} {}"'.format(*told) in file.read_text("utf-8")
            continue
        with Image.open(file) as figure:
            width, height = figure.size
        assert [width, height] == pytest.approx([2 * side for side in told], abs=1)  # 200 dpi
