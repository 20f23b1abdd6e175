"""A row of a sweep says what can be counted by hand."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.analysis import SLO
from servescope.analysis.headline import offered_rps
from servescope.analysis.sweep import SCHEMA, rows_of
from servescope.traces.run import PLANNED, Run, RunInfo, frame_of_rows
from servescope.traces.schema import SCHEMA as CANONICAL


def call(number: int, *, ok: bool = True, ttft_s: float = 0.1, program: str | None = None) -> Any:
    """A call a second, of 11 tokens, 0.1 s from one to the next."""
    due_s = float(number)
    row = {
        "call_id": f"c{number}",
        "program_id": program or f"p{number}",
        "input_tokens": 10,
        "output_tokens": 11,
        "due_s": due_s,
        "sent_s": due_s,
        "status": "ok" if ok else "http_503",
        "end_s": due_s + ttft_s + 1.0,
    }
    if ok:
        stamps = [due_s + ttft_s + 0.1 * k for k in range(11)]
        row |= {"first_token_s": stamps[0], "last_token_s": stamps[-1], "chunk_s": stamps}
    return row


def run_of(path: Path, rows: list[Any], warmup_s: float = 0.0) -> Run:
    plan = pl.DataFrame(
        [{name: row.get(name) for name in (*PLANNED, "due_s")} for row in rows],
        schema={name: CANONICAL[name] for name in (*PLANNED, "due_s")},
    )
    info = RunInfo(
        name=path.name, system="s", clock="real", version="0", started="", seed=0, warmup_s=warmup_s
    )
    run = Run.create(path, {}, plan, info)
    run.append(frame_of_rows(rows))
    run.seal(info)
    return Run.open(path)


def test_a_row_says_what_was_offered_served_and_within_the_slo(tmp_path: Path) -> None:
    rows = [call(n, ttft_s=0.1 if n < 8 else 0.5) for n in range(9)] + [call(9, ok=False)]
    (row,) = rows_of([run_of(tmp_path / "a", rows)], SLO.parse("ttft<300ms")).to_dicts()
    assert row["system"] == "a"
    assert row["offered_rps"] == pytest.approx(1.0)  # 9 gaps in 9 s
    span_s = 9 + 1.1  # to the end of the failed call
    assert row["served_rps"] == pytest.approx(9 / span_s)
    assert row["output_tps"] == pytest.approx(99 / span_s)
    assert (row["calls"], row["failed"]) == (10, 1)
    assert row["ttft_p50_s"] == pytest.approx(0.1)
    assert row["ttft_p99_s"] is None  # of nine values
    assert row["tpot_p50_s"] == pytest.approx(0.1)
    assert row["attainment"] == pytest.approx(0.8)  # the slow one and the failed one miss
    assert row["goodput_rps"] == pytest.approx(8 / span_s)
    assert row["statistics_met"] is None


def test_without_an_slo_nothing_is_within_it(tmp_path: Path) -> None:
    table = rows_of([run_of(tmp_path / "a", [call(0), call(1)])])
    assert dict(table.schema) == SCHEMA
    assert table.row(0, named=True)["attainment"] is None


def test_an_slo_of_a_statistic_is_met_or_not(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [call(n) for n in range(300)])
    (row,) = rows_of([run], SLO.parse("p99(ttft)<200ms")).to_dicts()
    assert (row["attainment"], row["statistics_met"]) == (None, True)
    (row,) = rows_of([run], SLO.parse("p99(ttft)<50ms, ttft<1s")).to_dicts()
    assert (row["attainment"], row["statistics_met"]) == (1.0, False)
    few = run_of(tmp_path / "b", [call(n) for n in range(20)])
    (row,) = rows_of([few], SLO.parse("p99(ttft)<200ms")).to_dicts()
    assert row["statistics_met"] is None


def test_a_run_of_failures_only_has_rates_of_nothing_and_no_latency(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [call(n, ok=False) for n in range(5)])
    (row,) = rows_of([run], SLO.parse("ttft<1s")).to_dicts()
    assert (row["failed"], row["served_rps"], row["attainment"]) == (5, 0.0, 0.0)
    assert row["ttft_p50_s"] is None
    assert row["tpot_p99_s"] is None


def test_no_runs_are_no_rows_with_the_same_columns() -> None:
    assert dict(rows_of([]).schema) == SCHEMA
    assert rows_of([]).is_empty()


def test_what_began_in_the_warm_up_is_neither_offered_nor_served(tmp_path: Path) -> None:
    rows = [call(n) for n in range(10)] + [{**call(30), "due_s": 30.0}]
    (row,) = rows_of([run_of(tmp_path / "a", rows, warmup_s=5.0)]).to_dicts()
    assert row["calls"] == 6
    assert row["offered_rps"] == pytest.approx(5 / 25)


def test_the_offered_rate_is_of_programs_and_none_where_all_start_at_once() -> None:
    plan = pl.DataFrame(
        {
            "call_id": ["a", "b", "c", "d"],
            "program_id": ["p", "p", "q", None],
            "due_s": [0.0, None, 2.0, 4.0],
        }
    )
    assert offered_rps(plan) == pytest.approx(0.5)  # p, q and d: two gaps in 4 s
    assert offered_rps(plan.with_columns(due_s=0.0)) is None
    assert offered_rps(plan.head(0)) is None
