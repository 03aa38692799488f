"""What the build makes of formulas and style sheets; tests/browser looks at the pages."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tinycss2
from docutils import nodes
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book" / "_ext"))
from light_pages import colourless, is_drawing, italic, used_rules
from mathml import keep_together, mathml
from page_parts import VIEW, show_explorers_first


def outline(tex: str) -> str:
    """Return the elements of a formula with what they say: msub(mi:x mn:1)."""

    def of(element) -> str:
        inside = " ".join(map(of, element))
        return element.tag + (f"({inside})" if len(element) else f":{element.text or ''}")

    return " ".join(map(of, ElementTree.fromstring(mathml(tex))))


def spaces(tex: str) -> list[tuple[str, str, str]]:
    operators = ElementTree.fromstring(mathml(tex)).iter("mo")
    return [(mo.text, mo.get("lspace"), mo.get("rspace")) for mo in operators]


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        ("x_1^2", "msubsup(mi:x mn:1 mn:2)"),
        ("x^2_{1}", "msubsup(mi:x mn:1 mn:2)"),
        ("K_{p,q}", "msub(mi:K mrow(mi:p mo:, mi:q))"),
        ("u'_x", "msub(mrow(mi:u mo:′) mi:x)"),
        ("u_x'", "msub(mrow(mi:u mo:′) mi:x)"),
        (r"\tilde g_i", "msub(mover(mi:g mo:˜) mi:i)"),
        (r"\sqrt d", "msqrt(mi:d)"),
        (r"\tfrac12", "mstyle(mfrac(mn:1 mn:2))"),
        (r"k^23", "msup(mi:k mn:2) mn:3"),
        (r"\mathrm{pe}_o", "msub(mi:pe mi:o)"),
        (r"\mathcal N_k", "msub(mi:𝒩 mi:k)"),
        (r"\mathit{pe}", "mi:𝑝𝑒"),
        (r"\text{ a b}", "mtext:\u00a0a\u00a0b"),
        (r"\sum_o a", "munder(mo:∑ mi:o) mspace: mi:a"),
        (r"\mathop{\mathrm{softmax}}_o", "munder(mo:softmax mi:o)"),
        (r"\log_2", "msub(mi:log mn:2)"),
        (r"\underbrace{a}_{\text{b}}", "munder(munder(mi:a mo:⏟) mtext:b)"),
        (r"\left(a\right]", "mrow(mo:( mi:a mo:])"),
        (r"\begin{bmatrix}a & b\end{bmatrix}", "mrow(mo:[ mtable(mtr(mtd(mi:a) mtd(mi:b))) mo:])"),
        (r"a &= b \\ &= c", "mtable(mtr(mtd(mi:a) mtd(mo:= mi:b)) mtr(mtd: mtd(mo:= mi:c)))"),
    ],
)
def test_formula_has_this_outline(tex, expected):
    assert outline(tex) == expected


def test_spaces_are_those_of_tex():
    assert spaces("a-b") == [("−", "0.2222em", "0.2222em")]
    assert spaces("-b") == spaces("(-b)")[1:2] == spaces("x_{a-b}") == [("−", "0", "0")]
    assert spaces("a=-b") == [("=", "0.2778em", "0.2778em"), ("−", "0", "0")]
    assert spaces(r"a/b \lvert c") == [("/", "0", "0"), ("|", "0", "0")]


def test_browsers_are_told_which_lone_letters_stand_upright():
    assert mathml(r"\Delta x") == '<math><mi mathvariant="normal">Δ</mi><mi>x</mi></math>'
    assert [italic(letter) for letter in "xhWα∞"] == ["𝑥", "ℎ", "𝑊", "𝛼", "∞"]


def test_a_brace_is_told_to_lie_under_its_formula():
    assert mathml(r"\underbrace{a}_b").count('accentunder="true"') == 1


@pytest.mark.parametrize(
    ("tex", "said"),
    [
        (r"a \foo", r"\foo is unknown"),
        ("{a", "it ends before }"),
        ("a}", "} is unknown"),
        (r"\left(a", r"it ends before \right"),
        (r"\left\alpha a\right)", r"\alpha is no delimiter"),
        (r"\begin{array}a\end{array}", "the environment array is unknown"),
        (r"\begin{bmatrix}a\end{matrix}", "bmatrix is not ended"),
        (r"\mathcal{1}", "there is no script 1"),
        (r"\text{a", "a } is missing"),
        ("a_", "it ends too early"),
        ("a_b_c", "there are two _"),
        (r"\text{a $b$}", "a $b$ is more than words"),
    ],
)
def test_what_is_not_known_is_said(tex, said):
    with pytest.raises(ValueError) as caught:
        mathml(tex)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["so ", "x", ", then"], "so [x,] then"),
        (["(", "x", "); ", "y", "."], "[(x);] [y.]"),
        (["x", " and ", "y"], "x and y"),
        (["all ", "x", "-maps"], "all x-maps"),
        (["x", ".", "y"], "[x.]y"),
    ],
)
def test_a_formula_and_the_punctuation_beside_it_keep_together(line, expected):
    kinds = [nodes.math(text=part) if part in "xy" else nodes.Text(part) for part in line]
    document = nodes.paragraph("", "", *kinds)
    keep_together(None, document, None)
    assert document.astext() == "".join(line)
    boxes = [f"[{n.astext()}]" if isinstance(n, nodes.inline) else n.astext() for n in document]
    assert "".join(boxes) == expected


def test_only_rules_that_no_page_can_match_go():
    css = """
      a, .used > p, .gone a { b: c } .gone, .used.gone { b: c } a:not(.gone) { b: c }
      @media print { .gone { b: c } } @media screen { .used { b: c } .gone { b: c } }
      @font-face { font-family: x }
    """
    rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
    kept = tinycss2.serialize(used_rules(rules, {"used"}))
    assert "".join(kept.split()) == (
        "a,.used>p{b:c}a:not(.gone){b:c}@mediascreen{.used{b:c}}@font-face{font-family:x}"
    )


def test_only_what_looks_as_its_surroundings_in_every_theme_is_colourless(tmp_path):
    css = """
    html[data-theme="light"] .highlight { background: #fff; color: #080808 }
    html[data-theme="light"] .highlight .k { color: #6730C5 } /* Keyword */
    html[data-theme="light"] .highlight .n { color: #080808 } /* Name */
    html[data-theme="light"] .highlight .p { color: #080808 } /* Punctuation */
    html[data-theme="light"] .highlight .gs { font-weight: bold; color: #080808 }
    html[data-theme="dark"] .highlight { background: #222; color: #F8F8F2 }
    html[data-theme="dark"] .highlight .k { color: #F8F8F2 }
    html[data-theme="dark"] .highlight .n { color: #F8F8F2 }
    html[data-theme="dark"] .highlight .p { color: #F8F800 }
    """
    sheet = tmp_path / "pygments.css"
    sheet.write_text("\n".join(line.strip() for line in css.splitlines()))
    assert colourless(sheet) == ["n"]


@pytest.mark.parametrize(("shown", "order"), [(VIEW, "output, code"), ("text", "code, output")])
def test_folded_code_stands_below_the_explorer_that_it_makes(shown, order):
    code, output = (nodes.container("", nodes.Text(name)) for name in ("code", "output"))
    output.append(nodes.raw("", f'<script type="{shown}">'))
    document = nodes.container("", nodes.container("", code, output, hide_mode="input"))
    show_explorers_first(None, document, "chapter")
    assert ", ".join(part[0].astext() for part in document[0]) == order


@pytest.mark.parametrize(("white", "expected"), [(70, True), (48, False)])
def test_a_drawing_is_mostly_white(white, expected):
    figure = Image.new("RGBA", (100, 10), "navy")
    figure.paste("white", (0, 0, white, 10))
    assert is_drawing(figure) is expected
