"""Every explorer in a real JupyterLab, made as its docstring shows: view and Python are one."""

import ast
import base64
import contextlib
import doctest
import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import numpy as np
import pytest
import test_budget
import test_denoise
import test_film
import test_grouped
import test_training_explorer
import torch
from PIL import Image
from shown import TWO_FRAMES, Shown
from test_attention_page import Attention
from test_halo import Halo
from test_kernel import Kernel
from test_mixing import Mixing
from test_program import Program
from test_shift_page import Shift
from test_unfold import Unfold
from test_walk import Walk

import acmix_edu
from acmix_edu import explorers

# ---- What is drawn, held against what Python computes for the page's state -------------------


class Here:
    """An explorer on the notebook's page, and the same explorer in Python."""

    def __init__(self, page, explorer):
        Shown.__init__(self, page, type(self).__name__.lower())
        self.explorer = explorer


class Budget(Here, test_budget.Budget):
    check = test_budget.check


class Denoise(Here, test_denoise.Denoise):
    def pictures(self):
        """The reader's own picture, not the chapter's."""
        return self.explorer._clean, self.explorer._noisy


class Film(Here, test_film.Film):
    pass


class Grouped(Here, test_grouped.Grouped):
    pass


class Training(Here, Shown):
    check = test_training_explorer.check


VIEWS = {
    "attention": Attention,
    "budget": Budget,
    "denoise": Denoise,
    "film": Film,
    "grouped": Grouped,
    "halo": Halo,
    "kernel": Kernel,
    "mixing": Mixing,
    "program": Program,
    "shift": Shift,
    "training": Training,
    "unfold": Unfold,
    "walk": Walk,
}
FIRST = {  # then all controls are there
    "budget": {"measure": "memory"},
    "mixing": {"more": True},
    "shift": {"twice": True},
}


def show(page, name, explorer):
    """Bring the explorer of this name into sight; it shall show what `explorer` shows."""
    page.locator(f".acmix-explorer.{name}").scroll_into_view_if_needed()
    page.mouse.move(0, 0)
    return VIEWS[name](page, explorer=explorer)


def check(shown):
    """Hold all that is drawn against Python; return every map, and the values of the controls."""
    shown.follow()
    shown.check()
    maps = {name: levels.tobytes() for name, levels in shown.drawn().items()}
    return maps, {name: value(shown.control(name)) for name in usable(shown)}


# ---- The notebook ----------------------------------------------------------------------------

BEGIN = """
import torch
from acmix_edu import *
from acmix_edu.explorers import *
%config InteractiveShell.ast_node_interactivity = "all"
made, heard = {}, []
"""
SET = "made['mixing'].beta, made['mixing'].kernel_att, made['mixing'].pixel = -1.25, 3, (3, 4)"
MAKES = {name: f"{name.capitalize()}Explorer" for name in VIEWS} | {"panel": "SpeedPanel"}


def example(name):
    """The example in a docstring: its lines, and what they print."""
    lines = doctest.DocTestParser().get_examples(getattr(explorers, MAKES[name]).__doc__)
    return "".join(line.source for line in lines), "".join(line.want for line in lines)


def cells():
    made = {name: "panel" if name == "panel" else "explorer" for name in MAKES}
    shows = [f"_ = torch.manual_seed(0)\n{example(name)[0]}made['{name}'] = {variable}\n{variable}"
             for name, variable in made.items()]  # fmt: skip
    return [BEGIN, *shows, SET]


def twin(name):
    """The same explorer in this process."""
    torch.manual_seed(0)
    names = {"torch": torch, **vars(acmix_edu), **vars(explorers)}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(example(name)[0], names)
    return names["explorer"]


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab with one notebook, which keeps everything in tmp_path."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells()],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path / name.lower()) for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
        "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1",
               f"--port={port}", "--IdentityProvider.token=", f"--notebook-dir={tmp_path}",
               "--expose-app-in-browser", "--allow-root", "--LabApp.news_url=",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | own | {"PYTHONPATH": root}, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}/api"
            wait_until(lambda: process.poll() is not None or answers(url))
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            yield f"http://127.0.0.1:{port}/lab/tree/notebook.ipynb"
        finally:
            process.terminate()
            process.wait(timeout=20)


def answers(url):
    try:
        with urlopen(url, timeout=1):
            return True
    except (URLError, OSError):
        return False


