r"""Formulas are made MathML when the book is built: no page needs a script for them.

Read here is the part of TeX that the book uses, with TeX's spacing; the names of the symbols are
docutils'. What is not known here fails the build, with the formula in the message.
"""

import re
import unicodedata
from html import escape

from docutils import nodes
from docutils.utils.math import tex2unichar as names
from sphinx.util import logging

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
TABLES = {
    "ord": names.mathord | names.mathalpha | names.mathfence,
    "bin": names.mathbin,
    "rel": names.mathrel,
    "open": names.mathopen | {"{": "{", "lvert": "|", "lVert": "‖"},
    "close": names.mathclose | {"}": "}", "rvert": "|", "rVert": "‖"},
    "inner": {"dots": "…"},
    "op": names.mathop,
}
SYMBOLS = {f"\\{name}": (kind, sign) for kind in TABLES for name, sign in TABLES[kind].items()}
SYMBOLS |= {sign: ("ord", sign) for sign in "|/."}
SYMBOLS |= {"-": ("bin", "−"), "+": ("bin", "+"), "*": ("bin", "∗")}
SYMBOLS |= {sign: ("rel", sign) for sign in "=<>:"}
SYMBOLS |= {sign: ("punct", sign) for sign in ",;"}
SYMBOLS |= {sign: ("open", sign) for sign in "(["} | {sign: ("close", sign) for sign in ")]!?"}
ALPHABETS = {"\\mathit": "ITALIC", "\\mathcal": "SCRIPT"}
SPACES = {"\\!": -3, "\\,": 3, "\\;": 5, "\\quad": 18, "\\qquad": 36}
SIZES = {"big": "1.2em", "Big": "1.8em"}
BIG = {f"\\{size}{side}": em for size, em in SIZES.items() for side in ("", "l", "r")}
AROUND = {"bin": (4, 4), "rel": (5, 5), "punct": (0, 3)}  # in eighteenths of an em, as in TeX
THIN = {f"{pair} op" for pair in ("ord", "close", "inner", "op")} | {
    "op ord", "op inner", "ord inner", "close inner", "inner ord", "inner open", "inner inner",
}  # fmt: skip


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("doctree-resolved", keep_together)


def keep_together(app, doctree, docname):
    """Let no line end between a formula and the punctuation or the bracket beside it."""
    for formula in list(doctree.findall(nodes.math)):
        parent, box = formula.parent, nodes.inline(classes=["together"])
        at = parent.index(formula)
        before, after = (
            parent[n] if 0 <= n < len(parent) and isinstance(parent[n], nodes.Text) else ""
            for n in (at - 1, at + 1)
        )
        opening = re.search(r"[(\[“]*$", before)[0]
        closing = re.match(r"[.,;:!?)\]”…]*", after)[0]
        if not opening and not closing:
            continue
        rest = [before[: len(before) - len(opening)], opening, formula, closing]
        first, last = at - (before != ""), at + 1 + (after != "")
        box += [n if n is formula else nodes.Text(n) for n in rest[1:] if n]
        outer = [nodes.Text(rest[0]), box, nodes.Text(after[len(closing) :])]
        parent[first:last] = [n for n in outer if n is box or n]


def visit_math(writer, node):
    writer.body.append(converted(node, False))
    raise nodes.SkipNode


def visit_math_block(writer, node):
    writer.body.append(writer.starttag(node, "div", CLASS="math notranslate"))
    writer.body.append(f"{converted(node, True)}</div>\n")
    raise nodes.SkipNode


def converted(node, display: bool) -> str:
    """Return the MathML of a formula of the book; warn, and so fail, if there is none."""
    tex = node.astext().strip()
    try:
        if node.get("number"):
            raise ValueError("a number or a label is not written")
        return mathml(tex, display)
    except ValueError as problem:
        message = "the formula %s is not one that book/_ext/mathml.py can read: %s"
        logging.getLogger(__name__).warning(message, tex, problem, location=node)
        return escape(tex)


def mathml(tex: str, display: bool = False) -> str:
    r"""Return a formula's MathML.

    Raises:
        ValueError: It holds something that is not known here; the message says what.

    Example:
        >>> mathml(r"\sqrt x_1")
        '<math><msub><msqrt><mi>x</mi></msqrt><mn>1</mn></msub></math>'
    """
    return tag("math", Formula(tex).whole(), **({"display": "block"} if display else {}))


