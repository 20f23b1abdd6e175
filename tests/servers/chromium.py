"""Pages as headless Chromium shows them: no network, no console error, every figure drawn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (1280, 390)  # a desk and a phone
needed = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@contextmanager
def browser() -> Iterator[Browser]:
    """Open a browser as long as the context lasts."""
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@contextmanager
def sound_page(browser: Browser, path: Path, width: int) -> Iterator[Page]:
    """Open a page, and hold it to drawing all without errors, network, or being too wide."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: errors.append(f"a script ran: {dialog.message}"))
    page.goto(path.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.plotly-graph-div').length > 0 &&"
        "[...document.querySelectorAll('.plotly-graph-div')]"
        ".every(figure => figure.querySelectorAll('.trace, .point, .hm').length > 0)",
        timeout=20_000,
    )
    assert errors == []
    assert requests == [path.as_uri()]
    # wide tables scroll by themselves; the page does not
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    yield page
    page.close()
