"""The lines that the chapters print: they fit beside the contents of a page, as their code does."""

import html
import re

import pytest
from test_pages import PAGES, ROOT

CHAPTERS = [name for name in PAGES if (ROOT / f"{name}.ipynb").exists()]


@pytest.mark.parametrize("name", CHAPTERS)
def test_lines_fit(built_book, name):
    """88 characters do (book.css says how); a longer line makes its box scroll sideways."""
    page = (built_book / f"{name}.html").read_text("utf-8")
    blocks = re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    lines = [html.unescape(re.sub(r"<[^>]+>", "", block)).splitlines() for block in blocks]
    assert sum(map(len, lines)) > 10, "this should have found the code of the chapter"
    assert [line for block in lines for line in block if len(line) > 88] == []
