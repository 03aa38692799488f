"""What does a page weigh, and how soon can it be read on a phone?

Run it from the root of the repository, after `make book`: ``python benchmarks/pages.py [NAME…]``.
The phone: a processor four times slower, 1.6 Mbit/s, 150 ms a request; the server packs text with
gzip. Where there is npm, Lighthouse, fetched into _build/, gives its scores (mobile, each page
once: they vary by a few points).
"""

import functools
import gzip
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from chromium import ARGUMENTS, executable  # noqa: E402
from weight import PARTS, weigh  # noqa: E402

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
PAGES = [TOC["root"]] + [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
NETWORK = {
    "offline": False, "latency": 150,
    "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8,
}  # fmt: skip
LIGHTHOUSE = ROOT / "_build/lighthouse/node_modules/.bin/lighthouse"
VERSION = "lighthouse@12.8.2"
OBSERVE = """() => {
  window.seen = {};
  const watch = (type, note) => new PerformanceObserver((list) => list.getEntries().forEach(note))
    .observe({ type, buffered: true });
  const add = (name, value) => (seen[name] = (seen[name] ?? 0) + value);
  watch("paint", (e) => (seen[e.name] = e.startTime));
  watch("largest-contentful-paint", (e) => (seen.largest = e.startTime));
  watch("longtask", (e) => add("blocked", Math.max(0, e.duration - 50)));
  watch("layout-shift", (e) => add("shift", e.hadRecentInput ? 0 : e.value));
}"""


class Packed(http.server.SimpleHTTPRequestHandler):
    """Serves files, text packed with gzip, as a host of static pages does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send_head(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in (".html", ".css", ".js", ".svg") or not path.is_file():
            return super().send_head()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        for name, value in (
            ("Content-Type", self.guess_type(str(path))),
            ("Content-Encoding", "gzip"),
            ("Content-Length", len(body)),
        ):
            self.send_header(name, str(value))
        self.end_headers()
        return io.BytesIO(body)


def main() -> None:
    if not (ROOT / "_build/html/index.html").exists():
        raise SystemExit("There is no built book in _build/html: run `make book` first.")
    handler = functools.partial(Packed, directory=str(ROOT / "_build/html"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        addresses = {
            name: f"http://127.0.0.1:{httpd.server_port}/{name}.html"
            for name in sys.argv[1:] or PAGES
        }
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
            print_weights(browser, addresses)
            print_paints(browser, addresses)
            browser.close()
        print_scores(addresses)
        httpd.shutdown()


def print_weights(browser, addresses: dict[str, str]) -> None:
    names = [*PARTS, "lazy"]
    print(f"kB, packed{'':15}{'sum':>7}" + "".join(f"{name:>12}" for name in names))
    for name, address in addresses.items():
        context = browser.new_context()
        weight = weigh(context.new_page(), address)
        context.close()
        cells = "".join(f"{weight[part] / 1000:12.1f}" for part in names)
        print(f"{name:25}{sum(weight[part] for part in PARTS) / 1000:7.1f}{cells}")


def print_paints(browser, addresses: dict[str, str]) -> None:
    print(f"\n{'as on a phone':25}{'first, s':>9}{'largest, s':>11}{'blocked, ms':>12}{'shift':>7}")
    for name, address in addresses.items():
        context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True)
        page = context.new_page()
        wire = context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.send("Network.emulateNetworkConditions", NETWORK)
        wire.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        page.add_init_script(f"({OBSERVE})()")
        page.goto(address, wait_until="networkidle")
        seen = {"blocked": 0, "shift": 0} | page.evaluate("() => window.seen")
        context.close()
        print(
            f"{name:25}{seen['first-contentful-paint'] / 1000:9.2f}{seen['largest'] / 1000:11.2f}"
            f"{seen['blocked']:12.0f}{seen['shift']:7.3f}"
        )


def print_scores(addresses: dict[str, str]) -> None:
    if shutil.which("npm") and not LIGHTHOUSE.exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", "_build/lighthouse"]
        subprocess.run([*command, VERSION], cwd=ROOT, stdout=sys.stderr)
    if not LIGHTHOUSE.exists():
        return print(f"\nno Lighthouse scores: npm, or {VERSION} with it, cannot be had here")
    print(f"\n{VERSION:25}{'performance':>12}{'accessibility':>14}  what is not perfect")
    for name, address in addresses.items():
        report = lighthouse(address)
        scores = [report["categories"][kind]["score"] for kind in ("performance", "accessibility")]
        refs = report["categories"]["accessibility"]["auditRefs"]
        faults = [r["id"] for r in refs if report["audits"][r["id"]]["score"] == 0]
        print(f"{name:25}{scores[0]:12.2f}{scores[1]:14.2f}  {' '.join(faults)}")


def lighthouse(address: str) -> dict:
    command = [
        str(LIGHTHOUSE), address, "--output=json", "--quiet",
        "--only-categories=performance,accessibility",
        f"--chrome-flags=--headless=new {' '.join(ARGUMENTS)}",
    ]  # fmt: skip
    environment = os.environ | {"CHROME_PATH": executable()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"Lighthouse failed on {address}:\n{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
