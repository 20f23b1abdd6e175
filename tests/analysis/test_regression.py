"""Regressions: planted effects are found, and none where there is none."""

import numpy as np
import pytest

from servescope.analysis.regression import odds_ratio, over_dispersion


def test_over_dispersion_is_that_of_the_counts() -> None:
    rng = np.random.default_rng(3)
    found = over_dispersion(rng.negative_binomial(5, 0.2, 2000).astype(float), None)
    assert found is not None
    assert found.alpha.low < 0.2 < found.alpha.high
    assert found.p_value < 1e-10
    poisson = over_dispersion(rng.poisson(20, 2000).astype(float), None)
    assert poisson is None or poisson.p_value > 0.01


def test_the_odds_of_failing_are_those_that_were_planted() -> None:
    rng = np.random.default_rng(4)
    x = np.linspace(0, 3, 40)
    trials = np.full(40, 500.0)
    chance = 1 / (1 + np.exp(4 - np.log(2) * x))  # one more of x doubles the odds
    found = odds_ratio(x, trials, rng.binomial(500, chance).astype(float))
    assert found is not None
    assert found.low < 2 < found.high
    assert found.estimate == pytest.approx(2, rel=0.15)
    none = odds_ratio(x, trials, rng.binomial(500, 0.05, 40).astype(float))
    assert none is not None
    assert none.low < 1 < none.high


def test_what_tells_all_failures_apart_and_too_few_of_them_have_no_odds() -> None:
    x, trials = np.array([1.0, 2.0]), np.array([100.0, 100.0])
    assert odds_ratio(x, trials, np.array([0.0, 100.0])) is None
    assert odds_ratio(x, trials, np.array([0.0, 3.0])) is None
    assert odds_ratio(np.array([1.0]), np.array([100.0]), np.array([50.0])) is None
