"""The exercises that are answered on the page, each rightly and wrongly, by mouse and keyboard."""

import json
from pathlib import Path

import pytest
from answers import CASES, UNREADABLE

from acmix_edu.exercises import _form, _Unanswered

SENTENCE = "Not answered yet: replace the three dots."
ROOT = Path(__file__).resolve().parents[2]
# For each chapter, what is right and what a reader might well think.
ANSWERS = {
    "01_convolution": [
        ("(2, 25, 32, 20, 30)", "2, 32, 25, 20, 30"),
        ("15", "12.0"),
        ("6", "3"),
    ],
    "02_shift": [("(1, 3)", "3, 1")],
    "03_depthwise": [("2, -1", "(4, 1)"), ("512*9*9, 512*9", "41472, 512")],
    "04_attention": [("1/2", "7/49"), ("20", "49"), ("17", "16")],
    "05_acmix": [
        ("40300", "1900"),
        ("False, True, False, True, False, False", "False, True, False, False, False, False"),
    ],
    "06_resnet": [("[256, 512]", "512")],
    "07_fast": [("15", "14"), ("1, 3, 1", "2, 1, 2"), ("9", "10")],
    "08_kernel": [("512/49", "128/49"), ("29/16", "2.75")],
    "09_training": [
        ("False, False, True", "True, False, True"),
        ("2.83", "1.68"),
        ("0.245", "0.4"),
    ],
    "10_convergence": [("1/6", "0.2"), ("1/4, 8", "1/8, 7")],
    "11_ledger": list(zip("baacbcb", "abbacba", strict=True)),
}


@pytest.mark.parametrize("chapter", ANSWERS)
def test_every_answer_is_judged(page, server, chapter):
    page.goto(f"{server}/book/{chapter}.html")
    forms = page.locator("form.exercise")
    assert forms.count() == len(ANSWERS[chapter]) == unanswered(chapter) - left_to_jupyter(page)
    names = [form.get_attribute("aria-label") for form in forms.all()]
    numbers = [int(name.removeprefix("Exercise ")) for name in names]
    assert numbers == sorted(set(numbers)), "a form has another's name"
    for form, (right, wrong) in zip(forms.all(), ANSWERS[chapter], strict=True):
        assert form.get_by_role("status").inner_text() == ""
        for answer in (click_answer, type_answer):
            answer(page, form, wrong)
            said = form.get_by_role("status").inner_text()
            assert said.startswith("✗ Not yet. ") and len(said) > 20, f"{wrong}: {said}"
            answer(page, form, right)
            assert form.get_by_role("status").inner_text() == "✓ Right.", right


def unanswered(chapter: str) -> int:
    """How many cells of a chapter wait for an answer."""
    cells = json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text("utf-8"))["cells"]
    return sum("= ...\n" in c + "\n" or "= ...  #" in c for c in map(code, cells))


def code(cell: dict) -> str:
    return "".join(cell["source"]) if cell["cell_type"] == "code" else ""


def left_to_jupyter(page) -> int:
    """How many exercises take code: a link leads to where they can be answered."""
    links = page.locator("p.in-colab a").all()
    stem = page.url.rsplit("/", 1)[-1].removesuffix(".html")
    assert all(link.get_attribute("href").endswith(f"/book/{stem}.ipynb") for link in links)
    assert page.get_by_text(SENTENCE).count() == 0
    return len(links)


def click_answer(page, form, answer):
    """With the mouse, but for what is typed."""
    if form.get_by_role("radio").count():
        form.get_by_role("radio", name=answer, exact=True).click()
    else:
        form.get_by_role("textbox", name="Your answer: ").click()
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(answer)
    assert form.get_by_role("status").inner_text() == "", "what was said of another answer"
    form.get_by_role("button", name="Check").click()


def type_answer(page, form, answer):
    """With the keyboard alone: from the button back to the field, and Enter there."""
    form.get_by_role("button").focus()
    page.keyboard.press("Shift+Tab")
    for _ in range(form.get_by_role("radio").count()):
        if page.evaluate("document.activeElement.value") != answer:
            page.keyboard.press("ArrowRight")
    if not form.get_by_role("radio").count():
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(answer)
    assert form.get_by_role("status").inner_text() == ""
    page.keyboard.press("Enter")


@pytest.fixture
def judge(page):
    """Answer exercises that are in no chapter: `judge(typed, expected)` returns what is said."""

    def judge(typed, expected, **options):
        sentence = _Unanswered(_form(expected, "Think.", 0.0, ()))._repr_html_()
        page.set_content(sentence)
        page.add_script_tag(path=ROOT / "book" / "_static" / "book.js")
        page.get_by_role("textbox").fill(typed)
        page.get_by_role("textbox").press("Enter")
        return page.get_by_role("status").inner_text()

    return judge


def test_the_page_judges_as_check_does(judge):
    for typed, _, expected, right in CASES:
        said = "✓ Right." if right else "✗ Not yet. Think."
        assert judge(typed, expected) == said, f"{typed!r} for {expected!r}"


def test_what_cannot_be_read_is_not_called_wrong(judge):
    for typed, expected, asked in UNREADABLE:
        assert judge(typed, expected).startswith(asked), f"{typed!r} for {expected!r}"


def test_no_letter_is_no_answer(page, server):
    page.goto(f"{server}/book/11_ledger.html")
    form = page.locator("form.exercise").first
    form.get_by_role("button").click()
    assert form.get_by_role("status").inner_text() == "Choose one."


def test_from_a_file_an_answer_is_judged_and_forgotten(page, built_book):
    page.goto((built_book / "book" / "02_shift.html").as_uri())
    form = page.locator("form.exercise")
    type_answer(page, form, "1, 3")
    assert form.get_by_role("status").inner_text() == "✓ Right."
    assert page.url.endswith("02_shift.html")
    page.reload()
    assert form.get_by_role("textbox").input_value() == ""
    assert "3" not in json.dumps(page.evaluate("[{...localStorage}, {...sessionStorage}]"))


def test_controls_are_high_enough_and_fit(open_page, server):
    page = open_page(viewport={"width": 320, "height": 640})
    for chapter in ("05_acmix", "11_ledger"):
        page.goto(f"{server}/book/{chapter}.html")
        for control in page.locator("form.exercise :is(label, button)").all():
            box = control.bounding_box()
            assert box["height"] >= 24 and 0 <= box["x"] and box["x"] + box["width"] <= 320


def test_without_javascript_the_sentence_stays(open_page, server):
    page = open_page(java_script_enabled=False)
    page.goto(f"{server}/book/02_shift.html")
    assert page.get_by_text(SENTENCE).count() == unanswered("02_shift") == 5
