"""A rate that follows the clock and wanders."""

import math

import numpy as np
import pytest

from servescope.analysis.models.intensity import Seasonal, _levels
from servescope.analysis.models.renewal import Poisson
from servescope.traces.errors import InputError

DAY_S = 86_400.0


def test_the_levels_have_mean_one_and_the_correlation_of_the_noise() -> None:
    levels, steps, shares = _levels(0.5, 0.8)
    assert shares @ levels == pytest.approx(1)
    assert shares @ steps == pytest.approx(shares)
    logs = np.log(levels)
    centred = logs - shares @ logs
    assert shares @ centred**2 == pytest.approx(0.25)
    assert (shares * centred) @ steps @ centred == pytest.approx(0.8 * 0.25)


def test_without_noise_it_is_a_poisson_process() -> None:
    at = Poisson().sample(np.random.default_rng(0), 3.0, 100.0)
    score = Seasonal(bin_s=7.0, sigma=0.0, rho=0.0).log_score(at, 100.0, 3.0)
    assert score == pytest.approx(Poisson().log_score(at, 100.0, 3.0))


def test_the_noise_is_found_again() -> None:
    truth = Seasonal(bin_s=1.0, sigma=0.8, rho=0.9)
    at = truth.sample(np.random.default_rng(0), 10.0, 1500.0)
    found = Seasonal.fit(at, 1500.0, 1500.0)
    assert found.sigma == pytest.approx(0.8, rel=0.2)
    # from bin to bin of its own width, as an autoregression of that width would have it
    assert found.rho ** (1 / found.bin_s) == pytest.approx(0.9, abs=0.05)


def test_the_hours_of_the_day_are_found_again() -> None:
    hours = 1 + 0.8 * np.sin(2 * np.pi * np.arange(24) / 24)
    truth = Seasonal(bin_s=60.0, sigma=0.0, rho=0.0, profile=tuple(hours))
    at = truth.sample(np.random.default_rng(0), 0.2, 5 * DAY_S)
    found = Seasonal.fit(at, 5 * DAY_S)
    assert len(found.profile) == 24
    assert np.abs(np.array(found.profile) - hours).max() < 0.15
    later = Seasonal.fit(at, 5 * DAY_S, begin_s=6 * 3600.0)
    assert later.profile[6] == pytest.approx(found.profile[0])


def test_hours_that_rest_on_too_few_calls_are_joined() -> None:
    at = Poisson().sample(np.random.default_rng(0), 100 / DAY_S, 2 * DAY_S)
    profile = Seasonal.fit(at, 2 * DAY_S, min_count=10).profile
    assert 0 < len(profile) < 24
    assert Seasonal.fit(at, 2 * DAY_S, min_count=1000).profile == ()


def test_a_window_keeps_its_rate_whatever_the_hour() -> None:
    shape = Seasonal(bin_s=600.0, sigma=0.5, rho=0.5, profile=(0.5, 1.5))
    for begin_s in (0.0, DAY_S / 2):
        counts = [
            len(shape.sample(np.random.default_rng(k), 0.01, DAY_S / 4, begin_s))
            for k in range(1000)
        ]
        error = np.std(counts) / math.sqrt(1000)
        assert np.mean(counts) == pytest.approx(216, abs=4 * error)


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(InputError):
        Seasonal(bin_s=0.0, sigma=1.0, rho=0.0)
    with pytest.raises(InputError):
        Seasonal(bin_s=1.0, sigma=1.0, rho=0.0, profile=(0.0, 0.0))
    with pytest.raises(InputError):
        Seasonal.fit(np.full(50, 1.0), 10.0)
