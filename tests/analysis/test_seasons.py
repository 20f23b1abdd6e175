"""Cycles, seasons and changes: planted ones are found, and noise has none."""

import numpy as np
import pytest

from servescope.analysis import memory, seasons


def hourly(days: int, swing: float, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(50 + swing * np.sin(2 * np.pi * np.arange(24 * days) / 24)).astype(float)


def test_a_daily_cycle_is_found_and_noise_has_none() -> None:
    table = seasons.periodogram(memory.detrended(hourly(30, 20)), 3600.0)
    assert table["period_s"][0] == pytest.approx(86_400, rel=0.02)
    assert table["p_value"][0] < 1e-6
    assert seasons.periodogram(memory.detrended(hourly(30, 0)), 3600.0).height == 0


def test_the_day_explains_what_it_explains() -> None:
    parts, strengths = seasons.decomposed(hourly(20, 25))
    assert strengths["day"] > 0.8
    whole = parts["trend"] + parts["day"] + parts["week"].fill_null(0) + parts["rest"]
    assert whole.to_numpy() == pytest.approx(parts["observed"].to_numpy())
    short, only = seasons.decomposed(hourly(4, 25))
    assert set(only) == {"day"}
    assert short["week"].null_count() == short.height


def test_a_change_of_the_rate_is_found_where_it_is() -> None:
    rng = np.random.default_rng(2)
    series = np.concatenate([rng.poisson(20, 150), rng.poisson(40, 250)]).astype(float)
    stable = seasons.change_points(series)
    stable = stable.filter(stable["stable"])
    assert stable.height == 1
    assert stable["window"][0] == pytest.approx(150, abs=3)
    assert stable["after"][0] == pytest.approx(40, abs=2)
    steady = seasons.change_points(rng.poisson(20, 400).astype(float))
    assert int(steady["stable"].sum()) == 0
