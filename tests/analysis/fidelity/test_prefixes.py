"""Prefix reuse compared: curves that are known."""

import numpy as np
import polars as pl
import pytest
from made_traces import trace_of

from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.prefixes import curves, scores
from servescope.analysis.fidelity.scores import LeftOut, Score
from servescope.analysis.fidelity.sides import Side
from servescope.traces import Trace


def side(trace: Trace) -> Side:
    return Side.of(Demand.of(trace), None)


def prompts(many: list[list[int]]) -> Trace:
    ones = np.ones(len(many), np.int64)
    blocks = pl.Series(many, dtype=pl.List(pl.Int64))
    return trace_of(np.arange(float(len(many))), ones, ones, prefix_blocks=blocks)


def round_robin(roots: int, calls: int = 200) -> Trace:
    """One block a prompt, each of so many in turn: found again from a cache of so many on."""
    return prompts([[k % roots] for k in range(calls)])


def found(real: Trace, other: Trace) -> dict[str, Score]:
    made = scores(side(real), side(other))
    return {s.measure: s for s in made if isinstance(s, Score)}


def test_reuse_is_like_itself() -> None:
    assert {s.value for s in found(round_robin(5), round_robin(5)).values()} == {0.0}


def test_the_curve_is_off_where_only_one_cache_is_large_enough() -> None:
    """Of 200 calls on 5 roots a cache of 5 finds 195, where 20 roots find nothing."""
    made = found(round_robin(5), round_robin(20))
    assert made["hit_curve"].value == pytest.approx(97.5)
    assert made["hit_curve"].real == pytest.approx(97.5)
    assert made["hit_curve"].synthetic == pytest.approx(90.0)
    assert made["reuse_age"].value == 1.0


def test_a_longer_trace_is_cut_to_as_many_calls() -> None:
    assert found(round_robin(5), round_robin(5, calls=400))["hit_curve"].value == 0.0


def test_traces_without_prefixes_say_so() -> None:
    plain = trace_of(np.arange(50.0), np.ones(50, np.int64), np.ones(50, np.int64))
    (left,) = scores(side(plain), side(round_robin(5)))
    assert left == LeftOut("prefix reuse", "nothing says which prompts share a prefix")
    (left,) = scores(side(round_robin(5)), side(plain))
    assert isinstance(left, LeftOut)
    assert "synthetic" in left.why
    assert curves(side(plain), side(round_robin(5))) == {}


def test_the_curve_is_drawn_at_the_sizes_of_the_real_one() -> None:
    drawn = curves(side(round_robin(5)), side(round_robin(5)))["hit_curve"]
    assert drawn["x"].to_list() == [1, 2, 3, 4, 5]
    assert drawn["y"].to_list() == pytest.approx([0, 0, 0, 0, 0.975])