def wait_until(true, seconds=240, why="the server answers"):
    for _ in range(seconds * 10):
        if found := true():
            return found
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} seconds: {why}")


@pytest.fixture
def page(lab, open_page):  # in this order: the page closes first
    """The notebook in JupyterLab, all its cells but the last executed."""
    page = open_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(240_000)
    page.goto(lab)
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
    for _ in cells()[:-1]:
        run_cell(page)
    python(page)  # comes after the cells
    page.set_default_timeout(60_000)
    return page


def run_cell(page):
    page.evaluate("jupyterapp.commands.execute('notebook:run-cell-and-select-next')")


ASK = """async ([code, answer]) => {
  const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
  const request = { code, user_expressions: { answer }, store_history: false };
  const { content } = await kernel.requestExecute(request).done;
  return [content, content.user_expressions?.answer];
}"""


def python(page, code="", answer="None"):
    """Execute code in the notebook's kernel, and return the value of an expression."""
    content, said = page.evaluate(ASK, [code, answer])
    assert content["status"] == "ok", content
    assert said["status"] == "ok", said
    return ast.literal_eval(said["data"]["text/plain"])


# ---- Controls --------------------------------------------------------------------------------

USABLE = """(root) => [...root.querySelectorAll(
  "input[name][type=range], input[name][type=checkbox], select[name]")].filter((input) =>
  input.checkVisibility() && !input.disabled && input.length !== 1
  && (input.type !== "range" || input.min !== input.max)).map((input) => input.name)"""
VALUE = "(input) => input.type === 'checkbox' ? input.checked : input.value"
SELECTED = """[...document.querySelectorAll(".jp-Notebook-cell")].map((cell) =>
  cell.classList.contains("jp-mod-selected"))"""
KEYS = """(input) => input.type === "checkbox" ? "Space"
  : input.type === "range" ? (input.value === input.max ? "ArrowLeft" : "ArrowRight")
  : input.selectedIndex === input.length - 1 ? "ArrowUp" : "ArrowDown" """


def usable(shown):
    """The names of the native controls that can be moved now."""
    return shown.root.evaluate(USABLE)


def value(control):
    return control.evaluate(VALUE)


def state(shown, name):
    """What Python says, once it says the same as the view."""

    def same():
        said = python(shown.page, answer=f"made['{name}'].state()")
        return said if said == shown.state() else None

    return wait_until(same, 90, f"{name}: Python and the view say the same")


def put(shown, name, values):
    """Set traits from Python, and wait until the view has drawn them."""
    code = f"for trait, value in {values}.items(): setattr(made['{name}'], trait, value)"
    python(shown.page, code)
    wait_until(lambda: values.items() <= shown.state().items(), 90, f"{name}: the view follows")
    shown.page.evaluate(TWO_FRAMES)


def press(shown, name, control):
    """Move a control by a key; Python must follow, and an observer hear of just what is new."""
    page, says = shown.page, f"made['{name}'].state()"
    before = python(page, "heard.clear()", says)
    control.focus()
    selected = page.evaluate(SELECTED)
    page.keyboard.press(control.evaluate(KEYS))
    what = f"{name}: Python follows {control.get_attribute('name')}"
    wait_until(lambda: python(page, answer=says) != before, 90, what)
    after = state(shown, name)
    assert set(python(page, answer="heard")) == {t for t in after if after[t] != before[t]}
    assert control.evaluate("(input) => input === document.activeElement")
    assert page.evaluate(SELECTED) == selected


def check_output(page, name):
    """The cell has printed what the docstring says, and shown the widget."""
    cell = page.locator(".jp-Notebook-cell").nth(1 + list(MAKES).index(name))
    cell.locator(".acmix-explorer, .widget-gridbox").wait_for(state="attached")
    *printed, _ = cell.locator(".jp-OutputArea-output").all_text_contents()
    assert "\n".join(printed).split() == example(name)[1].split()


