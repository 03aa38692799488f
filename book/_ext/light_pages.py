"""What the pages load is cut down to what they use, when all of them are written.

One style sheet in place of ten, without the rules that no page can match; the icons and the signs
of the formulas in fonts that hold no others; scripts that wait for the page, figures that wait
until they are near, each with its size, so that nothing moves when it comes, and a mark on those
that are drawings; and code without the marks that colour nothing, which are half of a page's
elements.
"""

import hashlib
import html
import logging
import os
import re
import unicodedata
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

import tinycss2
from fontTools import subset
from fontTools.misc.transform import Scale
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

logging.getLogger("fontTools").setLevel(logging.WARNING)

SHEET = re.compile(r'<link [^>]*href="([^"]+\.css)[^"]*"[^>]*>\s*')
MATH_FONT = "ziamath/fonts/STIXTwoMath-Regular.ttf"
THEME = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
EARLY_THEME = """{  // light or dark from the first: a later change would style the page again
      const { mode } = document.documentElement.dataset;
      const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      document.documentElement.dataset.theme = mode === "auto" ? dark : mode;
    }"""


def setup(app):
    os.environ["MATPLOTLIBRC"] = str(Path(__file__).parent / "matplotlibrc")  # for the chapters
    app.connect("build-finished", lighten, priority=900)  # after all that writes pages


def lighten(app, exception):
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    found = [path for path in out.rglob("*.html") if path.parent.name != "_static"]
    pages = {path: path.read_text("utf-8") for path in found}
    write_math_font(out / "_static/fonts/math.woff2", "".join(pages.values()))
    sheet = write_style_sheet(out, pages)
    marks = re.compile(
        rf'<span class="(?:{"|".join(colourless(out / "_static/pygments.css"))})">([^<]*)</span>'
    )
    for path, page in pages.items():
        if sheet and "<head>" in page:
            page = one_sheet(page, sheet)
            page = later_scripts(page, out)
            page = page.replace(THEME, EARLY_THEME)
            page = marks.sub(r"\1", page)
            page = re.sub("<img [^>]*>", lambda image, path=path: waiting(image[0], path), page)
            path.write_text(page, "utf-8")


# Style sheets


def write_style_sheet(out: Path, pages: dict[Path, str]) -> str:
    """Write the pages' style sheets as one, and return its name; '' if no page has any."""
    sheets = [name for path, page in pages.items() for name in linked(path, page)]
    rules = [rule for sheet in dict.fromkeys(sheets) for rule in read_rules(sheet, out)]
    if not rules:
        return ""
    scripts = (path.read_text("utf-8") for path in (out / "_static").rglob("*.js"))
    text = "\n".join([*pages.values(), *scripts])
    words = set(re.findall(r"[\w-]+", re.sub(r'\\[nt"]', " ", text)))
    css = tinycss2.serialize(used_rules(rules, words))
    css = write_icon_fonts(css, out)
    (out / "_static/pages.css").write_text(css, "utf-8")
    return f"_static/pages.css?v={hashlib.md5(css.encode()).hexdigest()[:8]}"


def linked(path: Path, page: str) -> list[Path]:
    """Return the style sheets of a page that is as Sphinx wrote it."""
    names = [name for name in SHEET.findall(page) if not name.endswith("pages.css")]
    return [(path.parent / name).resolve() for name in names]


def read_rules(sheet: Path, out: Path) -> list:
    """Return the rules of a style sheet, and of those that it imports, with addresses mended."""
    css = sheet.read_text("utf-8")

    def mended(found: re.Match) -> str:
        place = (sheet.parent / found[1]).resolve().relative_to(out.resolve() / "_static")
        return f'url("{place.as_posix()}")'

    css = re.sub(r"""url\(["']?(?!data:|#)([^"')]+)["']?\)""", mended, css)
    rules = []
    for rule in tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True):
        if rule.type == "at-rule" and rule.lower_at_keyword == "import":
            name = next(token.value for token in rule.prelude if token.type == "string")
            rules += read_rules(sheet.parent / name, out)
        else:
            rules.append(rule)
    return rules


