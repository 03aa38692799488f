"""The book as files: one address, clean notebooks, a table of contents, a package that travels.

What needs the built book is in tests/browser, which runs after the build.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import pairwise
from pathlib import Path

import planted_bugs
import pytest
import yaml
from predictions import predictions

import acmix_edu

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
URL = CONFIG["repository"]["url"]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
INSTALL = f"""\
# Colab has torch; this fetches the book's package when it is missing.
try:
    import acmix_edu
except ImportError:
    %pip install -q "acmix-edu[book] @ git+{URL}\""""
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@each_notebook
def test_notebook_begins_with_the_install_cell(path):
    cell = code_cells(read(path))[0]
    assert "".join(cell["source"]) == INSTALL
    assert "remove-cell" in cell["metadata"].get("tags", []), "the page should not show this cell"


@each_notebook
def test_notebook_stores_no_outputs(path):
    for cell in code_cells(read(path)):
        assert cell["outputs"] == [] and cell["execution_count"] is None, "run `make strip`"


@each_notebook
def test_code_fits_beside_the_contents_of_its_page(path):
    """88 characters do (book.css says how); a longer line makes its box scroll sideways."""
    for cell in code_cells(read(path)):
        if "remove-cell" not in cell["metadata"].get("tags", []):
            long = [line for line in "".join(cell["source"]).splitlines() if len(line) > 88]
            assert not long, f"{path.name}, {cell['id']}: break {long}"


@each_notebook
def test_a_fold_says_what_is_in_it(path):
    """Not "Show code cell content", whether it is an answer, a solution or a list of imports."""
    for before, cell in pairwise(read(path)["cells"]):
        folds = {"hide-cell", "hide-input", "hide-output"} & set(cell["metadata"].get("tags", []))
        if folds:
            source, prompts = "".join(cell["source"]), cell["metadata"].get("mystnb", {})
            show = prompts.get("code_prompt_show", "")
            said = re.fullmatch(r"Show the \w+( of the entry below)?", show)
            assert said, f"{path.name}, {cell['id']}: {show!r}"
            assert prompts.get("code_prompt_hide") == show.replace("Show", "Hide"), cell["id"]
            predicted = "**Predict.**" in "".join(before["source"]) and "hide-input" not in folds
            assert not predicted or show == "Show the answer", cell["id"]
            assert ("@title Solution" in source) == (show == "Show the solution"), cell["id"]
            assert not answers(cell) or is_closed_in_jupyter_and_colab(cell), cell["id"]


@each_notebook
def test_a_prediction_with_options_has_a_few_short_ones_and_an_answer(path):
    cells = read(path)["cells"]
    boxes = ["".join(cell["source"]).partition("**Predict.**")[2] for cell in cells]
    found = list(predictions(cells))
    assert len(found) == sum(" · " in box for box in boxes), "options stand last, in a line"
    for options, _, answer, true in found:
        assert len(true) == 1, f"begin the answer with the one that is true: {options}, {true}"
        assert 2 <= len(set(options)) == len(options) <= 5, options
        assert max(map(len, options)) <= 40, options
        show = answer["metadata"].get("mystnb", {}).get("code_prompt_show", "Show the answer")
        assert show == "Show the answer", options


def answers(cell) -> bool:
    """Does it answer, with its code, what the reader is asked before it?"""
    prompt = cell["metadata"]["mystnb"]["code_prompt_show"]
    given = ("Show the answer", "Show the solution", "Show the repair")
    return prompt in given and "hide-cell" in cell["metadata"]["tags"]


def is_closed_in_jupyter_and_colab(cell) -> bool:
    metadata, source = cell["metadata"], "".join(cell["source"])
    hidden = metadata.get("jupyter", {}).get("source_hidden") and metadata.get("cellView") == "form"
    return hidden and source.startswith("# @title ")


@each_notebook
def test_notebook_asks_for_the_plain_python_kernel(path):
    assert read(path)["metadata"]["kernelspec"]["name"] == "python3"


