"""The page as a browser shows it: no network, no console error, every figure drawn, any width."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from servescope.reports import Story, write

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(pair: Story, single: Story, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    return {
        "pair": write(pair, out / "pair.html"),
        "single": write(single, out / "single.html"),
    }


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["pair", "single"])
def test_the_page_is_drawn_whole_without_network_or_errors(
    browser: Browser, pages: dict[str, Path], kind: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: errors.append(f"a script ran: {dialog.message}"))
    page.goto(pages[kind].as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.plotly-graph-div').length > 0 &&"
        "[...document.querySelectorAll('.plotly-graph-div')]"
        ".every(figure => figure.querySelectorAll('.trace, .point').length > 0)",
        timeout=20_000,
    )
    assert errors == []
    assert requests == [pages[kind].as_uri()]
    figures = page.locator(".plotly-graph-div")
    assert figures.count() == (10 if kind == "pair" else 8)
    for figure in figures.all():
        box = figure.bounding_box()
        assert box is not None
        assert box["height"] > 100
        assert box["x"] + box["width"] <= width + 1
    # wide tables scroll by themselves; the page does not
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_headings_can_be_reached_from_the_top(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["pair"].as_uri())
    links = page.locator("nav a").all()
    assert len(links) == page.locator("h2").count()
    for link in links:
        target = link.get_attribute("href") or ""
        assert page.locator(target).count() == 1
    page.close()
