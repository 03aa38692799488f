"""How soon are the explorers ready, how quickly do they answer, and do they keep memory flat?

Asked: ready within 300 ms of the page's load event; from the input event to the end of that
frame's painting at most 16 ms (95th percentile) for each control at the default size; after 10,000
random events no error, and no more memory or elements than after 1,000.

An input event is sent just before a frame, as browsers send those of a pointer. "Work" is the
script's part of that frame, "paint" the time until the first task after the frame. Without a GPU
the browser paints in software.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from acmix_edu import explorers
from acmix_edu.examples import colour_acmix, colour_features, photograph

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from alone import write_page  # noqa: E402
from chromium import ARGUMENTS, executable  # noqa: E402

MOVES, EVENTS = 40, 10_000


def mixing():
    features = colour_features(photograph("flower", 48))
    return explorers.MixingExplorer(colour_acmix(), features, head=1, channel=1, pixel=(13, 12))


def widgets():
    """A function that makes each explorer as the book shows it, by name."""
    kinds = [getattr(explorers, name) for name in explorers.__all__]
    kinds = [kind for kind in kinds if issubclass(kind, explorers.explorer.Explorer)]
    made = {kind.__name__: mixing if kind is explorers.MixingExplorer else kind for kind in kinds}
    return dict(sorted(made.items()))


# The time from the load event until the explorer stands and its first frame is painted.
READY = """async () => {
  const [navigation] = performance.getEntriesByType("navigation");
  while (!document.querySelector(".acmix-explorer")) await new Promise(requestAnimationFrame);
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - navigation.loadEventEnd;
}"""

# Moves a control to and fro, just before a frame as browsers do for a pointer.
MOVE = """async ([name, moves]) => {
  const control = document.querySelector(`.acmix-explorer [name="${name}"]`);
  const change = (n) => {
    if (control.type === "checkbox") control.checked = n % 2;
    else if (control.tagName === "SELECT") control.selectedIndex = n % control.length;
    else {
      const { min, max, step } = control, [low, size] = [Number(min), Number(step)];
      const steps = Math.floor((Number(max) - low) / size);
      control.value = low + size * Math.min(steps, Math.floor(steps / 2) + n % 2);
    }
    control.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const work = [], paint = [];
  for (let n = 0; n < moves; n++) {
    await new Promise((done) => requestAnimationFrame(() => {
      const channel = new MessageChannel();  // a task between this frame and the next
      channel.port1.onmessage = done;
      channel.port2.postMessage(0);
    }));
    await new Promise((done) => {
      let started, handled;
      requestAnimationFrame(() => {  // runs first in the frame: the event comes as it begins
        started = performance.now();
      });
      // what the explorer asks for now runs next in the same frame
      const before = performance.now();
      change(n);
      handled = performance.now() - before;
      requestAnimationFrame(() => {
        work.push(handled + performance.now() - started);
        const channel = new MessageChannel();
        channel.port1.onmessage = () => done(paint.push(handled + performance.now() - started));
        channel.port2.postMessage(0);
      });
    });
  }
  return [work, paint];
}"""

# Uses anything that can be used, at random, with a frame after every ten events.
USE = """async ([seed, events]) => {
  let state = seed;
  const random = () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
  const pick = (list) => list[Math.floor(random() * list.length)];
  const root = document.querySelector(".acmix-explorer");
  const keys = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
  for (let n = 0; n < events; n++) {
    const usable = root.querySelectorAll("input:not([type=file]), select, button, [tabindex='0']");
    const thing = pick([...usable].filter((node) => !node.closest(".own")));
    if (thing.tagName === "SELECT") thing.selectedIndex = Math.floor(random() * thing.length);
    if (thing.type === "range") {
      const [low, high] = [thing.min, thing.max].map(Number);
      thing.value = low + random() * (high - low);
    }
    if (thing.type === "checkbox") thing.checked = random() < 0.5;
    const bubbles = { bubbles: true, cancelable: true };
    if (thing.matches("input, select")) thing.dispatchEvent(new Event("input", bubbles));
    else if (thing.tagName === "BUTTON") thing.click();
    else if (random() < 0.5) {
      thing.dispatchEvent(new KeyboardEvent("keydown", { key: pick(keys), ...bubbles }));
    } else {
      const { left, top, width, height } = thing.getBoundingClientRect();
      const at = { clientX: left + random() * width, clientY: top + random() * height };
      const pointer = { ...at, pointerType: "mouse", pointerId: 1, ...bubbles };
      for (const kind of ["pointermove", "click", "pointerleave"]) {
        thing.dispatchEvent(new PointerEvent(kind, pointer));
      }
    }
    if (n % 10 === 0) await new Promise(requestAnimationFrame);
  }
  await new Promise((done) => setTimeout(done, 500));
}"""


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


def memory(page) -> tuple[float, int]:
    """MB of the script's heap after a collection, and the number of nodes."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return metrics["JSHeapUsedSize"] / 2**20, int(metrics["Nodes"])


def measure(page, events: int) -> None:
    ready = page.evaluate(READY)
    print(f"  ready {ready:.0f} ms after the load event")
    controls = page.locator(".acmix-explorer :is(input, select)[name]")
    for name in controls.evaluate_all("(all) => all.map((control) => control.name)"):
        page.evaluate(MOVE, [name, 6])  # warm up
        work, paint = page.evaluate(MOVE, [name, MOVES])
        cells = (statistics.median(work), p95(work), statistics.median(paint), p95(paint))
        print("  {:14} work {:5.1f} (p95 {:5.1f})   paint {:5.1f} (p95 {:5.1f}) ms".format(
            name, *cells))  # fmt: skip
        page.get_by_role("button", name="Reset").click()
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("console", lambda message: errors.append(message.text))
    page.evaluate(USE, [1, events // 10])
    megabytes, nodes = memory(page)
    page.evaluate(USE, [2, events - events // 10])
    after, nodes_after = memory(page)
    print(f"  {events:,} events: heap {megabytes:.1f} → {after:.1f} MB, nodes {nodes:,} → "
          f"{nodes_after:,}, {len(errors)} complaints {errors[:2] or ''}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="of the classes; all of them when left out")
    parser.add_argument("--events", type=int, default=EVENTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        print(f"Chromium {browser.version}, {MOVES} moves of each control")
        for name, make in widgets().items():
            if options.names and name not in options.names:
                continue
            print(name)
            explorer = make()
            write_page(explorer, Path(folder) / f"{name}.html")
            explorer.close()
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto((Path(folder) / f"{name}.html").as_uri())
            measure(page, options.events)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
