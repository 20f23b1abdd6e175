"""A classifier that knows nothing guesses, and one that was shown a copy says so."""

import importlib.util

import numpy as np
import polars as pl
import pytest
from made_traces import bursty, lengths, poisson, trace_of
from sklearn.metrics import roc_auc_score

from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.classifier import FOLDS, WINDOW, area, scores
from servescope.analysis.fidelity.scores import LeftOut, Score
from servescope.analysis.fidelity.sides import Side
from servescope.traces import Trace


def side(trace: Trace) -> Side:
    return Side.of(Demand.of(trace), None)


def found(real: Trace, other: Trace) -> dict[str, Score]:
    made = scores(side(real), side(other))
    return {s.measure: s for s in made if isinstance(s, Score)}


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 200)
    score = np.round(rng.normal(size=200) + label, 1)  # with ties
    assert area(score, label) == pytest.approx(roc_auc_score(label, score))


def test_the_interval_holds_a_half_for_draws_of_one_law() -> None:
    held = 0
    for seed in range(6):
        auc = found(poisson(seed), poisson(100 + seed))["auc"]
        assert auc.low is not None
        assert auc.high is not None
        held += auc.low <= 0.5 <= auc.high
    assert held >= 4


def test_what_only_shows_in_a_row_is_found() -> None:
    """The same lengths in an order of their own: no distribution differs, but windows do."""
    rng = np.random.default_rng(1)
    x, y = lengths(rng, 3000)
    at = np.cumsum(rng.exponential(1.0, 3000))
    order = np.lexsort((x, np.arange(3000) // 100))  # from short to long, a hundred at a time
    assert found(trace_of(at, x, y), trace_of(at, x[order], y[order]))["auc"].value > 0.9
    assert found(poisson(1), bursty(1))["auc"].value > 0.95


def test_copied_stretches_are_found() -> None:
    """Blocks of 300 calls in another order: each window but those at the seams is a real one."""
    real = poisson(1, calls=6000).collect()
    gaps = real["arrival_s"].diff().fill_null(0.5)
    blocks = np.random.default_rng(2).permutation(20)
    order = np.concatenate([np.arange(300 * k, 300 * k + 300) for k in blocks])
    mixed = real.with_columns(gaps.alias("arrival_s"))[order]
    mixed = mixed.with_columns(pl.col("arrival_s").cum_sum()).drop("call_id")
    copied = found(poisson(1, calls=6000), Trace.of(mixed, poisson(1).provenance))
    assert copied["copies"].value > 0.8
    assert found(poisson(1, calls=6000), poisson(2, calls=6000))["copies"].value < 0.1


def test_few_calls_are_left_out() -> None:
    (left,) = scores(side(poisson(1, calls=600)), side(poisson(2)))
    assert isinstance(left, LeftOut)
    assert str(WINDOW * 20) in left.why
    assert FOLDS > 1


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (left,) = scores(side(poisson(1)), side(poisson(2)))
    assert isinstance(left, LeftOut)
    assert "pip install 'servescope[stats]'" in left.why
