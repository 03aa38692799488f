"""Write an explorer as a page of its own, run by the book's host script, without the book.

By hand, to look at one while writing it:
    python tests/browser/alone.py "BudgetExplorer()" page.html
"""

import json
import sys
from pathlib import Path

from ipywidgets.embed import embed_data

ROOT = Path(__file__).resolve().parents[2]
KIND = "application/vnd.jupyter.widget"


def write_page(explorer, path, sort_keys: bool = False) -> str:
    """Return the page's address."""
    data = embed_data(views=[explorer], drop_defaults=False)
    parts = [(f"{KIND}-state+json", data["manager_state"])]
    parts += [(f"{KIND}-view+json", view) for view in data["view_specs"]]
    scripts = "".join(script(kind, value, sort_keys) for kind, value in parts)
    host = (ROOT / "book" / "_static" / "host.js").read_text(encoding="utf-8")
    Path(path).write_text(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width"><title>An explorer</title>'
        f"<body style='font-family: sans-serif'>{scripts}"
        f"<script>{host}</script></body></html>",
        encoding="utf-8",
    )
    return Path(path).resolve().as_uri()


def script(kind: str, value: dict, sort_keys: bool) -> str:
    text = json.dumps(value, sort_keys=sort_keys).replace("</", r"<\/")
    return f'<div><script type="{kind}">{text}</script></div>'


if __name__ == "__main__":
    import torch

    import acmix_edu
    from acmix_edu import examples, explorers

    expression, path = sys.argv[1:]
    names = {"torch": torch, **vars(acmix_edu), **vars(examples), **vars(explorers)}
    write_page(eval(expression, names), path)
