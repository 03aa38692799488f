"""Every page of the built book, as a reader's browser meets it."""

import json
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from shown import START_ALL

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
PAGES = [TOC["root"]] + [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
EXTRA = ["search", "genindex"]
AXE = {"preload": False, "resultTypes": ["violations"]}  # fetch nothing, report no passes
WIDE = """() => [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && e.checkVisibility())
    .slice(0, 3).map(e => e.outerHTML.slice(0, 120))"""

OPEN_ALL = "() => document.querySelectorAll('main details').forEach((fold) => (fold.open = true))"

# The boxes of code that scroll sideways.
OVERFULL = """() => [...document.querySelectorAll("pre")]
    .filter(box => box.scrollWidth > box.clientWidth).map(box => box.textContent.slice(0, 200))"""

STRETCHED = """async () => {
  const images = [...document.querySelectorAll("main img")];
  images.forEach((image) => (image.loading = "eager"));
  await Promise.all(images.map((image) => image.decode()));
  return images.filter(({ width, height, naturalWidth, naturalHeight }) =>
    width && Math.abs(1 - (naturalWidth / naturalHeight) / (width / height)) > 0.03)
    .map((image) => image.outerHTML);
}"""


def visit(page, address: str) -> None:
    """Open a page and wait until its explorers stand."""
    page.goto(address, wait_until="load")
    page.evaluate(START_ALL)
    page.wait_for_function("() => !document.querySelector('.explorer-message')")
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")


@pytest.mark.parametrize("name", PAGES + EXTRA)
def test_page_is_accessible_narrow_and_silent(open_page, server, name):
    page = open_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    visit(page, f"{server}/{name}.html")
    assert page.locator("main img:not([alt]), main img[alt='']").count() == 0
    if name in PAGES:
        assert page.locator("meta[name=description]").first.get_attribute("content")
    assert page.locator("h1").count() >= 1
    page.evaluate(OPEN_ALL)
    for mode in ("light", "dark"):
        page.emulate_media(color_scheme=mode)
        page.wait_for_function("mode => document.documentElement.dataset.theme === mode", arg=mode)
        assert_accessible(page, mode)
    page.set_viewport_size({"width": 1265, "height": 800})  # 1280 less a scrollbar
    assert page.evaluate(OVERFULL) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("() => scrollTo(500, 0)")
    scrolled = page.evaluate("() => scrollX")
    assert scrolled == 0, f"scrolls sideways at 390 px; too wide: {page.evaluate(WIDE)}"
    assert_accessible(page, "390 px", but="color-contrast")
    assert page.evaluate(STRETCHED) == []


def test_every_symbol_is_told_on_a_phone(phone, server):
    """What the glossary's table has in five columns stands below each other, in the window."""
    phone.goto(f"{server}/book/glossary.html")
    for width in (390, 320):
        phone.set_viewport_size({"width": width, "height": 640})
        rows = phone.locator("#symbols tbody tr")
        assert rows.count() > 15
        for row in rows.all():
            cells = [cell.bounding_box() for cell in row.locator("td").all()]
            assert len(cells) == 5 and all(cells), row.inner_text()
            assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in cells)
        table = phone.locator("#symbols table")
        assert table.evaluate("(box) => box.scrollWidth <= box.clientWidth + 1")


PRINTED = """() => [...document.querySelectorAll(".output.stream pre")].map((box) => {
  for (let fold = box; (fold = fold.closest("details:not([open])")); fold.open = true);
  const text = box.textContent.replace(/^\\n+|\\n+$/g, "");
  return [text, box.scrollWidth > box.clientWidth, getComputedStyle(box).whiteSpace];
})"""


@pytest.mark.parametrize("name", PAGES)
def test_on_a_phone_printed_sentences_break_and_tables_scroll(phone, server, name):
    phone.goto(f"{server}/{name}.html")
    for text, scrolls, space in phone.evaluate(PRINTED):
        if "\n" in text and "  " in text:
            assert space == "pre", text
        else:
            assert not scrolls, text


def assert_accessible(page, mode: str, but: str = "region") -> None:
    """Let axe-core look for all but one rule (`region`, the logo, is a moderate finding)."""
    options = AXE | {"rules": {but: {"enabled": False}}}
    found = Axe().run(page, options=options).response["violations"]
    grave = [
        f"{mode}: {v['id']} ({v['impact']}): {node['html'][:200]} {node['failureSummary']}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"][:3]
    ]
    assert not grave, "\n".join(grave)


def test_pages_from_a_file_are_as_good(open_page, built_book):
    for name in ("book/index", "book/05_acmix"):
        visit(open_page(), (built_book / f"{name}.html").as_uri())


def test_the_root_leads_to_the_first_page(page, server):
    page.goto(f"{server}/")
    page.wait_for_url(f"**/{TOC['root']}.html")


def test_the_first_page_leads_on(page, server):
    """By a button above the explorer, in the first window."""
    page.goto(f"{server}/book/index.html")
    link = page.get_by_role("link", name="Begin with chapter 1")
    assert link.evaluate("(link) => getComputedStyle(link).display") == "inline-block"
    assert link.bounding_box()["y"] < page.locator(".explorer").first.bounding_box()["y"] < 720
    link.click()
    page.wait_for_url("**/01_convolution.html")


