"""The shape of the package: imports go one way, names are public, examples in docstrings run."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import acmix_edu

PACKAGE = Path(acmix_edu.__file__).parent
STORY = ["checks", "convolution", "shift", "depthwise", "altered", "attention", "fast", "acmix"]
STORY += ["replace", "deploy", "resnet", "cost"]
PACKAGES = ["fast", "training"]
HELPERS = {
    "attend",
    "check_maps",
    "computes_as_usual",
    "copied",
    "is_hooked",
    "is_plain",
    "refuse_other_layers",
    "refuse_other_stages",
    "reflect",
    "swap",
}
LATER = ["training", "examples", "exercises", "figures", "explorers"]


def imported(path: Path) -> set[str]:
    """The package's own modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("acmix_edu."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "acmix_edu":
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(
                a.name.split(".")[1] for a in node.names if a.name.startswith("acmix_edu.")
            )
    return names


@pytest.mark.parametrize("name", STORY)
def test_imports_go_one_way(name):
    earlier = set(STORY[: STORY.index(name)])
    files = [PACKAGE / f"{name}.py"] if name not in PACKAGES else (PACKAGE / name).glob("*.py")
    for file in files:
        assert imported(file) - {name} <= earlier


def test_every_module_has_its_place():
    found = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.parent.name for p in PACKAGE.glob("*/__init__.py")
    }
    assert found - {"__init__"} == set(STORY + LATER)


def test_importing_is_light():
    """Every worker of a data loader pays for it: no compiler, and nothing of the book."""
    heavy = {"torch._dynamo", "matplotlib", "anywidget", "ipywidgets", "sklearn", "PIL"}
    code = f"import sys, acmix_edu; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_stages_are_public():
    assert sorted(acmix_edu.__all__) == acmix_edu.__all__
    defined = {
        name
        for module in STORY[1:]
        for name, thing in vars(importlib.import_module(f"acmix_edu.{module}")).items()
        if getattr(thing, "__module__", "") == f"acmix_edu.{module}" and not name.startswith("_")
    }
    assert defined - set(acmix_edu.__all__) == HELPERS


@pytest.mark.parametrize("name", acmix_edu.__all__)
def test_public_names_are_documented_with_an_example(name):
    text = inspect.getdoc(getattr(acmix_edu, name))
    assert text and text.split("\n")[0].endswith(".")
    if name not in {"Cost", "total", "conv3x3", "acmix3x3"}:
        assert ">>>" in text


def shown(page: str) -> dict[str, object]:
    """What a page of the reference shows, by name."""
    names = re.findall(r"auto(?:function|class):: (\w+)", page)
    things = {name: getattr(acmix_edu, name) for name in names}
    for name, members in re.findall(r"automodule:: (\S+)\n   :members:(.*)", page):
        module = importlib.import_module(name)
        own = [n for n, thing in vars(module).items() if getattr(thing, "__module__", "") == name]
        for member in members.split(",") if members else getattr(module, "__all__", own):
            things[f"{name}.{member.strip()}"] = getattr(module, member.strip())
    return {name: thing for name, thing in things.items() if "._" not in name}


@pytest.mark.parametrize("page", ["api", "api_stages", "api_book"])
def test_what_the_reference_shows_is_annotated_in_full(page):
    book = Path(__file__).resolve().parent.parent / "book"
    things = shown((book / f"{page}.md").read_text(encoding="utf-8"))
    for name, thing in things.copy().items():
        things |= {f"{name}.{method}": f for method, f in vars(thing).items() if method[0] != "_"}
        things[f"{name}.__init__"] = vars(thing).get("__init__")
    for name, function in things.items():
        if inspect.isfunction(function):
            wanted = {*inspect.signature(function).parameters, "return"} - {"self"}
            known = {"return"} if name.endswith("__init__") else set()
            assert wanted <= known | typing.get_type_hints(function).keys(), name


MODULES = sorted(
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if not file.stem.startswith("__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(f"acmix_edu.{name}"))
    assert result.failed == 0
