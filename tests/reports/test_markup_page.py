"""Names that hold markup, in a browser: they show as they are, run nothing and lead nowhere."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from servescope.analysis import Measured
from servescope.analysis.sample import Sample
from servescope.analysis.timeline import Timeline
from servescope.reports import (
    figures,
    overview,
    program_figures,
    render,
    timelines,
    trace_figures,
)
from servescope.reports.blocks import Figure, Section
from servescope.traces.run import frame_of_rows

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium
from playwright.sync_api import Browser, Page

pytestmark = chromium.needed
NASTY = '<a href="javascript:alert(1)">l</a><b>x</b><img src=x onerror=alert(2)>&lt;i'


def drawn() -> list[Figure]:
    """Figures of every kind that names of a user, a trace or a server reach."""
    calls = pl.DataFrame({"call_id": [NASTY, "b"], "due_s": [0.0, 1.0], "ttft": [0.1, 0.2],
                          "input_tokens": [5, 50]})  # fmt: skip
    many = pl.concat([calls] * 1500)
    said = pl.DataFrame({"t_s": [0.0, 1.0], "replica": f"http://{NASTY}", "waiting": [0.0, 3.0]})
    row = {
        "call_id": NASTY, "program_id": "p", "status": "reset", "error": NASTY, "due_s": 0.0,
        "dispatched_s": 0.0, "sent_s": 0.0, "first_token_s": 1.0, "end_s": 2.0,
    }  # fmt: skip
    program = Timeline(Measured(frame_of_rows([row]).lazy()), "p")
    unsaid = dict.fromkeys(
        ("tpot_p99_s", "attainment", "goodput_rps", "served_rps", "rate_rps", "speed_up")
    )
    loads = pl.DataFrame(
        [
            {"system": system, "workload": "w", "offered_rps": rate, "ttft_p99_s": 0.1, **unsaid}
            for system in (NASTY, "b")
            for rate in (1.0, 2.0)
        ],
        schema_overrides=dict.fromkeys(unsaid, pl.Float64),
    )
    clients = pl.DataFrame({"client": NASTY, "share": [0.1, 0.2], "cv": [1.0, 2.0]})
    mix = pl.DataFrame({"t_s": [0.0, 1.0], "of": NASTY, "share": [1.0, 1.0]})
    gaps = pl.DataFrame({"turn": [0, 1], "input_p50": [1.0, 2.0]})
    made = [
        timelines.latency({NASTY: calls}, "ttft", {NASTY: said}),
        timelines.latency({NASTY: many, "b": many}, "ttft", {}),
        timelines.said_by_servers({NASTY: said, "b": said}, "waiting"),
        figures.ccdf({NASTY: Sample.of([0.1, 0.2]), "b": Sample.of([0.1])}, "ttft"),
        figures.over_length({NASTY: many}, "ttft"),
        figures.parts_of_jct({NASTY: {"jct_decode": 1.0}}),
        figures.attainment_curve([0.5, 1.0], {NASTY: [0.1, 1.0], "b": [0.0, 0.1]}, "calls"),
        program_figures.timeline(program),
        trace_figures.clients({NASTY: clients, "b": clients}),
        trace_figures.mix({NASTY: mix}),
        trace_figures.growth({NASTY: gaps, "b": gaps}),
        *(each.figure for each in overview.curves(loads)),
    ]
    return [Figure(each, "") for each in made if each is not None]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = Path(tmp_path_factory.mktemp("markup") / "page.html")
    path.write_text(render.html(NASTY, [Section("all", NASTY, tuple(drawn()))]))
    with chromium.browser() as browser:
        yield from _opened(browser, path)


def _opened(browser: Browser, path: Path) -> Iterator[Page]:
    with chromium.sound_page(browser, path, 1280) as page:
        yield page


def test_names_stand_in_every_figure_as_they_are(page: Page) -> None:
    for number, figure in enumerate(page.locator(".js-plotly-plot").all()):
        said = " ".join(figure.locator("text").all_text_contents())
        tail = NASTY[-15:]  # a lane of a timeline shows the end of a long name
        assert NASTY in said or tail in said, f"figure {number}"


def test_no_name_becomes_a_link_a_picture_or_bold(page: Page) -> None:
    figures = page.locator(".js-plotly-plot")
    assert figures.locator("a, img, image[href^='x'], [href*='javascript']").count() == 0
    assert figures.locator("tspan[style*='bold']").count() == 0


def test_what_hovers_shows_the_name_and_links_nowhere(page: Page) -> None:
    for number, point in ((0, ".scatterlayer .point"), (7, ".barlayer .point path")):
        figure = page.locator(".js-plotly-plot").nth(number)
        figure.scroll_into_view_if_needed()
        figure.locator(point).first.hover(force=True)
        label = figure.locator(".hoverlayer .hovertext")
        label.first.wait_for()
        assert NASTY in " ".join(label.locator("text").all_text_contents())
        assert label.locator("a, img").count() == 0
        page.mouse.move(0, 0)