def test_contents_and_files_agree():
    listed = [TOC["root"]] + [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
    pages = [page for page in ROOT.glob("book/*") if page.suffix in (".ipynb", ".md")]
    assert sorted(listed) == sorted(f"book/{page.stem}" for page in pages)


def test_the_first_page_says_how_many_chapters_there_are():
    words = "one two three four five six seven eight nine ten eleven twelve".split()
    chapters = [page for page in NOTEBOOKS if re.match(r"\d\d_", page.name)]
    first = "".join(read(ROOT / f"{TOC['root']}.ipynb")["cells"][0]["source"])
    assert f">{words[len(chapters) - 1]} chapters</a>" in first


def test_every_notebook_is_collected_by_nbval():
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--collect-only", "-q", "book"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    for path in NOTEBOOKS:
        cells = len(code_cells(read(path)))
        assert listing.count(f"/{path.name}::") == cells, f"{path.name}: not {cells}:\n{listing}"


def test_the_address_is_written_once():
    """Elsewhere only where a tool needs it whole; there, this test holds it to _config.yml."""
    allowed = {"_config.yml", "README.md", "pyproject.toml", "CITATION.cff"}
    address = re.compile(r"(?:https?://)?github\.com/[\w.-]*acmix[\w.-]*/[\w-]+")
    for path in files_of_the_project():
        found = set(address.findall(path.read_text("utf-8")))
        name = path.relative_to(ROOT).as_posix()
        assert found <= {URL}, f"{name} names {found}, _config.yml {URL}"
        assert not found or name in allowed or path.suffix == ".ipynb", f"{name} repeats {URL}"
    assert pyproject()["project"]["urls"]["Repository"] == URL
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["repository-code"] == URL


def files_of_the_project() -> list[Path]:
    kinds = ("*.py", "*.js", "*.css", "*.md", "*.yml", "*.toml", "*.cff", "*.ipynb", "*.txt")
    folders = ("acmix_edu", "benchmarks", "book", "tests", ".github")
    found = [path for kind in kinds for path in ROOT.glob(kind)]
    found += [path for kind in kinds for folder in folders for path in (ROOT / folder).rglob(kind)]
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_somewhere(name):
    text = (ROOT / name).read_text("utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link and not link.startswith("mailto:"):
            assert (ROOT / link).exists(), f"{name} links to {link}, which is not there"


def test_the_readme_leads_to_the_published_book():
    owner, name = URL.rsplit("/", 2)[1:]
    assert f"<https://{owner}.github.io/{name}>" in (ROOT / "README.md").read_text("utf-8")


def test_every_version_is_the_package_version():
    version = acmix_edu.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_pages_of_the_package_show_every_public_name_once():
    pages = [page.read_text("utf-8") for page in sorted((ROOT / "book").glob("api*.md"))]
    shown = re.findall(r"auto(?:function|class):: (\w+)", "".join(pages))
    assert sorted(shown) == sorted(acmix_edu.__all__)


def test_requirements_are_pinned_and_satisfy_the_package():
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==", 1) for line in lines if line and not line.startswith("#"))
    project = pyproject()["project"]
    for need in project["dependencies"] + project["optional-dependencies"]["book"]:
        name, least = need.split(">=")
        assert as_numbers(pins[name]) >= as_numbers(least), f"{need}, but {name}=={pins[name]}"


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_wheel_carries_the_explorers(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "acmix_edu", tmp_path / "acmix_edu")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path / "dist", tmp_path], check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("acmix_edu/")}
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / "acmix_edu").rglob("*") if p.is_file()}
    assert packed == {name for name in there if "__pycache__" not in name}


def test_every_bug_can_still_be_planted():
    source = {
        bug[0]: (ROOT / f"acmix_edu/{bug[0]}.py").read_text("utf-8") for bug in planted_bugs.BUGS
    }
    lost = [what for module, what, old, _ in planted_bugs.BUGS if old not in source[module]]
    assert not lost, "mend the list of bugs"


def test_the_readme_says_how_fast_as_it_was_measured():
    records = [json.loads(f.read_text()) for f in (ROOT / "benchmarks/results").glob("cpu-*.json")]
    rows = [r for record in records for r in record["rows"] if r["what"] == "module"]
    times = {way: [r["unfold_ms"] / r["fast_ms"] for r in rows if r["pass"] == way]
             for way in ("forward", "both_ways")}  # fmt: skip
    forward, training = (f"{min(t):.0f} to {max(t):.0f} times" for t in times.values())
    (file,) = (ROOT / "benchmarks/results").glob("memory-*.json")
    kept = [r["kept_unfold_ms"] / r["kept_fast_ms"] for r in json.loads(file.read_text())["rows"]]
    kept = f"{min(kept):.0f} to {max(kept):.0f} times"
    sizes = [r["unfold_bytes"] / r["fast_bytes"] for r in rows]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    where = f"{kept} where the allocator keeps its memory"
    assert f"is {forward} as fast as that ({training} in training; {where})" in text
    assert (round(min(sizes)), round(max(sizes))) == (7, 13)
    assert "takes a seventh to a thirteenth of the memory" in text
