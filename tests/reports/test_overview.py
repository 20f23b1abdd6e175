"""The page of a study: every load's verdict, curves where there are loads, a row a run."""

from pathlib import Path
from typing import Any

import polars as pl

from servescope.reports.blocks import Note, Table
from servescope.reports.overview import Outcome, curves, sections_of, write_overview


def rows(*loads: float, systems: tuple[str, ...] = ("a", "b"), repeats: int = 1) -> pl.DataFrame:
    made: list[dict[str, Any]] = []
    for system in systems:
        for load in loads:
            for repeat in range(1, repeats + 1):
                made.append(
                    {
                        "system": system, "workload": "w", "rate_rps": load, "speed_up": None,
                        "repeat": repeat, "offered_rps": load, "served_rps": load, "failed": 0,
                        "output_tps": 100.0, "ttft_p50_s": 0.1, "ttft_p99_s": 0.1 * load * repeat,
                        "tpot_p50_s": 0.01, "tpot_p99_s": 0.02, "attainment": 0.5,
                        "goodput_rps": load / 2, "validity": "valid",
                    }
                )  # fmt: skip
    schema = {"speed_up": pl.Float64}
    return pl.DataFrame(made, schema_overrides=schema)


def test_a_line_a_system_goes_through_the_median_of_the_repeats() -> None:
    ttft, *_ = curves(rows(1.0, 2.0, 4.0, repeats=3))
    first, second = ttft.figure.data
    assert (first.name, second.name) == ("a", "b")
    assert list(first.x) == [1.0, 2.0, 4.0]
    assert list(first.y) == [200.0, 400.0, 800.0]


def test_of_one_load_there_is_no_curve() -> None:
    assert curves(rows(2.0)) == []
    assert [section.name for section in sections_of(rows(2.0), ())] == ["runs"]


def test_without_an_slo_neither_attainment_nor_goodput_is_drawn() -> None:
    known = rows(1.0, 2.0).with_columns(
        attainment=pl.lit(None, pl.Float64), goodput_rps=pl.lit(None, pl.Float64)
    )
    assert len(curves(known)) == len(curves(rows(1.0, 2.0))) - 2


def test_every_load_has_its_verdict_and_a_link_to_its_page(tmp_path: Path) -> None:
    outcomes = [
        Outcome("x1", "b served it better.", report="reports/x1.html", doubts=("TTFT drifted.",)),
        Outcome("<x2>", None, why="b never became healthy."),
    ]
    table = rows(1.0, 2.0)
    verdicts = sections_of(table, outcomes, [{"run": "b/x2-1", "why": "The server ended."}])[0]
    notes = [block for block in verdicts.blocks if isinstance(block, Note)]
    assert [(note.kind, note.mark) for note in notes] == [
        ("verdict", "x1"),
        ("doubt", "Doubt"),
        ("doubt", "<x2>"),
        ("doubt", "FAILED, b/x2-1"),
    ]
    page = write_overview("study", table, outcomes, tmp_path / "overview.html").read_text()
    assert '<a href="reports/x1.html">' in page
    assert "<x2>" not in page
    (runs,) = (block for block in sections_of(table, outcomes)[-1].blocks)
    assert isinstance(runs, Table)
    assert len(runs.rows) == 4
