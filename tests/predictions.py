"""The predictions that are made by choosing an option, as the cells of a notebook have them."""

import re
from collections.abc import Iterator

BOX = re.compile(r"^> \*\*Predict\.\*\*.*\n>\n> \*([^*\n]+)\*\Z", re.DOTALL | re.MULTILINE)


def predictions(cells: list[dict]) -> Iterator[tuple[list[str], int, dict]]:
    """Yield the options of each, which of the page's folds is the next, and the cell of that."""
    folds = [cell for cell in cells for _ in range(count_folds(cell))]
    for n, cell in enumerate(cells):
        if box := BOX.search("".join(cell["source"])):
            following = sum(map(count_folds, cells[: n + 1]))
            yield box[1].split(" · "), following, folds[following]


def count_folds(cell: dict) -> int:
    """Not those of code that no one is asked about."""
    if cell["cell_type"] == "markdown":
        return "".join(cell["source"]).count("<details>")
    return bool({"hide-cell", "hide-output"} & set(cell["metadata"].get("tags", [])))
