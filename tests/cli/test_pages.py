"""Pages of experiments and searches as a browser shows them: no network, no error, all drawn."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
STUDY = Path(__file__).parents[2] / "examples" / "two-schedulers.toml"
Cli = Callable[..., Any]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


def test_an_experiment_on_two_engines_ends_with_pages_that_need_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    """One command, the bundled Azure slice, two embedded engines, three loads."""
    ended = cli("experiment", "run", STUDY, "--out", tmp_path / "study")
    assert ended.code == 0
    assert ended.out.count("Verdict: ") == 3
    pages = [tmp_path / "study" / "overview.html", *(tmp_path / "study" / "reports").glob("*.html")]
    assert len(pages) == 4
    shown = look_at(pages)
    assert all(figures >= 5 for figures in shown)
    with browser() as chromium:
        overview = chromium.new_page()
        overview.goto(pages[0].as_uri())
        overview.locator(".verdict a").first.click()
        overview.wait_for_url("**/reports/*.html")
        assert "vllm_v0 against sarathi" in overview.title()


def test_a_search_for_capacity_ends_with_a_page_that_needs_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    ended = cli(
        *("capacity", "--isl", 2000, "--osl", 50, "--system", "sarathi", "--slo", "ttft<300ms"),
        *("--begin", 8, "--budget", 240, "--out", tmp_path / "search"),
    )
    assert ended.code == 0
    assert look_at([tmp_path / "search" / "capacity.html"]) == [1, 1]


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


def look_at(pages: Sequence[Path]) -> list[int]:
    """Open each page on a desk and on a phone; returns how many figures each drew."""
    figures = []
    with browser() as chromium:
        for width in (1280, 390):
            for path in pages:
                page = chromium.new_page(viewport={"width": width, "height": 900})
                wrong: list[str] = []
                asked: list[str] = []
                page.on(
                    "console", lambda m, to=wrong: to.append(m.text) if m.type == "error" else None
                )
                page.on("pageerror", lambda error, to=wrong: to.append(str(error)))
                page.on("request", lambda request, to=asked: to.append(request.url))
                page.goto(path.as_uri())
                page.wait_for_function(
                    "[...document.querySelectorAll('.plotly-graph-div')]"
                    ".every(figure => figure.querySelectorAll('.trace, .point').length > 0)",
                    timeout=20_000,
                )
                assert wrong == []
                assert asked == [path.as_uri()]
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.locator(".verdict").count() >= 1
                figures.append(page.locator(".plotly-graph-div").count())
                page.close()
    return figures