def row(markup: str) -> str:
    """Make one element of any number of them."""
    alone = re.fullmatch(r"<(m[ino]|mtext)( [^>]*)?>[^<]*</\1>", markup)
    return markup if alone else tag("mrow", markup)


def tag(name: str, content: str, **attributes) -> str:
    written = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def em(eighteenths: int) -> str:
    return f"{eighteenths / 18:.4g}em" if eighteenths else "0"


def mo(sign: str, left: int = 0, right: int = 0, **attributes) -> str:
    return tag("mo", escape(sign), lspace=em(left), rspace=em(right), **attributes)


def mi(letters: str, upright: bool = False) -> str:
    """Make an identifier; browsers slant one that is a single letter, unless they are told."""
    lone = upright and len(letters) == 1
    return tag("mi", letters, **({"mathvariant": "normal"} if lone else {}))


def mspace(eighteenths: int) -> str:
    return f'<mspace width="{em(eighteenths)}"></mspace>'


class Formula:
    """A formula that is being read, token by token."""

    def __init__(self, tex: str):
        self.tokens = TOKEN.findall(tex)[::-1]  # the next one is the last
        self.depth = 0  # of the scripts that are being read; there, TeX leaves out spaces

    def whole(self) -> str:
        rows = self.rows({""})
        return rows[0][0] if rows == [rows[0][:1]] else self.table(rows, "aligned")

    def next(self) -> str:
        """Take the next token that is not a space; there is an empty one at the end."""
        while self.tokens and self.tokens[-1].isspace():
            self.tokens.pop()
        return self.tokens.pop() if self.tokens else ""

    def peek(self) -> str:
        token = self.next()
        self.tokens.append(token)
        return token

    def text(self) -> str:
        """Take a group {…}, or one token, and return what it says, as it is."""
        if (token := self.next()) != "{":
            return token
        said, depth = "", 1
        while self.tokens:
            token = self.tokens.pop()
            depth += {"{": 1, "}": -1}.get(token, 0)
            if depth == 0:
                return said
            said += token
        raise ValueError("a } is missing")

    def words(self) -> str:
        """Take a group and return it as it is written in a page; it holds no commands."""
        said = self.text()
        if "\\" in said or "$" in said:
            raise ValueError(f"{said} is more than words")
        return escape(said)

    def row(self, ends: set[str], before: str | None = None) -> str:
        """Read up to one of the tokens `ends`, and take that, too."""
        markup = ""
        while (token := self.next()) not in ends:
            if token == "":
                raise ValueError(f"it ends before {' or '.join(ends)}")
            kind, atom = self.scripted(*self.atom(token, before))
            if f"{before} {kind}" in THIN and not self.depth:
                markup += mspace(3)
            markup += atom
            before = kind or before
        self.last = token
        return markup

    def argument(self) -> str:
        token = self.next()
        if token == "{":
            return row(self.row({"}"}))
        if token[:1].isdigit():  # \tfrac12 has two arguments
            self.tokens += [token[1:]] if token[1:] else []
            return tag("mn", token[0])
        return self.atom(token, None)[1]

    def scripted(self, kind: str, nucleus: str, limits: bool = False) -> tuple[str, str]:
        """Add what is written below and above to an atom."""
        scripts = {}
        while (mark := self.peek()) and mark in "_^'":
            self.next()
            if mark == "'":
                nucleus = tag("mrow", nucleus + mo("′"))
                continue
            if mark in scripts:
                raise ValueError(f"there are two {mark}")
            self.depth += 1
            scripts[mark] = self.argument()
            self.depth -= 1
        places = {"_": "under", "^": "over"} if limits else {"_": "sub", "^": "sup"}
        written = [mark for mark in "_^" if mark in scripts]
        name = "m" + "".join(places[mark] for mark in written)
        content = nucleus + "".join(scripts[mark] for mark in written)
        return kind, tag(name, content) if scripts else nucleus

    def atom(self, token: str, before: str | None) -> tuple:
        """Return the kind of an atom, which spaces it, its markup, and whether it has limits."""
        if not token:
            raise ValueError("it ends too early")
        if token in SYMBOLS:
            return self.symbol(*SYMBOLS[token], before)
        if token in SPACES:
            return "", mspace(SPACES[token])
        if token[0].isdigit():
            return "ord", tag("mn", token)
        if token.isalpha():
            return "ord", mi(token)
        if token == "{":
            return "ord", row(self.row({"}"}))
        if token in ("\\exp", "\\log"):
            return "op", mi(token[1:])
        if token == "\\max":
            return "op", mo("max", movablelimits="true"), True
        if token in ALPHABETS:
            return "ord", mi("".join(styled(ALPHABETS[token], c) for c in self.text()))
        if token == "\\tilde":
            accent = mo("˜", stretchy="false")
            return "ord", tag("mover", self.argument() + accent, accent="true")
        if token in BIG:
            size = BIG[token]
            sign = self.delimiter(stretchy="true", symmetric="true", minsize=size, maxsize=size)
            return {"l": "open", "r": "close"}.get(token[-1], "ord"), sign
        if command := getattr(self, f"read_{token[1:]}", None):
            return command()
        raise ValueError(f"{token} is unknown")

    def symbol(self, kind: str, sign: str, before: str | None) -> tuple:
        if kind == "bin" and before in (None, "bin", "rel", "open", "punct", "op"):
            kind = "ord"  # a sign, as in -1
        elif kind == "ord" and sign.isalpha():
            return kind, mi(sign, upright=sign.isupper())
        if kind == "op":
            return kind, mo(sign, movablelimits="true"), sign not in "∫∬∭∮"
        left, right = AROUND.get(kind, (0, 0)) if not self.depth else (0, 0)
        return kind, mo(sign, left, right, stretchy="false")

    def delimiter(self, **attributes) -> str:
        token = self.next()
        if token == ".":
            return ""
        kind, sign = SYMBOLS.get(token, ("", ""))
        if kind not in ("open", "close") and sign not in ("|", "‖", "/"):
            raise ValueError(f"{token} is no delimiter")
        return mo(sign, **attributes)

    def read_left(self):
        left = self.delimiter(stretchy="true", form="prefix")
        inside = self.row({"\\right"})
        right = self.delimiter(stretchy="true", form="postfix")
        return "inner", tag("mrow", left + inside + right)

    def read_frac(self):
        return "inner", tag("mfrac", self.argument() + self.argument())

    def read_tfrac(self):
        return "inner", tag("mstyle", self.read_frac()[1], displaystyle="false")

    def read_sqrt(self):
        return "ord", tag("msqrt", self.argument())

    def read_underbrace(self):
        brace = mo("⏟", stretchy="true")
        return "ord", tag("munder", self.argument() + brace, accentunder="true"), True

    def read_text(self):
        return "ord", tag("mtext", self.words().replace(" ", "\u00a0"))

    def read_mathrm(self):
        return "ord", mi(self.words(), upright=True)

    def read_mathop(self):
        name = re.sub(r"^\\mathrm\{(\w+)\}$", r"\1", self.text())
        if not name.isalpha():
            raise ValueError(r"\mathop takes \mathrm and a name")
        return "op", mo(name, movablelimits="true"), True

    def read_bmod(self):
        return self.symbol("bin", "mod", "ord")

    def read_begin(self):
        name = self.text()
        rows = self.rows({"\\end"})
        if self.text() != name:
            raise ValueError(f"{name} is not ended")
        return "ord", self.table(rows, name)

    def rows(self, ends: set[str]) -> list[list[str]]:
        r"""Read cells, which & and \\ part."""
        rows = [[]]
        while True:
            rows[-1].append(self.row({"&", "\\\\"} | ends, "ord" if rows[-1] else None))
            if self.last in ends:
                return [cells for cells in rows if any(cells)] or [[""]]
            if self.last == "\\\\":
                rows.append([])

    def table(self, rows: list[list[str]], name: str) -> str:
        body = "".join(tag("mtr", "".join(tag("mtd", c) for c in cells)) for cells in rows)
        if name == "aligned":
            return tag("mtable", body, displaystyle="true", **{"class": "aligned"})
        if name != "bmatrix":
            raise ValueError(f"the environment {name} is unknown")
        left, right = (mo(sign, stretchy="true", symmetric="true") for sign in "[]")
        return tag("mrow", left + tag("mtable", body) + right)


def styled(style: str, letter: str) -> str:
    """Return a letter of one of Unicode's mathematical alphabets."""
    size = "CAPITAL" if letter.isupper() else "SMALL"
    for name in (f"MATHEMATICAL {style} {size} {letter}", f"{style} {size} {letter}"):
        try:
            return unicodedata.lookup(name)
        except KeyError:
            continue
    raise ValueError(f"there is no {style.lower()} {letter}")
