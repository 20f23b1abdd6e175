"""The score of runs whose numbers are chosen, so that a hand can work it out."""

import polars as pl
import pytest

from servescope.analysis.measured import Measured
from servescope.analysis.score import score_of
from servescope.analysis.slo import SLO

# Four programs of a call each: the last token 2, 4, 8 s after the first request, and one failure.
CALLS = pl.LazyFrame(
    {
        "call_id": list("abcd"),
        "program_id": list("abcd"),
        "parents": [[], [], [], []],
        "status": ["ok", "ok", "ok", "timeout"],
        "due_s": [0.0, 1.0, 2.0, 3.0],
        "delay_s": [0.0] * 4,
        "sent_s": [0.0, 1.0, 2.0, 3.0],
        "first_token_s": [1.0, 3.0, 4.0, None],
        "first_answer_s": [1.0, 3.0, 4.0, None],
        "observed_queue_s": [0.0] * 4,
        "dispatched_s": [0.0, 1.0, 2.0, 3.0],
        "ready_s": [0.0, 1.0, 2.0, 3.0],
        "admitted_s": [0.0, 1.0, 2.0, 3.0],
        "first_byte_s": [0.0, 1.0, 2.0, 3.0],
        "last_token_s": [2.0, 5.0, 10.0, None],
        "end_s": [2.0, 5.0, 10.0, 11.0],
        "input_tokens": [10] * 4,
        "output_tokens": [3, 3, 3, None],
        "chunk_s": [[1.0, 1.5, 2.0], [3.0, 4.0, 5.0], [4.0, 7.0, 10.0], None],
        "chunk_tokens": [[1, 1, 1]] * 3 + [None],
    },
    schema_overrides={"parents": pl.List(pl.String), "chunk_s": pl.List(pl.Float64)},
)
ALONE = dict.fromkeys("abcd", 2.0)


def test_a_score_is_half_attainment_and_half_speed() -> None:
    """JCTs of 2, 4 and 8 s that could be 2 s: speeds 1, 1/2, 1/4, and 0 for the failure."""
    found = score_of(Measured(CALLS), SLO.parse("ttft<1.5s"), ALONE)
    assert found.attainment == 0.25
    assert found.speed == pytest.approx(1.75 / 4)
    assert found.score == pytest.approx((0.25 + 0.4375) / 2)
    assert found.fairness == pytest.approx(1.75**2 / (4 * (1 + 0.25 + 0.0625)))
    assert (found.calls, found.failed) == (4, 1)
    assert found.goodput_rps == pytest.approx(1 / 11)


def test_no_program_is_quicker_than_alone_and_quantiles_of_few_are_null() -> None:
    slow = dict.fromkeys("abcd", 100.0)
    found = score_of(Measured(CALLS), SLO.parse("ttft<100s"), slow)
    assert found.speed == 0.75
    assert found.attainment == 0.75
    assert (found.ttft_p99_s, found.tbt_p99_s, found.jct_p99_s) == (None, None, None)


def test_a_better_run_has_a_better_score() -> None:
    late = CALLS.with_columns(pl.col("last_token_s") + 1)
    slo = SLO.parse("ttft<1.5s")
    assert score_of(Measured(late), slo, ALONE).score < score_of(Measured(CALLS), slo, ALONE).score
