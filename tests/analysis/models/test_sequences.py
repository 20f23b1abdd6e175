"""The calls of programs: their order, times, kinds and labels."""

import numpy as np
import polars as pl
import pytest
from made_sessions import chats

from servescope.analysis.demand import Demand
from servescope.analysis.models.sequences import Label, Sequences, in_order, timed


def frame(**columns: object) -> pl.DataFrame:
    return timed(pl.DataFrame({"program_id": ["a", "a", "a", "b"], **columns}))


def test_gaps_and_times_of_calls_lie_within_programs() -> None:
    calls = frame(arrival_s=[0.0, 10.0, 15.0, 3.0], delay_s=[None, 8.0, 5.0, None])
    assert calls["gap_s"].to_list() == [None, 10.0, 5.0, None]
    assert calls["pause_s"].to_list() == [None, 8.0, 5.0, None]
    assert calls["service_s"].to_list() == [2.0, 0.0, None, None]


def test_a_pause_that_is_not_said_is_what_the_call_left_of_the_gap() -> None:
    calls = frame(arrival_s=[0.0, 10.0, 15.0, 3.0], observed_e2e_s=[4.0, 6.0, 1.0, 1.0])
    assert calls["pause_s"].to_list() == [None, 6.0, 0.0, None]
    assert calls["service_s"].to_list() == [4.0, 6.0, 1.0, 1.0]


def test_turns_count_within_programs() -> None:
    taken = Sequences.of(frame(arrival_s=[0.0, 10.0, 15.0, 3.0]), 1)
    assert taken.program.tolist() == [0, 0, 0, 1]
    assert taken.turn.tolist() == [0, 1, 2, 0]
    assert taken.kinds == ("unknown",)
    assert taken.labels == (Label(),)
    assert taken.inputs is None


def test_rare_labels_count_as_the_commonest() -> None:
    calls = frame(model=["x", "x", "y", "x"], arrival_s=[0.0, 1.0, 2.0, 0.0])
    assert Sequences.of(calls, 2).labels == (Label(model="x"),)
    taken = Sequences.of(calls, 1)
    assert taken.labels == (Label(model="x"), Label(model="y"))
    assert taken.label.tolist() == [0, 0, 1, 0]


def test_a_trace_is_put_in_order_of_programs() -> None:
    demand = Demand.of(chats(1, 100))
    taken = Sequences.of(in_order(demand))
    assert len(taken.turn) == len(demand)
    assert len(np.unique(taken.program)) == 100
    assert (np.diff(taken.turn) == 1).sum() + 100 == len(demand)
    assert taken.service_s[np.isfinite(taken.service_s)] == pytest.approx(0, abs=1e-6)
