"""The predictions that are made by choosing an option, as the cells of a notebook have them."""

import re
from collections.abc import Iterator

BOX = re.compile(r"^> \*\*Predict\.\*\*.*\n>\n> \*([^*\n]+)\*\Z", re.DOTALL | re.MULTILINE)
IN_WORDS = "<details>\n<summary>The answer in words</summary>\n"  # below a folded answer of code


def predictions(cells: list[dict]) -> Iterator[tuple[list[str], int, dict, list[str]]]:
    """Yield the options, which of the page's folds is the next, its cell, and what is true."""
    folds = [n for n, cell in enumerate(cells) for _ in range(count_folds(cell))]
    for n, cell in enumerate(cells):
        if box := BOX.search("".join(cell["source"])):
            following = sum(map(count_folds, cells[: n + 1]))
            options, answer = box[1].split(" · "), folds[following]
            yield options, following, cells[answer], true_ones(options, cells[answer:])


def count_folds(cell: dict) -> int:
    """Not those of code that no one is asked about, nor words that the page puts into another."""
    if cell["cell_type"] == "markdown":
        source = "".join(cell["source"])
        return source.count("<details>") - source.startswith(IN_WORDS)
    return bool({"hide-cell", "hide-output"} & set(cell["metadata"].get("tags", [])))


def true_ones(options: list[str], cells: list[dict]) -> list[str]:
    """Return the options with which the answer begins: in its fold, or below its folded code."""
    if cells[0]["cell_type"] == "markdown":
        text = "".join(cells[0]["source"]).partition("</summary>")[2]
    else:
        text = "".join(cells[1]["source"]).removeprefix(IN_WORDS)
    text = re.sub("[*`]", "", text).strip()
    return [o for o in options if re.match(re.escape(o) + "[.,:;]", text, re.IGNORECASE)]
