"""What lengths have to do with each other and with the load, where it is planted."""

import math

import numpy as np
import polars as pl
import pytest
from made_traces import lengths, trace_of

from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.joint import ANSWER_WEIGHT, curves, scores
from servescope.analysis.fidelity.scores import LeftOut, Score
from servescope.analysis.fidelity.sides import Side
from servescope.traces import Trace


def side(trace: Trace) -> Side:
    return Side.of(Demand.of(trace), None)


def found(real: Trace, other: Trace) -> dict[tuple[str, str], Score]:
    made = scores(side(real), side(other))
    return {(s.measure, s.subject): s for s in made if isinstance(s, Score)}


def calls(seed: int, count: int = 4000) -> Trace:
    rng = np.random.default_rng(seed)
    return trace_of(np.cumsum(rng.exponential(0.5, count)), *lengths(rng, count))


def test_a_grid_of_the_copula_has_even_margins() -> None:
    density = curves(side(calls(1)), side(calls(1)))["copula"]
    assert density["y"].mean() == pytest.approx(1.0)
    for rank in ("input_rank", "output_rank"):
        margins = density.group_by(rank).agg(pl.col("y").mean())["y"].to_numpy()
        assert margins == pytest.approx(1.0, abs=0.15)  # ties share a rank


def test_opposite_copulas_are_half_apart() -> None:
    """M and W, the two bounds of every copula, differ by 1/2 in the middle."""
    x = np.arange(1, 1001)
    at = np.arange(1000.0)
    up, down = trace_of(at, x, x), trace_of(at, x, x[::-1].copy())
    assert found(up, down)["copula", ""].value == pytest.approx(0.5, abs=0.01)
    assert found(up, down)["spearman", ""].value == pytest.approx(2.0)


def test_lengths_that_follow_the_rate_are_found() -> None:
    """Long prompts in the busy half: shuffled they have nothing to do with the rate."""
    rng = np.random.default_rng(1)
    at = np.cumsum(np.where(np.arange(4000) % 400 < 300, 0.1, 1.0))
    x, y = lengths(rng, 4000)
    busy = np.arange(4000) % 400 < 300
    real = trace_of(at, np.where(busy, 10 * x, x), y)
    mixed = trace_of(at, rng.permutation(np.where(busy, 10 * x, x)), y)
    score = found(real, mixed)["length_and_rate", "input_tokens"]
    assert score.real is not None
    assert score.real > 0.5
    assert score.synthetic == pytest.approx(0.0, abs=0.05)


def test_lengths_that_remember_are_found() -> None:
    x = np.repeat(np.random.default_rng(1).integers(1, 1000, 500), 8)
    at = np.arange(4000.0)
    real, other = trace_of(at, x, x), trace_of(at, np.random.default_rng(2).permutation(x), x)
    assert found(real, other)["serial", "input_tokens"].real == pytest.approx(7 / 8, abs=0.02)


def test_token_load_counts_an_answer_as_its_prompt_tokens() -> None:
    """A trace whose tokens all are in answers has the load of one with so many prompt tokens."""
    at = np.cumsum(np.random.default_rng(1).exponential(0.5, 2000))
    many = np.random.default_rng(2).integers(1, 100, 2000)
    none = np.zeros(2000, np.int64)
    in_answers, in_prompts = (
        trace_of(at, none, many), trace_of(at, int(ANSWER_WEIGHT) * many, none)
    )  # fmt: skip
    assert found(in_answers, in_prompts)["token_idc", ""].value == pytest.approx(0.0, abs=1e-9)
    double = trace_of(at, none, 2 * many)
    assert found(in_answers, double)["token_idc", ""].value == pytest.approx(math.log(2))


def test_few_calls_are_left_out() -> None:
    left = [x for x in scores(side(calls(1, 50)), side(calls(2, 50))) if isinstance(x, LeftOut)]
    assert "fewer than 100" in left[0].why
