"""Pages of experiments and searches as a browser shows them: no network, no error, all drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium

STUDY = Path(__file__).parents[2] / "examples" / "two-schedulers.toml"
Cli = Callable[..., Any]

pytestmark = chromium.needed


def test_an_experiment_on_two_engines_ends_with_pages_that_need_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    """One command, the bundled Azure slice, two embedded engines, three loads."""
    ended = cli("experiment", "run", STUDY, "--out", tmp_path / "study")
    assert ended.code == 0
    assert ended.out.count("Verdict: ") == 3
    pages = [tmp_path / "study" / "overview.html", *(tmp_path / "study" / "reports").glob("*.html")]
    assert len(pages) == 4
    with chromium.browser() as browser:
        # reports differ in their numbers alone: one of them is looked at in every width
        shown = [
            (pages[0], 1280),
            (pages[0], 390),
            (pages[1], 390),
            *((p, 1280) for p in pages[1:]),
        ]
        for path, width in shown:
            with chromium.sound_page(browser, path, width) as page:
                assert page.locator(".plotly-graph-div").count() >= 5
                assert page.locator(".verdict").count() >= 1
        with chromium.sound_page(browser, pages[0], 1280) as overview:
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
    with chromium.browser() as browser:
        for width in chromium.WIDTHS:
            path = tmp_path / "search" / "capacity.html"
            with chromium.sound_page(browser, path, width) as page:
                assert page.locator(".verdict").count() == 1
