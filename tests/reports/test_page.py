"""The page as a browser shows it: no network, no console error, every figure drawn, any width."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from servescope.reports import Story, write

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium
from playwright.sync_api import Browser, Page

pytestmark = chromium.needed
LIGHT_INK, DARK_INK = "rgb(36, 41, 47)", "rgb(230, 237, 243)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(pair: Story, single: Story, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    pages = {"pair": out / "pair.html", "single": out / "single.html"}
    write(pair, pages["pair"])
    write(single, pages["single"])
    return pages


@pytest.mark.parametrize("width", chromium.WIDTHS)
@pytest.mark.parametrize("kind", ["pair", "single"])
def test_the_page_is_drawn_whole_without_network_or_errors(
    browser: Browser, pages: dict[str, Path], kind: str, width: int
) -> None:
    with chromium.sound_page(browser, pages[kind], width) as page:
        figures = page.locator(".plotly-graph-div")
        assert figures.count() == (14 if kind == "pair" else 8)
        for figure in figures.all():
            box = figure.bounding_box()
            assert box is not None
            assert box["height"] > 100
            assert box["x"] + box["width"] <= width + 1


def test_on_paper_nothing_is_wider_than_the_page(browser: Browser, pages: dict[str, Path]) -> None:
    paper = 718  # A4 less margins, at 96 dots an inch
    with chromium.sound_page(browser, pages["pair"], 1280) as page:
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.set_viewport_size({"width": paper, "height": 1000})
        assert page.evaluate("document.documentElement.scrollWidth") <= paper
        assert not page.locator("nav").is_visible()


def test_the_headings_can_be_reached_from_the_top(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["pair"].as_uri())
    links = page.locator("nav a").all()
    assert len(links) == page.locator("h2").count()
    for link in links:
        target = link.get_attribute("href") or ""
        assert page.locator(target).count() == 1
    page.close()


def inks(page: Page) -> set[str]:
    """The colours of all that should be written and drawn in ink."""
    return set(
        page.evaluate(
            """() => [
                ...document.querySelectorAll("h1, td, .xtick text, .legendtext, .ytitle"),
            ].map(each => each instanceof SVGElement ? getComputedStyle(each).fill
                : getComputedStyle(each).color).concat(
                [...document.querySelectorAll(".shapelayer path")]
                .map(each => getComputedStyle(each).stroke).filter(each => each != "rgb(0, 0, 0)"))
            """
        )
    )


def test_an_explicit_theme_beats_the_system_and_paper_is_light(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with chromium.sound_page(browser, pages["pair"], 1280) as page:
        theme = "theme => document.documentElement.dataset.theme = theme"
        assert inks(page) == {LIGHT_INK}
        page.emulate_media(color_scheme="dark")
        assert inks(page) == {DARK_INK}
        page.evaluate(theme, "light")
        assert inks(page) == {LIGHT_INK}
        page.emulate_media(color_scheme="light")
        page.evaluate(theme, "dark")
        assert inks(page) == {DARK_INK}
        page.emulate_media(media="print", color_scheme="dark")
        assert inks(page) == {LIGHT_INK}


def test_lines_of_runs_keep_their_colours_in_the_dark(
    browser: Browser, pages: dict[str, Path]
) -> None:
    with chromium.sound_page(browser, pages["pair"], 1280) as page:
        drawn = "[...document.querySelectorAll('.scatterlayer .js-line')]"
        colours = f"{drawn}.map(each => getComputedStyle(each).stroke)"
        light = page.evaluate(colours)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(colours) == light
        assert "rgb(0, 114, 178)" in light