def used_rules(rules: list, words: set[str]) -> list:
    """Leave out the selectors with a class that is no word of any page or script."""
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            parts = split_at_commas(rule.prelude)
            parts = [part for part in parts if classes(part) <= words]
            rule.prelude = [token for part in parts for token in (*part, COMMA)][:-1]
            kept += [rule] if parts else []
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            rule.content = used_rules(inner, words)
            kept += [rule] if rule.content else []
        elif rule.type == "at-rule":
            kept.append(rule)
    return kept


COMMA = tinycss2.parse_component_value_list(",")[0]


def split_at_commas(tokens: list) -> list[list]:
    parts = [[]]
    for token in tokens:
        if token.type == "literal" and token.value == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def classes(selector: list) -> set[str]:
    """Return the classes that an element must have; those within :is() or :not() are not asked."""
    return {name.value for dot, name in pairwise(selector) if dot == "." and name.type == "ident"}


# Fonts


def write_icon_fonts(css: str, out: Path) -> str:
    """Write each icon font with the icons that a style sheet names; return the sheet with them."""
    icons = {sign for sign in css if unicodedata.category(sign) == "Co"}  # private use
    css = re.sub(r',\s*url\("[^"]+\.ttf"\)\s*format\("truetype"\)', "", css)
    for place in dict.fromkeys(re.findall(r'url\("([^"]+\.woff2)"\)', css)):
        if (source := out / "_static" / place).name.startswith("fa-"):
            target = out / "_static/fonts" / source.name.replace("fa-", "icons-")
            write_font(source, target, "".join(icons))
            css = css.replace(place, f"fonts/{target.name}")
    return re.sub(r"Font Awesome\\? 6", "Book Icons", css)  # that name is kept for the whole font


def write_math_font(target: Path, text: str) -> None:
    """Write the font of the formulas, with the signs that the pages' formulas have."""
    formulas = "".join(re.findall(r"<math.*?</math>", text, flags=re.DOTALL))
    single = {letter for letter in re.findall("<mi>(.)</mi>", formulas)}
    signs = set(html.unescape(re.sub("<[^>]*>", "", formulas))) | {"√"}
    source = distribution("ziamath").locate_file(MATH_FONT)
    write_font(source, target, "".join(signs | {italic(letter) for letter in single}), tame)


def italic(letter: str) -> str:
    """Return the letter that a browser shows for a lone one: the italic of the mathematicians."""
    if letter == "h":
        return "ℎ"
    name = unicodedata.name(letter).replace("LATIN ", "").replace("GREEK ", "")
    try:
        return unicodedata.lookup("MATHEMATICAL ITALIC " + name.replace("LETTER ", ""))
    except KeyError:
        return letter


def write_font(source: Path, target: Path, text: str, change=lambda font: None) -> None:
    options = subset.Options(
        flavor="woff2", hinting=False, layout_features=[], name_IDs=[0, 1, 2, 4, 6, 13, 14]
    )
    font = subset.load_font(str(source), options)
    change(font)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=text)
    subsetter.subset(font)
    target.parent.mkdir(parents=True, exist_ok=True)
    subset.save_font(font, str(target), options)


def tame(font) -> None:
    """Keep the forms of parentheses and roots near the plain one in width.

    Chromium gives a sign that grows the width of its widest form, whichever it shows: there was
    a hole after each root. Parentheses lose the forms above 2.4 em, roots become narrow.
    """
    growing, name = font["MATH"].table.MathVariants, font.getBestCmap()
    names = growing.VertGlyphCoverage.glyphs
    forms = dict(zip(names, growing.VertGlyphConstruction, strict=True))
    for sign in "()":
        form = forms[name[ord(sign)]]
        low = [v for v in form.MathGlyphVariantRecord if v.AdvanceMeasurement < 2400]
        form.MathGlyphVariantRecord, form.VariantCount, form.GlyphAssembly = low, len(low), None
    root = forms[name[ord("√")]]
    parts = [part.glyph for part in root.GlyphAssembly.PartRecords]
    for form in parts + [variant.VariantGlyph for variant in root.MathGlyphVariantRecord]:
        narrow(font, form, font["hmtx"][name[ord("√")]][0])


