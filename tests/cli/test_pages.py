"""What an experiment ends with, as a browser shows it: no network, no console error, all drawn."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
from playwright.sync_api import sync_playwright

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
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        for width in (1280, 390):
            for path in pages:
                page = browser.new_page(viewport={"width": width, "height": 900})
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
                assert page.locator(".plotly-graph-div").count() >= 5
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.locator(".verdict").count() >= 1
                page.close()
        overview = browser.new_page()
        overview.goto(pages[0].as_uri())
        overview.locator(".verdict a").first.click()
        overview.wait_for_url("**/reports/*.html")
        assert "vllm_v0 against sarathi" in overview.title()
        browser.close()
