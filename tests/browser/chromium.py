"""Find the Chromium that the browser tests drive, or obtain one: `python chromium.py`.

First a system's Chromium or Chrome, then the one that Playwright keeps, then Playwright's
download, then the distribution's package where this may be installed. Never a silent skip.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def on_the_system() -> str | None:
    """Return the path of an installed Chromium that starts, or None."""
    paths = [shutil.which(name) for name in NAMES] + [p for p in PLACES if Path(p).exists()]
    return next((path for path in paths if path and starts(path)), None)


def starts(path: str) -> bool:
    if sys.platform == "win32":
        return True  # there, --version opens a window
    return subprocess.run([path, "--version"], capture_output=True).returncode == 0


def of_playwright() -> str | None:
    """Return the path of Playwright's own Chromium if it has been downloaded, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def download() -> None:
    print("no Chromium found: trying `playwright install chromium`", file=sys.stderr)
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    try:
        subprocess.run(command, timeout=600, stdout=sys.stderr)
    except subprocess.TimeoutExpired:
        print("the download took more than 10 minutes: given up", file=sys.stderr)


def install_package() -> None:
    if shutil.which("apt-get") and getattr(os, "geteuid", lambda: 1)() == 0:
        print("trying `apt-get install chromium`", file=sys.stderr)
        subprocess.run(["apt-get", "update"], stdout=sys.stderr)
        subprocess.run(["apt-get", "install", "-y", "chromium"], stdout=sys.stderr)


def executable() -> str:
    """Return the path of a Chromium, obtained if need be, or exit with what to do."""
    if path := on_the_system() or of_playwright():
        return path
    download()
    if path := of_playwright():
        return path
    install_package()
    if path := on_the_system():
        return path
    raise SystemExit(
        "The browser tests need Chromium or Chrome; none was found and none could be obtained. "
        "Install one (Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask "
        "chromium; anywhere: python -m playwright install chromium) and run the tests again."
    )


if __name__ == "__main__":
    print(executable())
