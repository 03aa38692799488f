"""The mixing explorer in a real JupyterLab: the view and Python follow each other."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from test_mixing import Mixing

from acmix_edu.examples import colour_acmix, colour_features, photograph
from acmix_edu.explorers import MixingExplorer

MAKE = """
import json
from pathlib import Path
from acmix_edu.examples import colour_acmix, colour_features, photograph
from acmix_edu.explorers import MixingExplorer

explorer = MixingExplorer(colour_acmix(), colour_features(photograph("flower", 24)))

def note(change=None):
    names = ("alpha", "beta", "kernel_att", "kernel_conv", "pixel")
    Path("new.json").write_text(json.dumps({name: getattr(explorer, name) for name in names}))
    Path("new.json").replace("seen.json")

explorer.observe(note)
note()
explorer
"""
SET = "explorer.beta, explorer.kernel_att, explorer.pixel = -1.25, 3, (3, 4)"


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab with one notebook, which keeps everything in tmp_path."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(MAKE), nbformat.v4.new_code_cell(SET)],
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


def wait_until(true, seconds=60):
    for _ in range(seconds * 10):
        if true():
            return
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} seconds")


def run_cell(page):
    page.evaluate("jupyterapp.commands.execute('notebook:run-cell-and-select-next')")


def test_view_and_python_follow_each_other(browser, lab, tmp_path):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(lab)
    page.locator(".jp-Notebook-cell").nth(1).wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=60_000)
    run_cell(page)
    page.locator(".acmix-explorer").wait_for(timeout=60_000)
    explorer = MixingExplorer(colour_acmix(), colour_features(photograph("flower", 24)))
    shown = Mixing(page, explorer=explorer)
    shown.check()

    def python_says(**traits):
        seen = tmp_path / "seen.json"
        wait_until(lambda: traits.items() <= json.loads(seen.read_text()).items())

    # From the view to Python: arrow keys on a slider stay on it, a mouse click, a picked pixel.
    shown.control("alpha").focus()
    selected = page.locator(".jp-Notebook-cell.jp-mod-selected").count()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert shown.control("alpha").evaluate("(input) => input === document.activeElement")
    assert page.locator(".jp-Notebook-cell.jp-mod-selected").count() == selected
    python_says(alpha=0.53)
    shown.control("kernel_conv").select_option("5")
    python_says(kernel_conv=5)
    page.mouse.click(*shown.place("picture", 10, 20))
    python_says(pixel=[10, 20])
    shown.frame("picture").focus()
    page.keyboard.press("ArrowUp")
    python_says(pixel=[9, 20])
    page.mouse.move(0, 0)
    explorer.alpha, explorer.kernel_conv, explorer.pixel = 0.53, 5, (9, 20)
    shown.check()

    # From Python to the view.
    page.locator(".jp-Notebook-cell").nth(1).locator(".cm-content").click()
    run_cell(page)
    python_says(beta=-1.25, kernel_att=3, pixel=[3, 4])
    page.wait_for_function("document.querySelector('[name=beta]').value === '-1.25'")
    page.wait_for_function("document.querySelector('[name=kernel_att]').value === '3'")
    shown.root.get_by_label("Picture, pixel row 3, column 4").wait_for()
    page.mouse.move(0, 0)
    shown.control("kernel_att").scroll_into_view_if_needed()
    explorer.beta, explorer.kernel_att, explorer.pixel = -1.25, 3, (3, 4)
    assert shown.control("kernel_att").input_value() == "3"
    shown.check()
    context.close()
