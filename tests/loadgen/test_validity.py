from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from servescope.analysis.buckets import Buckets
from servescope.loadgen.counts import Counts
from servescope.loadgen.health import Health
from servescope.loadgen.messages import Beat
from servescope.loadgen.validity import judge, judge_so_far
from servescope.traces.run import frame_of_rows


def calls(
    lag_s: float = 0.001,
    connect_s: float = 0.0,
    status: str = "ok",
    tokens: int = 10,
    chunks: int = 10,
) -> pl.DataFrame:
    rows = [
        {
            "call_id": str(n),
            "program_id": str(n),
            "turn": 0,
            "status": status,
            "parents": [],
            "due_s": float(n),
            "admitted_s": float(n),
            "dispatched_s": n + lag_s,
            "sent_s": n + lag_s + connect_s,
            "input_tokens": 100,
            "output_tokens": tokens,
            "chunk_s": [float(n)] * chunks,
        }
        for n in range(200)
    ]
    return frame_of_rows(rows)


PLAN = pl.DataFrame(
    {
        "call_id": [str(n) for n in range(200)],
        "input_tokens": [100] * 200,
        "output_tokens": [10] * 200,
        "prompt_stream": ["all"] * 200,
        "prefix_blocks": [[]] * 200,
        "prompt_sha256": [None] * 200,
    },
    schema_overrides={"prefix_blocks": pl.List(pl.UInt64), "prompt_sha256": pl.String},
)


def health_of(
    table: pl.DataFrame, cpu: float = 0.1, late_s: Sequence[float] = (), uncounted: int = 0
) -> Health:
    beat = Beat(
        sent=200, in_flight=0, waiting=0, lag_s=0.0, late_s=[], cpu_s=cpu * 10, wall_s=10.0,
        rss_bytes=0, reconnects=0,
    )  # fmt: skip
    return Health.of(table, {0: beat}, {0: late_s}, uncounted)


def judged(table: pl.DataFrame, cpu: float = 0.3, interrupted: bool = False) -> tuple[str, str]:
    validity, doubts = judge(table, PLAN, health_of(table, cpu), interrupted=interrupted)
    return validity, " ".join(doubts)


def test_a_punctual_client_and_an_obedient_server_leave_no_doubt() -> None:
    assert judged(calls()) == ("valid", "")


@pytest.mark.parametrize(
    ("lag_s", "expected"), [(0.004, "valid"), (0.02, "suspect"), (0.2, "invalid")]
)
def test_a_late_client_makes_the_run_suspect_and_a_very_late_one_invalid(
    lag_s: float, expected: str
) -> None:
    validity, doubts = judged(calls(lag_s))
    assert validity == expected
    assert ("sent its calls late" in doubts) == (expected != "valid")


def test_a_busy_client_is_suspect() -> None:
    validity, doubts = judged(calls(), cpu=0.97)
    assert validity == "suspect"
    assert "97% of a core" in doubts


def test_tokens_that_differ_from_the_plan_are_suspect() -> None:
    validity, doubts = judged(calls(tokens=7, chunks=7))
    assert validity == "suspect"
    assert "counted 1400 tokens of answers where 2000 were planned" in doubts


def test_lengths_that_are_off_both_ways_do_not_cancel_out() -> None:
    odd = pl.int_range(pl.len()) % 2 == 1
    table = calls().with_columns(input_tokens=pl.when(odd).then(150).otherwise(50))
    validity, doubts = judged(table)
    assert validity == "suspect"
    assert "counted 20000 tokens of prompts where 20000 were planned, 50.0% off call by" in doubts


def test_a_cache_may_know_what_the_plan_shares_and_nothing_else() -> None:
    known = 100 * 199  # all calls are of one stream, and alike
    for cached, expected in ((100, "valid"), (170, "suspect")):
        table = calls().with_columns(cached_tokens=pl.lit(cached, pl.Int64))
        validity, doubts = judged(table)
        assert validity == expected
        assert (f"shares at most {known}" in doubts) == (expected == "suspect")


def test_chunks_of_several_tokens_are_said_and_not_held_against_the_run() -> None:
    validity, doubts = judged(calls(chunks=4))
    assert validity == "valid"
    assert "TBT leaves them out" in doubts


