import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
WHOLE = "exgentic_otel_normalized/swebench_claude_code.part1.jsonl.gz"
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "exgentic.jsonl"


def a_line(start: float = 0, end: float | None = None, **fields: object) -> str:
    end = start + 1 if end is None else end
    line = {
        "session_id": "s",
        "span_id": f"{start}-{end}",
        "span_index": 0,
        "start_time_iso": f"2026-04-20T11:44:{start:09.6f}+00:00",
        "end_time_iso": f"2026-04-20T11:44:{end:09.6f}+00:00",
        "input_tokens": 7,
        "output_tokens": 3,
        "is_error": False,
        "status_code": 1,
        "status_message": "",
        "request_model": "m",
    }
    return json.dumps({**line, **fields}) + "\n"


def test_the_whole_file_has_the_published_counts(original: Callable[[str], Path]) -> None:
    """Rows, sessions and digest as published; the rest was counted over the file by other code.

    The published percentiles are of all 46 sessions, of which this file holds the first 23.
    """
    trace = load(original(WHOLE))
    calls = trace.collect()
    known = trace.provenance
    assert (calls.height, known.rows_read) == (1197, 1197)
    assert calls["program_id"].n_unique() == 23
    assert known.sha256 == "6698bb06c35a964ed04ba969042512c00b7e8216db299b187b3c9ceb71a68f3c"
    assert (known.licence, known.clock, known.tick_s) == ("CDLA-Permissive-2.0", "utc", 1e-6)
    failed = calls.filter(pl.col("status") == "error")
    assert failed.height == 40
    assert failed["input_tokens"].sum() == failed["output_tokens"].sum() == 0
    for column, expected in (
        ("input_tokens", [32338.6, 30357, 51564, 65000, 67657]),
        ("output_tokens", [226.4, 109, 537, 1165, 6465]),
        ("observed_e2e_s", [15.6, 10.138, 35.828, 61.012, 295.068]),
    ):
        values = calls[column].to_numpy()
        ranks = np.percentile(values, [50, 90, 99, 100], method="nearest")
        assert [round(float(values.mean()), 1), *(round(float(r), 3) for r in ranks)] == expected


def test_sessions_are_graphs_because_their_calls_overlap(original: Callable[[str], Path]) -> None:
    """426 of 1,174 consecutive calls overlap; no call waits for one that had not ended."""
    path = original(WHOLE)
    calls = load(path).collect()
    overlaps = 0
    for (_,), session in calls.sort("source_row").group_by(["program_id"], maintain_order=True):
        spans = [
            (start, start + length, name)
            for start, length, name in session.select(
                "arrival_s", "observed_e2e_s", "call_id"
            ).iter_rows()
        ]
        overlaps += sum(later[0] < earlier[1] - 1e-7 for earlier, later in pairwise(spans))
        assert session["turn"].to_list() == list(range(session.height))
        ends = {name: end for _, end, name in spans}
        for start, parents, delay_s in session.select(
            "arrival_s", "parents", "delay_s"
        ).iter_rows():
            if parents:
                last = max(ends[name] for name in parents)
                assert delay_s == pytest.approx(start - last, abs=1e-6)
                assert delay_s >= 0
    assert overlaps == 426
    waits_for = calls["parents"].list.len()
    assert (waits_for == 0).sum() == 38
    assert waits_for.max() == 3


def test_the_moment_is_read_from_the_text_or_else_the_number(a_file: Write) -> None:
    number = a_line(2, start_time_iso=None, start_time_s=1776685442.000001, end_time_iso=None)
    calls = load(a_file(a_line(3.5, 4) + number)).collect()
    assert calls["source_row"].to_list() == [2, 1]
    assert calls["observed_e2e_s"].to_list() == [None, 0.5]
    noted = load(a_file(number))
    assert noted.provenance.t0_ns == 1776685442000001000
    assert noted.provenance.doubts == ("1 calls have no recorded end; no call waits for them.",)


def test_a_failure_is_told_by_either_field(a_file: Write) -> None:
    lines = [
        a_line(1, is_error=True, status_code=1),
        a_line(2, is_error=False, status_code=2, status_message="overloaded"),
        a_line(3),
        a_line(4, is_error=None, status_code=None),
    ]
    calls = load(a_file("".join(lines))).collect()
    assert calls["status"].to_list() == ["error", "error", "ok", None]
    assert calls["error"].to_list() == [None, "overloaded", None, None]


def test_missing_counts_are_unknown(a_file: Write) -> None:
    calls = load(a_file(a_line(input_tokens=None))).collect()
    assert calls["input_tokens"].to_list() == [None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line(5, input_tokens="9"), r"Expected `int \| null`, got `str` - at `\$\.input_tokens`"),
        (a_line(5, output_tokens=-1), "output_tokens is -1"),
        (a_line(5, 4), r"observed_e2e_s is -1\.0"),
        (a_line(5, start_time_iso="noon"), "'start_time' is 'noon', not a date and time"),
        (a_line(5, start_time_iso=None), "'start_time_iso' is '', not a date and time"),
        (a_line(5, session_id=None), r"Expected `str`, got `null` - at `\$\.session_id`"),
        (a_line(0), "a call named 0-1 came before"),
        (a_line()[:30] + "\n", "Input data was truncated"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(
    a_file: Write, tmp_path: Path, line: str, message: str
) -> None:
    path = a_file(a_line(0) + "\n" + line)
    with pytest.raises(BadRow, match=rf"line 3: .*({message})"):
        load(path)
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.provenance.rows_read == trace.collect().height + 1
    (rejected,) = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert rejected["where"].endswith("trace.csv, line 3")


def test_the_sample_has_a_failure_and_two_calls_at_once() -> None:
    calls = load(SAMPLE).collect()
    assert calls.height == 4
    assert calls["parents"].list.len().to_list() == [0, 1, 1, 2]
    assert calls["status"].to_list() == ["ok", "ok", "error", "ok"]
    assert load(SAMPLE).provenance.format == "exgentic"
