r"""Let docstrings write mathematics as the chapters do: $x_i$ in a line, $$\sum_i x_i$$ apart."""

import re
import textwrap


def setup(app):
    app.connect("autodoc-process-docstring", convert)


def convert(app, what, name, obj, options, lines):
    text = "\n".join(lines)
    text = re.sub(r"^( *)\$\$(.+?)\$\$", displayed, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$([^$]+?)\$", r":math:`\1`", text)
    lines[:] = text.split("\n")


def displayed(match: re.Match) -> str:
    indent, formula = match.groups()
    body = textwrap.indent(textwrap.dedent(formula).strip(), indent + "   ")
    return f"\n{indent}.. math::\n\n{body}\n"
