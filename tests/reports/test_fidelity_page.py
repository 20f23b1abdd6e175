"""The page of a comparison as a browser shows it: no network, no error, every figure, any width."""

from pathlib import Path

import pytest
from made_traces import sessions

from servescope.analysis import fidelity
from servescope.loadgen import served
from servescope.reports import fidelity as pages

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium

pytestmark = chromium.needed


def test_the_page_is_drawn_whole_without_network_or_errors(tmp_path: Path) -> None:
    real, made = sessions(1), [sessions(2), sessions(3)]
    found = fidelity.compare(real, made)
    got = served.compare(real, made, (0.3, 0.7), tick=found.tick)
    page = tmp_path / "fidelity.html"
    pages.write(found.joined(got.table, got.curves, got.left_out, got.doubts), page)
    with chromium.browser() as browser:
        for width in chromium.WIDTHS:
            with chromium.sound_page(browser, page, width) as shown:
                figures = shown.locator(".plotly-graph-div")
                assert figures.count() == 3 + sum(map(len, pages.FIGURES.values()))
                for figure in figures.all():
                    box = figure.bounding_box()
                    assert box is not None
                    assert box["x"] + box["width"] <= width + 1
                for link in shown.locator("#summary a").all():
                    assert shown.locator(link.get_attribute("href") or "").count() == 1