def follow_each_other(page, name):
    """From the docstring's example: all controls, by keys; "Reset"; then the same from Python."""
    check_output(page, name)
    shown = show(page, name, twin(name))
    start = state(shown, name)
    assert start == shown.explorer.state()
    check(shown)
    put(shown, name, FIRST.get(name, {}))
    python(page, f"made['{name}'].observe(lambda change: heard.append(change.name), {list(start)})")
    controls = usable(shown)
    assert controls
    for control in reversed(controls):  # the first ones hide others
        press(shown, name, shown.control(control))
    moved, seen = state(shown, name), check(shown)
    shown.root.get_by_role("button", name="Reset").click()
    start = state(shown, name)
    assert start == python(page, answer=f"made['{name}'].start") != moved
    same = {control for control, value in check(shown)[1].items() if seen[1].get(control) == value}
    assert all(start[trait] == moved[trait] for trait in same & set(start))
    put(shown, name, moved)
    assert check(shown) == seen


def pixel_and_cell(page):
    """A pixel by the mouse and by the arrow keys; then a cell of the notebook sets traits."""
    shown = show(page, "mixing", twin("mixing"))

    def chosen():  # JupyterLab lays its cells out late: the picture may move under the pointer
        page.mouse.click(*shown.place("picture", 10, 20))
        return state(shown, "mixing")["pixel"] == [10, 20]

    wait_until(chosen, 20, "a click chooses its pixel")
    shown.frame("picture").focus()
    page.keyboard.press("ArrowUp")
    page.mouse.move(0, 0)
    assert state(shown, "mixing")["pixel"] == [9, 20]
    check(shown)
    page.locator(".jp-Notebook-cell").last.locator(".cm-content").click()
    run_cell(page)
    page.wait_for_function("document.querySelector('[name=beta]').value === '-1.25'")
    now = state(shown, "mixing")
    assert (now["beta"], now["kernel_att"], now["pixel"]) == (-1.25, 3, [3, 4])
    shown.root.get_by_label("Picture, pixel row 3, column 4").wait_for()
    check(shown)
    assert value(shown.control("kernel_att")) == "3"


def linked(page):
    """A key on one explorer's slider moves the other one, in the browser and in Python."""
    code = "link = ipywidgets.jslink((made['film'], 'moment'), (made['denoise'], 'moment'))"
    python(page, f"import ipywidgets; {code}")
    for name, other, key, moment in (("film", "denoise", "Home", 0),
                                     ("denoise", "film", "ArrowRight", 1)):  # fmt: skip
        show(page, name, twin(name)).control("moment").press(key)
        shown = show(page, other, twin(other))
        page.wait_for_function(
            f"document.querySelector('.{other} [name=moment]').value === '{moment}'"
        )
        assert state(shown, other)["moment"] == moment
        assert python(page, answer=f"made['{name}'].moment") == moment
        assert check(shown)[1]["moment"] == str(moment)


def measure(page):
    """The docstring's measurement, one by the button, and α by a key."""
    check_output(page, "panel")
    panel = page.locator(".jp-OutputArea-output .widget-vbox:has(.widget-gridbox)")
    panel.scroll_into_view_if_needed()
    says, button = panel.get_by_role("status"), panel.get_by_role("button", name="Measure")
    says.get_by_text("Measured on the processor.").wait_for()
    figures, picture = panel.locator("table").inner_text(), panel.locator("img")
    python(page, "made['panel'].controls['kernel_att'].value = 5")
    says.get_by_text("What is shown was measured before this change. Press Measure.").wait_for()
    button.press("Enter")
    says.get_by_text("Measured on the processor.").wait_for()
    assert panel.locator("table").inner_text() != figures
    before = picture.get_attribute("src")
    panel.locator(".widget-slider", has_text="α").get_by_role("slider").press("ArrowRight")
    wait_until(lambda: picture.get_attribute("src") != before, 90, "the maps are mixed anew")
    found = python(page, answer="[made['panel'].controls['alpha'].value, "
                                "made['panel'].results['kernel_att']]")  # fmt: skip
    assert found == [pytest.approx(0.55), 5]
    png = base64.b64decode(picture.get_attribute("src").partition(",")[2])
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(png))).reshape(-1, 4), axis=0)) > 50


# ---- Tests -----------------------------------------------------------------------------------


def test_view_and_python_follow_each_other(page, subtests):
    assert sorted(MAKES.values()) == explorers.__all__
    for name in VIEWS:
        with subtests.test(name):
            follow_each_other(page, name)
    with subtests.test("pixel by mouse and keys, traits by a cell"):
        pixel_and_cell(page)
    with subtests.test("two explorers linked in the browser"):
        linked(page)
    with subtests.test("speed panel"):
        measure(page)
