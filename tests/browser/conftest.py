"""A Chromium with the network cut, the built book, and a server for it on this machine."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import ARGUMENTS, executable
from playwright.sync_api import sync_playwright

from acmix_edu.explorers.loader import bundle

ROOT = Path(__file__).resolve().parents[2]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def pytest_addoption(parser):
    built = ROOT / "_build" / "html"
    parser.addoption("--book", type=Path, default=built, help="the folder of the built pages")


@pytest.fixture(scope="session")
def built_book(request) -> Path:
    """The folder of the built pages."""
    book = request.config.getoption("--book")
    if not (book / "index.html").exists():
        pytest.fail(f"There is no built book in {book}: run `make book` first.")
    return book


@pytest.fixture(scope="session")
def server(built_book):
    """The address of the built book, served over http."""
    handler = functools.partial(Quiet, directory=str(built_book))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Make pages with the network cut: `open_page(**options of browser.new_context)`.

    When the test ends, each page must have asked no other host for anything, logged nothing to
    the console but plain messages, and thrown no error. `page.complaints` is the list kept.
    """
    contexts, complaints = [], []

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.route("**/*", functools.partial(let_home_through, complaints))
        page = context.new_page()
        page.set_default_timeout(45_000)
        page.complaints = complaints
        page.on("console", lambda message: note_console(complaints, page, message))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: threw {error}"))
        page.on("response", lambda answer: note_response(complaints, answer))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def page(open_page):
    """One such page, of a desk's size."""
    return open_page(viewport={"width": 1280, "height": 800})


@pytest.fixture
def phone(open_page):
    """One of a phone's size, under fingers."""
    return open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)


BESIDE = """async ([source, argument]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { inTest } = await import(url);
  return inTest(JSON.parse(argument));
}"""


@pytest.fixture
def beside(page):
    """Call a JavaScript function that stands in an explorer's files, on a blank page.

    `beside(files, function, argument)` returns what it returns.
    """

    def call(files, function, argument):
        page.goto("about:blank")
        source = f"{bundle(*files)}\nexport const inTest = {function};"
        return page.evaluate(BESIDE, [source, json.dumps(argument)])

    return call


def let_home_through(complaints, route):
    url = urlsplit(route.request.url)
    if url.scheme in ("file", "blob", "data") or url.hostname == "127.0.0.1":
        return route.continue_()
    complaints.append(f"{route.request.frame.url}: asked for {route.request.url}")
    return route.abort()


def note_console(complaints, page, message):
    if message.type in ("error", "warning"):
        complaints.append(f"{page.url}: console {message.type}: {message.text}")


def note_response(complaints, answer):
    if answer.status >= 400:
        complaints.append(f"{answer.frame.url}: {answer.url} answered {answer.status}")