def test_failures_are_counted_by_kind() -> None:
    _, doubts = judged(calls(status="http_503"))
    assert "200 of 200 calls failed (200 http_503)." in doubts


def test_an_interrupted_run_says_how_far_it_came() -> None:
    _, doubts = judged(calls().head(50), interrupted=True)
    assert "interrupted: 50 of 200 calls" in doubts


def test_lag_is_read_off_the_calls_that_were_sent() -> None:
    table = calls(0.002).with_columns(
        dispatched_s=pl.when(pl.col("call_id") != "0").then(pl.col("dispatched_s"))
    )
    health = health_of(table)
    assert health.lag_p99_s == pytest.approx(0.002)
    assert health_of(table.clear()).lag_p99_s is None


def test_a_slow_connection_is_said_and_not_called_lateness() -> None:
    validity, doubts = judged(calls(connect_s=0.15))
    assert validity == "valid"
    assert "Opening a connection took 150 ms at p99" in doubts


def test_one_hiccup_in_a_short_run_does_not_condemn_it() -> None:
    late = pl.when(pl.col("call_id") == "3").then(pl.col("due_s") + 0.5)
    table = (
        calls()
        .head(50)
        .with_columns(
            dispatched_s=late.otherwise(pl.col("dispatched_s")),
            sent_s=late.otherwise(pl.col("sent_s")),
        )
    )
    assert judged(table)[0] == "valid"


def test_a_client_that_stood_still_is_suspect() -> None:
    table = calls()
    health = health_of(table, late_s=[0.001, 0.4])
    validity, doubts = judge(table, PLAN, health, interrupted=False)
    assert validity == "suspect"
    assert "stood still for up to 400 ms" in doubts[0]


def test_answers_without_usage_are_said_and_their_tokens_not_held_against_the_plan() -> None:
    table = calls(tokens=7, chunks=7)
    health = health_of(table, uncounted=200)
    validity, doubts = judge(table, PLAN, health, interrupted=False)
    assert validity == "valid"
    assert doubts == ("200 answers came without usage: their chunks are counted as tokens.",)


def test_an_answer_in_one_piece_is_said() -> None:
    _, doubts = judged(calls(chunks=1))
    assert "200 answers of several tokens came in one piece" in doubts


def test_a_run_without_a_single_chunk_is_judged_too() -> None:
    nothing = calls(status="http_500").with_columns(chunk_s=pl.lit(None, dtype=pl.List(pl.Float64)))
    late = health_of(nothing, late_s=[0.01] * 200)
    assert judge(nothing, PLAN, late, interrupted=False)[0] == "invalid"


def test_a_run_that_served_nothing_is_invalid() -> None:
    validity, doubts = judged(calls(status="connection"))
    assert validity == "invalid"
    assert "No call was served" in doubts


@pytest.mark.parametrize("lag_s", [0.004, 0.02, 0.2])
@pytest.mark.parametrize("cpu", [0.3, 0.97])
@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.2])
@pytest.mark.parametrize("status", ["ok", "http_503"])
def test_a_run_that_goes_on_is_judged_as_it_will_be_of_what_is_known_of_the_client(
    lag_s: float, cpu: float, late_s: float, status: str
) -> None:
    table = calls(lag_s, status=status).with_columns(
        chunk_s=pl.concat_list([pl.col("sent_s") + 0.01 * n for n in range(10)])
    )
    late = [late_s] * 200
    health = health_of(table, cpu, late)
    counts, stamps = Counts(PLAN.with_columns(program_id="call_id")), Buckets()
    for part in table.iter_slices(30):
        counts.take(part)
    stamps.add(np.array(late))
    beats = {0: Beat(200, 0, 0, 0.0, [], cpu * 10, 10.0, 0, 0)}
    so_far = Health.so_far(counts, beats, stamps)
    expected, said = judge(table, PLAN, health, interrupted=False)
    validity, doubts = judge_so_far(counts.statuses, so_far, counts.gaps.quantile(0.99))
    assert validity == expected
    assert [text[:26] for text in doubts] == [text[:26] for text in said]
