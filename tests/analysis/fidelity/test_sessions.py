"""Programs compared: turns, gaps and growth where they are planted."""

import numpy as np
import polars as pl
import pytest
from made_traces import trace_of

from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.scores import LeftOut, Score
from servescope.analysis.fidelity.sessions import curves, scores
from servescope.analysis.fidelity.sides import Side
from servescope.traces import Trace


def side(trace: Trace) -> Side:
    return Side.of(Demand.of(trace), None)


def programs(turns: int, pause_s: float, growth: int, count: int = 100) -> Trace:
    """Programs that are all alike, one after the other."""
    turn = np.tile(np.arange(turns), count)
    begin = np.repeat(np.arange(count) * 100.0, turns)
    names = pl.Series([f"p{k}" for k in range(count) for _ in range(turns)])
    at, ones = begin + turn * pause_s, np.ones(len(turn), np.int64)
    return trace_of(at, 100 + growth * turn, ones, program_id=names, turn=pl.Series(turn))


def found(real: Trace, other: Trace) -> dict[str, float]:
    made = scores(side(real), side(other))
    return {s.subject or s.measure: s.value for s in made if isinstance(s, Score)}


def test_programs_are_like_themselves() -> None:
    one = programs(4, 5.0, 10)
    assert set(found(one, one).values()) == {0.0}


def test_other_turns_gaps_and_growth_are_found_one_by_one() -> None:
    one = programs(4, 5.0, 10)
    assert found(one, programs(5, 5.0, 10)) == {"turns": 1.0, "gap_s": 0.0, "growth_tokens": 0.0}
    assert found(one, programs(4, 6.0, 10)) == {"turns": 0.0, "gap_s": 1.0, "growth_tokens": 0.0}
    assert found(one, programs(4, 5.0, 20)) == {"turns": 0.0, "gap_s": 0.0, "growth_tokens": 1.0}


def test_people_who_are_slow_stay_slow() -> None:
    """A pause of a person's own: one pause says the next, until they are shuffled."""
    rng = np.random.default_rng(1)
    own = np.repeat(rng.uniform(1, 20, 200), 4)
    names = pl.Series([f"p{k}" for k in range(200) for _ in range(4)])
    turn = np.tile(np.arange(4), 200)
    ones = np.ones(800, np.int64)

    def trace(pauses: np.ndarray) -> Trace:
        delays = pl.Series(np.where(turn > 0, pauses, np.nan)).fill_nan(None)
        begin = np.repeat(np.arange(200) * 100.0, 4)
        return trace_of(begin + turn, ones, ones, program_id=names, delay_s=delays)

    score = next(
        s for s in scores(side(trace(own)), side(trace(rng.permutation(own))))
        if isinstance(s, Score) and s.measure == "successive"
    )  # fmt: skip
    assert score.real == pytest.approx(1.0)
    assert score.synthetic == pytest.approx(0.0, abs=0.12)


def test_traces_without_programs_say_so() -> None:
    plain = trace_of(np.arange(50.0), np.ones(50, np.int64), np.ones(50, np.int64))
    for real, other, whose in (
        (plain, programs(3, 1.0, 1), "real"), (programs(3, 1.0, 1), plain, "synthetic")
    ):  # fmt: skip
        left = [x for x in scores(side(real), side(other)) if isinstance(x, LeftOut)]
        assert left == [LeftOut("sessions", f"the {whose} trace names no programs")]
        assert curves(side(real), side(other)) == {}


def test_turns_are_drawn_as_shares_of_so_many_or_more() -> None:
    drawn = curves(side(programs(4, 1.0, 1)), side(programs(2, 1.0, 1)))["turns"]
    assert drawn["y"].to_list() == [1.0, 1.0, 0.0, 0.0]
