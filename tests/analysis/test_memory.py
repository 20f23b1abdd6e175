"""Memory: fractional noise of a known exponent, and trends that must not look like memory."""

import numpy as np
import pytest

from servescope.analysis import memory


@pytest.mark.parametrize("h", [0.5, 0.75, 0.9])
def test_the_exponent_of_fractional_noise_is_found_by_all_three(h: float) -> None:
    rng = np.random.default_rng(int(100 * h))
    found = memory.hurst(memory.fractional_noise(rng, h, 8192)[0], rng)
    assert [each.estimator for each in found] == ["local Whittle", "wavelet", "aggregated variance"]
    for each in found:
        assert each.h.estimate == pytest.approx(h, abs=0.1)
        assert each.h.low < each.h.estimate < each.h.high


def test_fractional_noise_has_the_covariance_of_its_exponent() -> None:
    x = memory.fractional_noise(np.random.default_rng(1), 0.8, 4000, 200)
    assert x.var() == pytest.approx(1.0, abs=0.05)
    for lag in (1, 5):
        theory = ((lag + 1) ** 1.6 - 2 * lag**1.6 + (lag - 1) ** 1.6) / 2
        assert (x[:, lag:] * x[:, :-lag]).mean() == pytest.approx(theory, abs=0.05)


def test_a_trend_and_a_day_are_no_memory() -> None:
    rng = np.random.default_rng(2)
    hours = np.arange(24 * 60)
    day = 20 * np.sin(2 * np.pi * hours / 24)
    series = rng.poisson(100 + 0.05 * hours + day).astype(float)
    local, *_ = memory.hurst(series, rng, 3600.0)
    assert local.h.low < 0.5 < local.h.high
    assert memory.shuffled_p(series, rng, 3600.0) > 0.01
    flat = memory.detrended(series, 3600.0)
    assert abs(np.corrcoef(flat, day)[0, 1]) < 0.05


def test_shuffling_finds_memory() -> None:
    rng = np.random.default_rng(3)
    assert memory.shuffled_p(memory.fractional_noise(rng, 0.85, 2048)[0], rng) == 1 / 200


def test_the_autocorrelation_is_that_of_an_autoregression() -> None:
    rng = np.random.default_rng(4)
    x = np.zeros(20_000)
    for k in range(1, len(x)):
        x[k] = 0.7 * x[k - 1] + rng.normal()
    table = memory.autocorrelation(x, 5)
    assert table["r"].to_numpy() == pytest.approx(0.7 ** np.arange(1, 6), abs=0.04)
    assert ((table["low"] < table["r"]) & (table["r"] < table["high"])).all()


def test_too_few_or_constant_values_have_no_memory() -> None:
    rng = np.random.default_rng(5)
    assert memory.hurst(rng.random(100), rng) == []
    assert memory.hurst(np.full(1000, 3.0), rng) == []
    assert memory.autocorrelation(np.full(1000, 3.0), 5).height == 0
