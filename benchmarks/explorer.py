"""How long from a slider's move to the new drawing, in headless Chromium?

Run it from the root of the repository: ``python benchmarks/explorer.py``. The picture has 48×48
pixels and 16 channels, the module 4 heads; a redraw should stay below 16 ms at kernel 7. "Redraw"
is the script's work for one move; "to paint" is the time from the input event until that frame
has been painted, with the wait for the frame (up to 16.7 ms at 60 Hz).
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from acmix_edu import ACmix
from acmix_edu.explorers import MixingExplorer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from alone import write_page  # noqa: E402
from chromium import ARGUMENTS, executable  # noqa: E402

REPEATS = 60
STATES = {  # what moves, from which value to which: the way back is not counted
    "α": ("alpha", [-1.0, 0.7]),
    "β": ("beta", [-1.0, 0.7]),
    "attention kernel to 7": ("kernel_att", [5, 7]),
    "attention kernel to 13": ("kernel_att", [11, 13]),
    "dilation to 2, kernel 7": ("dilation", [1, 2]),
    "convolution kernel to 5": ("kernel_conv", [3, 5]),
    "head": ("head", [0, 1]),
    "channel": ("channel", [0, 1]),
}

# Moves a control, then times what runs in the frame that follows: two callbacks of one frame run
# in the order in which they were asked for, and the explorer's stands between ours.
MEASURE = """async ([name, values, repeats]) => {
  const control = document.querySelector(`[name="${name}"]`);
  const frame = () => new Promise(requestAnimationFrame);
  const work = [], paint = [];
  for (let n = 0; n < repeats; n++) {
    await frame();
    let before;
    const started = performance.now();
    requestAnimationFrame(() => (before = performance.now()));
    control.value = values[n % values.length];
    control.dispatchEvent(new Event("input", { bubbles: true }));
    const handled = performance.now() - started;
    await new Promise((done) => requestAnimationFrame(() => {
      work.push(handled + performance.now() - before);
      const channel = new MessageChannel();  // the first task after this frame's painting
      channel.port1.onmessage = () => done(paint.push(performance.now() - started));
      channel.port2.postMessage(0);
    }));
  }
  return [work, paint];
}"""


def main() -> None:
    torch.manual_seed(0)
    explorer = MixingExplorer(ACmix(16, 16), torch.randn(16, 48, 48))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_page(explorer, Path(folder) / "page.html")
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((Path(folder) / "page.html").as_uri())
        page.locator(".acmix-explorer canvas").first.wait_for()
        print(f"Chromium {browser.version}, 48×48, 16 channels, 4 heads, {REPEATS} moves each, ms")
        print(f"{'':26}{'redraw: median':>15}{'p95':>7}{'to paint: median':>19}{'p95':>7}")
        for label, (name, values) in STATES.items():
            page.evaluate(MEASURE, [name, values, 6])  # warm up
            times = page.evaluate(MEASURE, [name, values, 2 * REPEATS])
            there = [kind[1::2] for kind in times]
            cells = [f(kind) for kind in there for f in (statistics.median, p95)]
            print(f"{label:26}{cells[0]:15.1f}{cells[1]:7.1f}{cells[2]:19.1f}{cells[3]:7.1f}")
            page.get_by_role("button", name="Reset").click()
        browser.close()


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


if __name__ == "__main__":
    main()
