"""Goodness of fit: p-values that know of the fit keep their size, and find what does not fit."""

import numpy as np
import pytest
from scipy import stats

from servescope.analysis.families import FAMILIES
from servescope.analysis.goodness import bootstrap_p, distance, fits


def test_the_distance_is_that_of_the_textbook() -> None:
    x = np.sort(np.random.default_rng(1).exponential(2, 300))
    family, p = FAMILIES["exponential"], np.array([2.0])
    assert distance(x, family, p) == pytest.approx(stats.kstest(x, "expon", (0, 2)).statistic)
    values, weights = np.unique(np.round(x), return_counts=True)
    ranked = np.repeat(values, weights)
    assert distance(values, family, p, weights.astype(float)) == pytest.approx(
        float(distance(ranked, family, p)), abs=0.2
    )


def test_true_nulls_are_rejected_as_often_as_said_and_by_the_naive_test_never() -> None:
    rng = np.random.default_rng(2)
    family = FAMILIES["lognormal"]
    honest = naive = 0
    for _ in range(200):
        x = rng.lognormal(1, 1.3, 100)
        honest += bootstrap_p(x, family, rng, 99) <= 0.05
        p = family.fit(x)
        naive += stats.kstest(x, "lognorm", (p[1], 0, np.exp(p[0]))).pvalue <= 0.05
    assert 2 <= honest <= 20  # 10 expected; beyond that lies one sample in a thousand
    assert naive == 0


def test_what_does_not_fit_is_found() -> None:
    rng = np.random.default_rng(3)
    assert bootstrap_p(rng.lognormal(1, 1.3, 500), FAMILIES["exponential"], rng) == 1 / 200


def test_the_family_that_drew_the_values_comes_first() -> None:
    rng = np.random.default_rng(4)
    x = FAMILIES["weibull"].sample(rng, np.array([0.5, 2.0]), 3000)
    made = fits(x, ("exponential", "gamma", "weibull", "lognormal", "pareto"), rng)
    assert made[0].family == "weibull"
    assert made[0].parameters["shape"] == pytest.approx(0.5, abs=0.03)
    assert made[0].p_value is not None
    assert made[0].p_value > 0.01
    assert all(fit.p_value is None for fit in made[1:])
