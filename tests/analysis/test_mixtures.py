"""Mixtures of log-normals: the number of parts and the parts are found again."""

import numpy as np
import pytest

from servescope.analysis import mixtures


def test_two_humps_are_found_with_their_shares() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.lognormal(2, 0.4, 3000), rng.lognormal(5.5, 0.6, 7000)])
    best = mixtures.fit(x)[0]
    assert best.shares == pytest.approx((0.3, 0.7), abs=0.02)
    assert best.mus == pytest.approx((2, 5.5), abs=0.05)
    assert best.sigmas == pytest.approx((0.4, 0.6), abs=0.05)
    assert best.distance < 0.02


def test_one_hump_stays_one() -> None:
    assert len(mixtures.fit(np.random.default_rng(2).lognormal(3, 0.7, 5000))[0].shares) == 1


def test_weights_are_repeats() -> None:
    values = np.rint(np.random.default_rng(3).lognormal(4, 0.8, 4000))
    values = values[values > 0]
    distinct, weights = np.unique(values, return_counts=True)
    a, b = mixtures.fit(values)[0], mixtures.fit(distinct, weights.astype(float))[0]
    assert a.mus == pytest.approx(b.mus, abs=0.01)


def test_few_and_constant_values_have_no_parts() -> None:
    assert mixtures.fit(np.arange(1.0, 10)) == []
    assert mixtures.fit(np.full(100, 5.0)) == []
