"""Distances of distributions against hand-made ones."""

import numpy as np
import polars as pl
import pytest
from made_traces import lengths, trace_of
from scipy import stats

from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.marginals import ks, scores, wasserstein
from servescope.analysis.fidelity.scores import Score
from servescope.analysis.fidelity.sides import Side


def test_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.poisson(5, 300).astype(float), rng.poisson(6, 200).astype(float)
    assert ks(x, y) == pytest.approx(stats.ks_2samp(x, y).statistic)
    assert wasserstein(x, y) == pytest.approx(stats.wasserstein_distance(x, y))


def test_a_shift_is_as_far_as_it_is_long() -> None:
    x = np.arange(100.0)
    assert wasserstein(x, x + 3) == pytest.approx(3)
    assert ks(x, x + 3) == pytest.approx(0.03)
    assert ks(x, x + 1000) == 1.0


def test_labels_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(1)
    at = np.arange(400.0)
    x, y = lengths(rng, 400)
    real = trace_of(at, x, y, model=pl.Series(["a"] * 300 + ["b"] * 100))
    longer = np.where(at < 200, x, x * 100)
    other = trace_of(at, longer, y, model=pl.Series(["a"] * 200 + ["b"] * 200))
    found = {
        (each.measure, each.subject): each.value
        for each in scores(*(Side.of(Demand.of(t), None) for t in (real, other)))
        if isinstance(each, Score)
    }
    assert found["mix", "model"] == pytest.approx(0.25)
    assert found["ks", "input_tokens, model a"] < 0.15
    assert found["ks", "input_tokens, model b"] > 0.9
