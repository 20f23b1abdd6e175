import polars as pl
import pytest

from servescope.traces import Provenance, Trace, inspect, load, structure
from servescope.traces.structure import Structure

HERE = Provenance(format="test", source="here")


def a_trace(**columns: object) -> Trace:
    count = len(next(iter(columns.values())))  # type: ignore[arg-type]
    base = {"arrival_s": range(count), "input_tokens": [1] * count, "output_tokens": [1] * count}
    types = {"parents": pl.List(pl.String)}
    return Trace.of(pl.DataFrame({**base, **columns}, schema_overrides=types), HERE)


def test_a_trace_of_single_requests_has_none() -> None:
    assert structure.of(load("azure:sample")) is None
    assert structure.of(a_trace(parents=[[], [], None])) is None


def test_an_agent_that_forks_and_joins_is_counted_by_hand() -> None:
    """a -> b, c -> d; e stands alone in a second program; f does not say."""
    found = structure.of(
        a_trace(
            call_id=list("abcdef"),
            program_id=["p", "p", "p", "p", "q", None],
            turn=[0, 1, 2, 3, 0, None],
            parents=[[], ["a"], ["a"], ["b", "c"], [], None],
            delay_s=[None, 0.1, 0.2, 0.3, None, None],
        )
    )
    assert found == Structure(
        programs=2,
        in_programs=5,
        multi_turn=1,
        turns_max=4,
        roots=2,
        followers=2,
        joins=1,
        forks=1,
        unknown=1,
        pauses=3,
    )


def test_what_makes_no_sense_is_counted_and_said() -> None:
    """b waits for nobody there, c for a call of q, d and e for each other, f for a later call."""
    trace = a_trace(
        call_id=list("abcdefg"),
        program_id=["p", "p", "p", "q", "q", "q", "q"],
        turn=[0, 1, 7, 0, 1, 2, 3],
        parents=[[], ["z"], ["d"], ["e"], ["d"], ["g"], []],
    )
    found = structure.of(trace)
    assert found is not None
    assert (found.lost_parents, found.foreign_parents, found.in_cycles) == (1, 1, 2)
    assert found.early == 3  # c before d, d before e, f before g
    assert found.misnumbered == 1
    assert inspect(trace).doubts == (
        "1 calls wait for calls that are not in the trace.",
        "1 calls wait for a call of another program; a replay does not.",
        "2 calls wait for themselves through their parents; a replay cannot send them.",
        "3 calls arrive before a call that they wait for.",
        "1 programs have turns that are not numbered 0, 1, 2 and so on.",
    )


@pytest.mark.parametrize("name", ["burstgpt:sessions"])
def test_recorded_sessions_are_chains(name: str) -> None:
    found = structure.of(load(name))
    assert found == Structure(
        programs=100,
        in_programs=274,
        multi_turn=57,
        turns_max=24,
        roots=100,
        followers=174,
        unknown=6,
        pauses=174,
    )
