r"""Let docstrings write as the chapters do: $x_i$ in a line, $$\sum_i x_i$$ apart, k_a with index.

On the page "Chapter 07" is a link, and in the text the letter after an underscore stands lower.
"""

import re
import textwrap

from docutils import nodes
from sphinx import addnodes
from sphinx.util import inspect

VERBATIM = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.reference,
            addnodes.desc_signature, addnodes.pending_xref)  # fmt: skip
MARKED = re.compile(
    r"(?P<symbol>(?<![A-Za-z_])[A-Za-z])_(?P<index>[A-Za-z]{1,4})(?![A-Za-z0-9_])"
    r"|[Cc]hapter 0?(?P<chapter>\d+)"
)


def setup(app):
    app.connect("autodoc-process-signature", of_init)
    app.connect("autodoc-process-docstring", convert)
    app.connect("doctree-read", mark)


def of_init(app, what, name, obj, options, signature, returned):
    """Show an explorer's own arguments, not the (*args, **kwargs) of a trait-bearing class."""
    if what == "class" and signature and signature.startswith("(*args"):
        own = inspect.signature(obj.__init__, bound_method=True)
        how = {"show_return_annotation": False, "unqualified_typehints": True}
        return inspect.stringify_signature(own, **how), returned


def convert(app, what, name, obj, options, lines):
    text = "\n".join(lines)
    text = re.sub(r"^( *)\$\$(.+?)\$\$", displayed, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$([^$]+?)\$", r":math:`\1`", text)
    lines[:] = text.split("\n")


def displayed(match: re.Match) -> str:
    indent, formula = match.groups()
    body = textwrap.indent(textwrap.dedent(formula).strip(), indent + "   ")
    return f"\n{indent}.. math::\n\n{body}\n"


def mark(app, doctree):
    """Put indices lower, and lead to the chapters, on the pages that show docstrings."""
    if next(doctree.findall(addnodes.desc), None) is None:
        return
    for text in list(doctree.findall(nodes.Text)):
        if MARKED.search(text) and not is_verbatim(text):
            text.parent.replace(text, list(pieces(str(text), app.env)))


def is_verbatim(node: nodes.Node) -> bool:
    return node is not None and (isinstance(node, VERBATIM) or is_verbatim(node.parent))


def pieces(text: str, env):
    end = 0
    for found in MARKED.finditer(text):
        yield nodes.Text(text[end : found.start()])
        if found["chapter"]:
            yield chapter(found[0][:7], found["chapter"], env)
        else:
            yield nodes.Text(found["symbol"])
            yield nodes.subscript("", found["index"])
        end = found.end()
    yield nodes.Text(text[end:])


def chapter(word: str, number: str, env) -> nodes.Node:
    (page,) = (name for name in env.found_docs if name.startswith(f"book/{number:0>2}_"))
    link = addnodes.pending_xref("", refdomain="std", reftype="doc", refexplicit=True)
    link["reftarget"] = f"/{page}"
    link += nodes.inline("", f"{word} {number}")
    return link
