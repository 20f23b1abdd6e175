"""Which calls of programs fail: their share, their runs, and what is left of them."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.models.failures import Failures

HARD = Failures(status="http_503", share=0.2, again=0.6, no_input=0.0, no_output=0.75)


def plain(programs: int, turns: int = 5) -> pl.DataFrame:
    """Return calls that all have tokens and no status yet."""
    return pl.DataFrame(
        {
            "program_id": np.repeat(np.arange(programs), turns),
            "turn": np.tile(np.arange(turns), programs),
            "input_tokens": 100,
            "output_tokens": 50,
        }
    )


def marked(failures: Failures, programs: int = 20_000, turns: int = 5) -> pl.DataFrame:
    return failures.mark(np.random.default_rng(0), plain(programs, turns))


def test_shares_come_out_whatever_the_runs() -> None:
    """Every turn of a program fails with the same probability: the chain is stationary."""
    calls = marked(HARD).with_columns(failed=pl.col("status") != "ok")
    by_turn = calls.group_by("turn").agg(pl.col("failed").mean())["failed"]
    assert by_turn.to_numpy() == pytest.approx(np.full(5, 0.2), abs=0.01)
    assert set(calls["status"]) == {"ok", "http_503"}


def test_after_a_failed_call_the_next_one_fails_more_often() -> None:
    """With the probability again + (1 - again) share, within a program and nowhere else."""
    failed = (marked(HARD)["status"] != "ok").to_numpy().reshape(-1, 5)
    before, after = failed[:, :-1].ravel(), failed[:, 1:].ravel()
    assert after[before].mean() == pytest.approx(0.6 + 0.4 * 0.2, abs=0.01)
    last, next_first = failed[:-1, -1], failed[1:, 0]
    assert next_first[last].mean() == pytest.approx(0.2, abs=0.02)


def test_failed_calls_lose_their_tokens_as_often_as_was_seen() -> None:
    calls = marked(HARD)
    failed = calls.filter(pl.col("status") != "ok")
    assert (failed["output_tokens"] == 0).mean() == pytest.approx(0.75, abs=0.01)
    assert (calls["input_tokens"] == 100).all()
    assert (calls.filter(pl.col("status") == "ok")["output_tokens"] == 50).all()


def test_the_law_of_failures_is_found_again() -> None:
    assert (found := Failures.fit(marked(HARD))) is not None
    assert found.status == "http_503"
    assert found.share == pytest.approx(0.2, abs=0.01)
    assert found.again == pytest.approx(0.6, abs=0.02)
    assert found.no_output == pytest.approx(0.75, abs=0.01)
    assert found.no_input == 0
    assert found.summary() == [f"{100 * found.share:.2g} % of the calls fail (http_503)."]


def test_failures_that_know_nothing_of_each_other_have_no_runs() -> None:
    alone = Failures(status="timeout", share=0.1, again=0.0, no_input=1.0, no_output=1.0)
    calls = marked(alone)
    found = Failures.fit(calls)
    assert found is not None
    assert found.again == pytest.approx(0, abs=0.02)
    assert (calls.filter(pl.col("status") == "timeout")["input_tokens"] == 0).all()


def test_the_most_frequent_status_stands_for_all() -> None:
    status = ["timeout"] * 20 + ["http_503"] * 15 + ["ok"] * 65
    calls = plain(100, 1).with_columns(status=pl.Series(status))
    found = Failures.fit(calls)
    assert found is not None
    assert found.status == "timeout"
    assert found.share == 0.35


def test_few_failures_are_not_told() -> None:
    calls = plain(100, 1).with_columns(status=pl.Series(["timeout"] * 9 + ["ok"] * 91))
    assert Failures.fit(calls, min_count=10) is None
    assert Failures.fit(calls, min_count=9) is not None


def test_calls_of_unknown_status_say_nothing() -> None:
    status = ["timeout"] * 30 + ["ok"] * 30 + [None] * 20 + ["unknown"] * 20
    found = Failures.fit(plain(100, 1).with_columns(status=pl.Series(status)))
    assert found is not None
    assert found.share == 0.5


def test_all_may_fail() -> None:
    calls = plain(50, 2).with_columns(status=pl.lit("timeout"))
    found = Failures.fit(calls)
    assert found is not None
    assert found.share == 1
    assert set(found.mark(np.random.default_rng(0), plain(50, 2))["status"]) == {"timeout"}
