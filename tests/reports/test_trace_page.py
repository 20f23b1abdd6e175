"""The page of a trace as a browser shows it: no network, no error, every figure, any width."""

from pathlib import Path

import pytest

from servescope.analysis import characterize
from servescope.analysis.demand import Demand
from servescope.analysis.literature import recreate
from servescope.analysis.server_shape import ServerShape
from servescope.reports import characterization as pages
from servescope.traces import load

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium

pytestmark = chromium.needed


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    server = ServerShape("a server", 131_072.0, 400_000.0, 20_000.0, 0.02)
    burstgpt, mooncake = load("burstgpt:sessions"), load("mooncake:sample")
    one = characterize(burstgpt, server=server)
    both = [one, characterize(mooncake, server=server)]
    paths = {"one": out / "one.html", "both": out / "both.html"}
    filled = {"burstgpt": recreate("burstgpt", one, Demand.of(burstgpt))}
    pages.write([one], paths["one"], filled)
    pages.write(both, paths["both"])
    return paths


def test_the_pages_are_drawn_whole_without_network_or_errors(written: dict[str, Path]) -> None:
    with chromium.browser() as browser:
        for path in written.values():
            for width in chromium.WIDTHS:
                with chromium.sound_page(browser, path, width) as page:
                    figures = page.locator(".plotly-graph-div")
                    assert figures.count() >= 20
                    for figure in figures.all():
                        box = figure.bounding_box()
                        assert box is not None
                        assert box["height"] > 100
                        assert box["x"] + box["width"] <= width + 1


def test_a_figure_leads_to_its_numbers_and_a_sentence_to_its_section(
    written: dict[str, Path],
) -> None:
    with chromium.browser() as browser, chromium.sound_page(browser, written["one"], 1280) as page:
        folded = page.locator("#table-dispersion")
        assert not folded.evaluate("each => each.open")
        page.locator("a[href='#table-dispersion']").first.click()
        assert folded.evaluate("each => each.open")
        for link in page.locator("#summary a").all():
            assert page.locator(link.get_attribute("href") or "").count() == 1
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
        assert len(ids) == len(set(ids))
