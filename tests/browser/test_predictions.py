"""The predictions that are made on the page: a choice, by mouse or keyboard, opens the answer."""

import json
from pathlib import Path

import pytest
from predictions import predictions
from test_pages import visit

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[01]*.ipynb"))
# The folds of a page, code aside: which are open, and what stands above each of these.
OPEN = """() => [...document.querySelectorAll("main details:not(.explorer *)")]
  .filter((fold) => !fold.closest(".tag_hide-input"))
  .map((fold, n) => [n, fold.open, fold.previousElementSibling])
  .filter(([, open]) => open)
  .map(([n, , above]) => [n, above.getAttribute("role"), above.innerText])"""
NEAR_THE_TOP = "(node) => Math.abs(node.getBoundingClientRect().top - 220) < 180"
CLOSE = "() => document.querySelectorAll('main details').forEach((fold) => (fold.open = false))"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_choice_opens_the_next_answer_and_says_whether_it_is_right(page, server, chapter):
    visit(page, f"{server}/book/{chapter.stem}.html")
    told = list(predictions(json.loads(chapter.read_text("utf-8"))["cells"]))
    groups = page.get_by_role("group", name="Your prediction").all()
    names = [group.get_by_role("button").all_inner_texts() for group in groups]
    assert names == [options for options, *_ in told]
    for group, (options, answer, _, true) in zip(groups, told, strict=True):
        for n, option in enumerate(options):
            aim = (point, tab)[n % 2]
            page.evaluate(CLOSE)
            choose = aim(page, group, option)
            place = group.bounding_box()
            choose()
            judged = "✓ Right." if [option] == true else "✗ Not so."
            assert page.evaluate(OPEN) == [[answer, "status", f"You said: {option}. {judged}"]]
            assert group.locator("[aria-pressed=true]").get_attribute("data-mark") == judged[0]
            assert group.locator("[aria-pressed=true]").all_inner_texts() == [option]
            assert page.evaluate("() => document.activeElement.innerText") == option
            assert abs(group.bounding_box()["y"] - place["y"]) < 1, "the page has moved"


def test_a_link_leads_to_an_answer_that_an_explorer_stands_before(page, server):
    visit(page, f"{server}/book/01_convolution.html")
    links = page.get_by_role("link", name="The answer", exact=True)
    assert links.count() == 0  # nothing is chosen yet
    for group in page.get_by_role("group", name="Your prediction").all()[:2]:
        group.get_by_role("button").first.click()
    links.click()  # one: the answer to the second follows at once
    said = page.get_by_text("You said: 5th. ✗ Not so.")
    page.wait_for_function(NEAR_THE_TOP, arg=said.element_handle())
    assert page.get_by_text("It vanishes with the sixth map").is_visible()


def point(page, group, option):
    """With the mouse: scroll to a button and point at it; return what clicks, and never scrolls."""
    group.get_by_role("button", name=option, exact=True).hover()
    return lambda: (page.mouse.down(), page.mouse.up())


def tab(page, group, option):
    """With the keyboard alone: from the first button to that one; return what presses it."""
    group.get_by_role("button").first.focus()
    while page.evaluate("() => document.activeElement.innerText") != option:
        page.keyboard.press("Tab")
    return lambda: page.keyboard.press("Space")


def test_options_are_high_enough_and_fit(open_page, server):
    page = open_page(viewport={"width": 320, "height": 640})
    boxes = "(buttons) => buttons.map((button) => button.getBoundingClientRect().toJSON())"
    for chapter in CHAPTERS:
        page.goto(f"{server}/book/{chapter.stem}.html")
        for box in page.locator(".options button").evaluate_all(boxes):
            assert box["height"] >= 24 and 0 <= box["left"] and box["right"] <= 320


def test_on_paper_and_without_javascript_options_are_text(open_page, page, server):
    page.goto(f"{server}/book/02_shift.html")
    page.emulate_media(media="print")
    style = "(button) => [getComputedStyle(button).borderTopWidth, button.innerText]"
    first = page.get_by_role("group", name="Your prediction").first.get_by_role("button").first
    assert first.evaluate(style) == ["0px", "34 and 34"]
    plain = open_page(java_script_enabled=False)
    plain.goto(page.url)
    assert plain.get_by_text("34 and 34 · 34 and 61").is_visible()
    assert plain.get_by_role("group", name="Your prediction").count() == 0
