"""What the book's pages carry, and what they do not.

Left out: thebe (its script needs a kernel elsewhere), fontawesome.js (1.5 MB; the style sheet has
the icons), the search index but on the page that searches, and the script of tabs where there are
none. Added: a place for each explorer, a mark on what is printed in sentences, and a line that says
what a page was executed with. Moved: what is said about an answer, into the answer; folded code,
below the explorer that it makes.
"""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from docutils import nodes

VIEW = "application/vnd.jupyter.widget-view+json"


def setup(app):
    app.connect("config-inited", drop_thebe)
    app.connect("doctree-read", keep_answers_closed)
    app.connect("doctree-resolved", show_explorers_first)
    app.connect("html-page-context", place_explorers)
    app.connect("html-page-context", break_names)
    app.connect("html-page-context", mark_sentences)
    app.connect("html-page-context", say_what_executed_it)
    app.connect("build-finished", finish_pages)


def drop_thebe(app, config):
    """Disconnect thebe, which Jupyter Book loads unasked, and forget its style sheet."""
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)
    css = app.registry.css_files
    css[:] = [(name, attributes) for name, attributes in css if name != "sphinx-thebe.css"]


def keep_answers_closed(app, doctree):
    """Put what tells a closed answer in words, which notebooks fold below it, in with it."""
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("prompt_show") == "Show the answer":
            begin, *words, end = through(cell.next_node(descend=False, siblings=True))
            folded = cell if cell["hide_mode"] == "all" else cell[-1]  # all of it, or its output
            for node in (begin, *words, end):
                node.parent.remove(node)
            folded.extend(words)


def through(fold: nodes.raw) -> list[nodes.Node]:
    """Return the nodes of a ``<details>`` in the text, from its first tag to its last."""
    assert "<summary>The answer in words</summary>" in fold.astext(), fold.astext()
    siblings = fold.parent[fold.parent.index(fold) :]
    last = next(n for n, node in enumerate(siblings) if "</details>" in node.astext())
    return siblings[: last + 1]


def show_explorers_first(app, doctree, docname):
    """Put folded code below the explorer that it makes, or the form whose answer it checks."""
    for cell in doctree.findall(nodes.container):
        shown = "".join(raw.astext() for raw in cell.findall(nodes.raw))
        if cell.get("hide_mode") == "input" and (VIEW in shown or "data-exercise" in shown):
            cell.append(cell.pop(0))


def place_explorers(app, pagename, templatename, context, doctree):
    """Wrap each saved widget view in a box with a message, which host.js removes."""
    message = (
        '<p class="explorer-message">This explorer needs JavaScript: allow it for this page, '
        "or run the notebook in Jupyter or Colab.</p>"
    )
    context["body"] = re.sub(
        rf'<script type="{re.escape(VIEW)}">.*?</script>',
        lambda view: f'<div class="explorer">{view[0]}{message}</div>',
        context.get("body", ""),
        flags=re.DOTALL,
    )


def break_names(app, pagename, templatename, context, doctree):
    """Let the long names of the glossary's narrow columns break after an underscore."""
    if pagename == "book/glossary":
        context["body"] = re.sub(
            r'<span class="pre">[^<]*</span>',
            lambda name: name[0].replace("_", "_<wbr>"),
            context["body"],
        )


def mark_sentences(app, pagename, templatename, context, doctree):
    """Let the lines of what is printed break on a phone, where they are not a table's."""
    context["body"] = re.sub(
        r'(<div class="output stream)([^>]*>\s*<div class="highlight"><pre>)(.*?)(?=</pre>)',
        lambda box: f"{box[1]}{' sentences' * is_sentences(box[3])}{box[2]}{box[3]}",
        context.get("body", ""),
        flags=re.DOTALL,
    )


def is_sentences(markup: str) -> bool:
    """Is it a single line, or lines without two spaces together, as columns have them?"""
    printed = re.sub("<[^>]*>", "", markup).strip("\n")
    return "\n" not in printed or "  " not in printed


def say_what_executed_it(app, pagename, templatename, context, doctree):
    """End an executed page with the Python, the torch, the device and the seconds."""
    run = getattr(app.env, "nb_metadata", {}).get(pagename, {}).get("exec_data")
    if not run:
        return
    seconds = f"in {run['runtime']:.1f} seconds" if run["runtime"] is not None else "earlier"
    context["body"] += (
        f'<p class="executed">This page was executed {seconds} with Python '
        f"{platform.python_version()}, torch {version('torch')} and "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), {accelerator()}.</p>"
    )


def accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def finish_pages(app, exception):
    """Mend, in the written pages, what the theme's templates give no other hold on."""
    if exception:
        return
    for page in Path(app.outdir).rglob("*.html"):
        html = page.read_text("utf-8")
        unused = "|".join(unused_scripts(page, html))
        html = re.sub(rf"<script[^>]*({unused})\.js[^>]*></script>\s*", "", html)
        # its text is its name; another one would be read out in its place
        html = re.sub(r'(<summary[^>]*?) aria-label="[^"]*"', r"\1", html)
        # docutils nests these roles of a bibliography in a way that ARIA does not allow
        html = re.sub(r' role="(list|doc-biblioentry|doc-backlink)"', "", html)
        page.write_text(html, "utf-8")
    for script in Path(app.outdir, "_static", "scripts").glob("fontawesome.js*"):
        script.unlink()
    keep_state(Path(app.outdir, "_static", "sphinx_highlight.js"))


def keep_state(script: Path):
    """Let Sphinx's script, which takes search words out of the address, keep the history's state.

    The explorers note there how the reader left them.
    """
    text = script.read_text("utf-8")
    script.write_text(text.replace("replaceState({}", "replaceState(history.state"), "utf-8")


def unused_scripts(page: Path, html: str) -> list[str]:
    names = ["fontawesome"]
    if page.name != "search.html":
        names += ["searchtools", "language_data", "searchindex"]
    if "sd-tab-set" not in html:
        names += ["design-tabs"]
    return names