@pytest.mark.parametrize("name", ["01_convolution", "02_shift"])
def test_a_picture_is_in_a_phones_first_window(phone, server, name):
    phone.goto(f"{server}/book/{name}.html")
    visible = phone.locator(".acmix-explorer .frame").first.bounding_box()
    assert visible["y"] + visible["height"] / 2 < 844


def test_theme_button_switches_to_dark_and_back(page, server):
    page.emulate_media(color_scheme="light")
    visit(page, f"{server}/{TOC['root']}.html")
    seen = set()
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2, seen


def test_the_magnifier_lies_beside_what_is_typed(page, server):
    page.goto(f"{server}/book/index.html")
    page.keyboard.press("ControlOrMeta+k")
    page.locator("dialog input[type=search]").wait_for()
    icon, field = (page.locator(f"dialog {part}").bounding_box() for part in ("i", "input"))
    assert icon["x"] + icon["width"] <= field["x"]


def test_in_the_dark_drawings_are_turned_over_and_maps_are_not(open_page, server):
    page = open_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    for name, drawn in (("index", 1), ("03_depthwise", 2), ("05_acmix", 0)):
        page.goto(f"{server}/book/{name}.html")
        filters = page.locator(".bd-article img").evaluate_all(
            "(images) => images.map((image) => getComputedStyle(image).filter)"
        )
        assert sum("invert" in how for how in filters) == drawn, (name, filters)


def test_what_a_cell_shows_keeps_its_distance(page, server):
    page.goto(f"{server}/book/03_depthwise.html")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    shown = page.locator(".cell_output > .output:has(+ img)")
    assert shown.count() > 1
    for printed in shown.all():
        box, image = printed.bounding_box(), printed.locator("+ img").bounding_box()
        assert image["y"] - box["y"] - box["height"] > 8


def test_search_finds_a_word(page, server):
    page.goto(f"{server}/search.html?q=shift")
    page.locator("#search-results li a[href*='02_shift']").first.wait_for()


def test_skip_link_takes_the_keyboard_to_the_main_content(page, server):
    page.goto(f"{server}/{TOC['root']}.html")
    page.keyboard.press("Tab")
    assert "Skip to main content" in page.evaluate("() => document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('#main-content, main') !== null")


def test_without_javascript_an_explorer_says_so(open_page, server):
    page = open_page(java_script_enabled=False)
    page.goto(f"{server}/book/05_acmix.html")
    page.locator(".explorer-message").first.wait_for(state="visible")


def test_on_paper_there_are_no_holes(page, server):
    """To print, every explorer starts; one that is not there yet takes the room of a line."""
    page.goto(f"{server}/book/05_acmix.html")
    waiting = page.locator(".explorer:has(> .explorer-message)")
    page.emulate_media(media="print")
    heights = [place.bounding_box()["height"] for place in waiting.all()]
    assert heights and max(heights) < 40, heights
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for place in page.locator("div.explorer").all():
        place.locator(".acmix-explorer").wait_for()


def test_launch_buttons_open_notebooks_that_exist(built_book):
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    repository, branch = config["repository"]["url"], config["repository"]["branch"]
    start = repository.replace("https://github.com", "https://colab.research.google.com/github")
    for notebook in sorted((ROOT / "book").glob("*.ipynb")):
        html = (built_book / "book" / f"{notebook.stem}.html").read_text("utf-8")
        assert f'href="{start}/blob/{branch}/book/{notebook.name}"' in html
        assert f'href="{repository}"' in html
        assert 'class="executed"' in html


ANSWERS = """() => [...document.querySelectorAll("main details.hide")]
  .filter((box) => box.querySelector("summary").textContent.includes("Show the answer"))
  .map((box) => [box.open, [...box.querySelectorAll("div > p:last-child, :scope > p")].length])"""


def test_answers_are_closed_with_what_is_said_of_them(page, server):
    """A paragraph right after an answer would give it away: it is folded with the answer."""
    for name in PAGES:
        notebook = ROOT / f"{name}.ipynb"
        if not notebook.exists():
            continue
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        prompts = [c["metadata"].get("mystnb", {}).get("code_prompt_show") for c in cells]
        asked = [n for n, prompt in enumerate(prompts) if prompt == "Show the answer"]
        spoken = [cells[n + 1]["cell_type"] == "markdown" and cells[n + 1]["source"][0][0] != "#"
                  for n in asked]  # fmt: skip
        page.goto(f"{server}/{name}.html")
        assert page.evaluate(ANSWERS) == [[False, int(said)] for said in spoken]


RAW = """() => {
  const article = document.querySelector(".bd-article").cloneNode(true);
  for (const element of article.querySelectorAll("pre, code, math, .sig")) element.remove();
  return article.textContent.match(/(?<![A-Za-z_])[A-Za-z]_[A-Za-z]{1,4}(?![A-Za-z_])|hapter 0/g);
}"""


def test_docstrings_lead_to_their_chapters_and_lower_their_indices(page, server):
    for name in (name for name in PAGES if "/api" in name):
        page.goto(f"{server}/{name}.html")
        assert page.evaluate(RAW) is None
    page.goto(f"{server}/book/api.html")
    assert page.locator(".bd-article sub").count() > 0
    page.get_by_role("link", name="Chapter 5").click()
    page.wait_for_url("**/05_acmix.html")