def narrow(font, form: str, width: int) -> None:
    glyphs = font.getGlyphSet()
    pen = TTGlyphPen(glyphs)
    glyphs[form].draw(TransformPen(pen, Scale(width / font["hmtx"][form][0], 1)))
    font["glyf"][form] = glyph = pen.glyph()
    glyph.recalcBounds(font["glyf"])
    font["hmtx"][form] = (width, glyph.xMin)


# Pages


def colourless(sheet: Path) -> list[str]:
    """Return the classes of code that look like the code around them, in every theme."""
    rule = r"(html\S+) \.highlight(?: \.(\w+))? \{ (?:background: \S+; )?color: (\S+) \}"
    found = re.findall(rule, sheet.read_text("utf-8"))
    around = {theme: colour for theme, name, colour in found if not name}
    looks = {name: True for _, name, _ in found if name}
    for theme, name, colour in found:
        if name and colour != around[theme]:
            looks[name] = False
    return [name for name, plain in looks.items() if plain]


def one_sheet(page: str, sheet: str) -> str:
    root = re.search(r'data-content_root="([^"]*)"', page)[1]
    first = SHEET.search(page).start()
    link = f'<link rel="stylesheet" href="{root}{sheet}" />\n'
    return page[:first] + link + SHEET.sub("", page[first:])


def later_scripts(page: str, out: Path) -> str:
    """Let scripts run when the page is read, in their order; inline the options they begin with."""
    options = (out / "_static/documentation_options.js").read_text("utf-8")
    found = r'<script src="[^"]*documentation_options\.js[^"]*"></script>'
    page = re.sub(found, lambda _: f"<script>{options}</script>", page)
    page = re.sub(r"<script (?![^>]*(?:defer|type=))([^>]*src=)", r"<script defer \1", page)
    return re.sub(r'<link rel="preload" as="script"[^>]*>\s*', "", page)


def waiting(image: str, page: Path) -> str:
    """Return an <img> that is fetched when it comes near, and has its place before.

    An inch of a figure takes 100 pixels of the page, of whatever finer pixels it is made. A drawing
    is marked, for book.css to turn it over in the dark.
    """
    source = page.parent / re.search(r'src="([^"?]*)', image)[1]
    if "logo__image" in image or "loading=" in image:
        return image
    if source.suffix == ".svg" and source.exists():
        size = re.search(r'width="\d+" height="\d+"', source.read_text("utf-8"))[0]
        return image.replace("<img ", f'<img class="drawing" loading="lazy" {size} ', 1)
    if source.suffix != ".png" or not source.exists():
        return image.replace("<img ", '<img loading="lazy" ', 1)
    with Image.open(source) as figure:
        if not (packed := source.with_suffix(".webp")).exists():
            figure.save(packed, lossless=True, method=6)  # the same pixels in half the bytes
        fine = figure.info.get("dpi", (100, 100))
        width, height = (round(side * 100 / n) for side, n in zip(figure.size, fine, strict=True))
        image = image.replace(source.name, packed.name)
        if is_drawing(figure):
            image = image.replace("<img ", '<img class="drawing" ', 1)
    return image.replace("<img ", f'<img loading="lazy" width="{width}" height="{height}" ', 1)


def is_drawing(figure: Image.Image) -> bool:
    """Is it mostly white, as charts are (seven tenths and more), and maps are not (a half)?"""
    levels = figure.convert("L").histogram()
    return sum(levels[250:]) > 0.6 * sum(levels)
