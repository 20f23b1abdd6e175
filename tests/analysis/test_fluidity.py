"""Token deadlines, by hand and against the rule walked token by token."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.analysis.fluidity import fluidity

GAPS = st.lists(st.integers(0, 400), min_size=1, max_size=30)  # in units of 10 ms


def calls(*streams: list[float], tokens: list[list[int]] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sent_s": [0.0] * len(streams),
            "chunk_s": list(streams),
            "chunk_tokens": tokens or [None] * len(streams),
            "output_tokens": (
                [sum(t) for t in tokens] if tokens else [len(stream) for stream in streams]
            ),
        },
        schema_overrides={
            "chunk_s": pl.List(pl.Float64),
            "chunk_tokens": pl.List(pl.Int64),
        },
    )


def test_an_early_token_leaves_its_slack_to_those_after_it() -> None:
    """Two tokens early by 50 ms each pay for a gap of 190 ms where 100 are allowed."""
    assert fluidity(calls([0.5, 0.55, 0.6, 0.79]), 0.5, 0.1).to_list() == [1.0]
    assert fluidity(calls([0.5, 0.6, 0.7, 0.95]), 0.5, 0.1)[0] < 1


def test_a_stall_misses_every_deadline_that_passes_in_it() -> None:
    """After a first token in time, 350 ms pass three deadlines of 100 ms: 3 of 4 are missed."""
    assert fluidity(calls([0.5, 0.85]), 0.5, 0.1).to_list() == pytest.approx([1 / 4])


def test_a_late_first_token_misses_its_own_deadline_and_those_that_passed() -> None:
    """250 ms late where 100 are between tokens: its own and two more of three."""
    assert fluidity(calls([0.75, 0.8]), 0.5, 0.1).to_list() == pytest.approx([1 / 4])


def test_the_tokens_of_a_chunk_come_at_once() -> None:
    """Four at once build slack for 300 ms; where chunks are not counted nothing is known."""
    counted = calls([0.5, 0.9], tokens=[[4, 1]])
    assert fluidity(counted, 0.5, 0.1).to_list() == [1.0]
    uncounted = calls([0.5, 0.9]).with_columns(output_tokens=pl.lit(5))
    assert fluidity(uncounted, 0.5, 0.1).to_list() == [None]


def test_nothing_that_came_has_no_share() -> None:
    assert fluidity(calls([], [0.1]), 0.5, 0.1).to_list() == [None, 1.0]
    assert fluidity(calls().clear(), 0.5, 0.1).to_list() == []


def walked(stream: list[int], first: int, gap: int) -> float:
    """The rule, token by token, in whole numbers."""
    slack = met = missed = before = 0
    for place, now in enumerate(stream):
        took, allowed = now - before, first if place == 0 else gap
        if took <= allowed + slack:
            slack += allowed - took
            met += 1
        elif place == 0:
            missed += 1 + (took - slack - first) // gap
            slack = 0
        else:
            missed += (took - slack) // gap
            slack = 0
        before = now
    return met / (met + missed)


@given(st.lists(GAPS, min_size=1, max_size=6), st.integers(1, 300), st.integers(1, 100))
def test_all_calls_at_once_are_the_same_as_one_token_after_another(
    streams: list[list[int]], first: int, gap: int
) -> None:
    """In halves of powers of two, so that no sum is rounded."""
    unit = 1 / 128
    arrivals = [[sum(gaps[: n + 1]) for n in range(len(gaps))] for gaps in streams]
    table = calls(*([moment * unit for moment in moments] for moments in arrivals))
    expected = [walked(moments, first, gap) for moments in arrivals]
    assert fluidity(table, first * unit, gap * unit).to_list() == pytest.approx(expected)
