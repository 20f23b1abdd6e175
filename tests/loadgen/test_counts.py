"""What is counted of calls that end, in pieces, against arithmetic done by hand."""

from typing import Any

import polars as pl
import pytest

from servescope.analysis.buckets import bucket_of
from servescope.loadgen.counts import Counts
from servescope.traces.run import frame_of_rows

PLAN = pl.DataFrame(
    {"call_id": ["a", "b0", "b1", "c0", "c1"], "program_id": ["a", "b", "b", "c", "c"]}
)


def row(call: str, due_s: float, **also: Any) -> dict[str, Any]:
    """An answered call of three tokens: TTFT 0.5 s, gaps of 0.1 and 0.3 s, lag 2 ms."""
    return {
        "call_id": call, "program_id": call[0], "status": "ok", "due_s": due_s,
        "admitted_s": due_s, "dispatched_s": due_s + 0.002, "sent_s": due_s + 0.0025,
        "first_token_s": due_s + 0.5025, "last_token_s": due_s + 0.9025, "end_s": due_s + 1.0,
        "chunk_s": [due_s + 0.5025, due_s + 0.6025, due_s + 0.9025],
        "input_tokens": 7, "output_tokens": 3, **also,
    }  # fmt: skip


def failed(call: str, due_s: float, status: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("first_token_s", "last_token_s", "chunk_s", "output_tokens"))
    return row(call, due_s, status=status) | nothing


def counted(*pieces: list[dict[str, Any]]) -> Counts:
    counts = Counts(PLAN)
    for piece in pieces:
        counts.take(frame_of_rows(piece))
    return counts


def test_calls_tokens_and_times_add_up_over_pieces() -> None:
    counts = counted([row("a", 0.0), failed("b0", 1.0, "http_503")], [row("c0", 2.0)])
    assert counts.statuses == {"ok": 2, "http_503": 1}
    assert counts.failures == {"http_503": 1}
    assert (counts.input_tokens, counts.output_tokens) == (14, 6)
    sizes = {name: len(values) for name, values in counts.times.items()}
    assert sizes == {
        "ttft": 2, "ttft_due": 2, "tpot": 2, "e2e": 2, "lag": 3, "connect": 3, "tbt": 4, "jct": 1,
    }  # fmt: skip
    assert counts.times["ttft"].sum_s == pytest.approx(1.0)
    assert counts.times["tpot"].sum_s == pytest.approx(2 * 0.2)
    assert counts.times["tbt"].longest_s == pytest.approx(0.3)
    assert counts.times["lag"].sum_s == pytest.approx(0.006)
    assert list(counts.recent_lag_s) == pytest.approx([0.002] * 3)
    assert counts.tokens_per_s == pytest.approx(6 / (3.0 - 0.0025))


def test_jct_is_of_programs_all_of_whose_calls_were_answered() -> None:
    counts = counted([row("b0", 1.0), row("c0", 1.5)], [failed("c1", 4.0, "timeout")])
    assert len(counts.times["jct"]) == 0  # b goes on, c failed
    counts.take(frame_of_rows([row("b1", 6.0)]))
    jct = counts.times["jct"]
    assert len(jct) == 1
    assert jct.sum_s == pytest.approx(6.9025 - 1.0)
    assert jct.counts[bucket_of(jct.sum_s)] == 1  # type: ignore[arg-type]


def test_a_program_that_began_before_a_run_was_stopped_is_measured_from_its_beginning() -> None:
    counts = Counts(PLAN)
    assert counts.follow(frame_of_rows([row("b0", 1.0), row("a", 0.0)])).to_list() == [
        pytest.approx(0.9025)  # a had ended before
    ]
    counts.take(frame_of_rows([row("b1", 9.0)]))
    assert counts.times["jct"].sum_s == pytest.approx(8.9025)
    assert counts.statuses == {"ok": 1}


def test_chunks_of_several_tokens_are_gaps_and_no_tbt() -> None:
    counts = counted([row("a", 0.0, output_tokens=9)])
    assert len(counts.times["tbt"]) == 0
    assert len(counts.gaps) == 2


def test_calls_of_which_none_was_sent_are_counted_and_timed_by_nothing() -> None:
    unsent = {"call_id": "a", "program_id": "a", "status": "not_sent", "due_s": 1.0, "end_s": 1.0}
    counts = counted([unsent])
    assert counts.statuses == {"not_sent": 1}
    assert not any(len(values) for values in counts.times.values())
    assert counts.tokens_per_s is None
