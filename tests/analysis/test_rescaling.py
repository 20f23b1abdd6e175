"""Time rescaling: renewal processes under a rate that changes."""

import numpy as np
import pytest

from servescope.analysis.dispersion import cv_of
from servescope.analysis.rescaling import rate_free, rescaled


def test_time_rescaling_takes_a_change_of_the_rate_out() -> None:
    at = np.sort(10_000 * np.random.default_rng(9).random(50_000) ** (1 / 4))
    raw = cv_of(np.diff(at))
    within = cv_of(np.diff(rate_free(at, 100.0)))
    assert raw is not None
    assert within is not None
    assert raw.estimate > 1.5
    assert within.estimate == pytest.approx(1.0, abs=0.05)


def test_time_rescaling_finds_poisson_under_a_changing_rate_and_rejects_bursts() -> None:
    rng = np.random.default_rng(5)
    at = np.sort(np.concatenate([rng.random(400) * 100, 100 + rng.random(1600) * 100]))
    poisson = rescaled(at, 100.0, "exponential", rng)
    assert poisson.p_value > 0.01
    assert poisson.serial_p > 0.01
    bursty = rescaled(np.cumsum(rng.gamma(0.2, 1, 2000)), 40.0, "exponential", rng)
    assert bursty.p_value < 0.01


def test_gaps_that_follow_each_other_are_no_renewal_process() -> None:
    rng = np.random.default_rng(6)
    scale = np.exp(np.repeat(rng.normal(0, 1, 100), 20))  # twenty gaps in a row are alike
    found = rescaled(np.cumsum(rng.exponential(scale)), 1e4, "lognormal", rng)
    assert found.serial > 0.1
    assert found.serial_p < 0.02
