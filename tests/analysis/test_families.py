"""Families of distributions: what is drawn is found again, in one sample or many at once."""

import numpy as np
import pytest
from scipy import integrate

from servescope.analysis.families import FAMILIES

PARAMETERS = {
    "exponential": [2.0],
    "gamma": [0.4, 3.0],
    "weibull": [0.6, 2.0],
    "lognormal": [1.0, 1.4],
    "pareto": [2.5, 2.0],
    "loglogistic": [2.0, 1.7],
    "inverse_gaussian": [2.0, 3.0],
    "power_law": [1.3, 2.0],
}
each = pytest.mark.parametrize("name", FAMILIES)


@each
def test_the_parameters_of_a_large_sample_are_found_again(name: str) -> None:
    p = np.array(PARAMETERS[name])
    x = FAMILIES[name].sample(np.random.default_rng(1), p, 50_000)
    assert FAMILIES[name].fit(x) == pytest.approx(p, rel=0.06)


@each
def test_weights_are_repeats_and_rows_are_fitted_each_for_itself(name: str) -> None:
    family = FAMILIES[name]
    x = family.sample(np.random.default_rng(2), np.array(PARAMETERS[name]), 200)
    once = family.fit(np.repeat(x, 2))
    assert family.fit(x, np.full(200, 2.0)) == pytest.approx(once, rel=1e-6)
    both = family.fit(np.stack([x, 3 * x]))
    assert both[0] == pytest.approx(family.fit(x), rel=1e-6)
    assert both[1] == pytest.approx(family.fit(3 * x), rel=1e-6)


@each
def test_density_distribution_and_quantiles_agree(name: str) -> None:
    family, p = FAMILIES[name], np.array(PARAMETERS[name])
    u = np.array([0.1, 0.5, 0.9])
    x = family.quantile(u, p)
    assert family.cdf(x, p) == pytest.approx(u, abs=1e-6)
    below, _ = integrate.quad(
        lambda t: float(np.exp(family.log_density(np.array([t]), p))[0]), x[0], x[2], limit=200
    )
    assert below == pytest.approx(0.8, abs=1e-6)


@each
def test_no_other_parameters_are_likelier(name: str) -> None:
    family = FAMILIES[name]
    x = family.sample(np.random.default_rng(3), np.array(PARAMETERS[name]), 500)
    best = family.fit(x)
    top = family.log_likelihood(x, best)
    for k in range(len(best) - (name == "power_law")):  # its least value cannot move
        for factor in (0.97, 1.03):
            moved = best.copy()
            moved[k] *= factor
            assert family.log_likelihood(x, moved) < top
