from pathlib import Path

import numpy as np
import pytest

from servescope.loadgen import health
from servescope.loadgen.health import Arrivals, HostClock


def poisson(rate: float, count: int = 2000, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def test_arrivals_as_planned_differ_in_nothing() -> None:
    planned = poisson(50.0)
    found = Arrivals.of(planned, planned)
    assert found is not None
    assert (found.count, found.rate_off, found.ks, found.dispersion_off) == (2000, 0.0, 0.0, 0.0)


def test_constant_gaps_that_jitter_by_less_than_a_millisecond_are_the_plans() -> None:
    planned = np.arange(1000) / 100
    late = planned + np.random.default_rng(1).uniform(0, 0.0005, 1000)
    found = Arrivals.of(planned, late)
    assert found is not None
    assert found.ks == 0.0


def test_a_client_that_sleeps_relative_gaps_falls_behind_its_rate() -> None:
    """Each gap is 1 ms too long: at 100 a second the rate is 10 % too low."""
    planned = np.arange(1000) / 100
    found = Arrivals.of(planned, planned + 0.001 * np.arange(1000))
    assert found is not None
    assert found.rate_off == pytest.approx(-1 / 11)


def test_exponential_gaps_that_were_meant_to_be_constant_are_found_out() -> None:
    """A peer calls this constant: 1 - 1/e of the gaps are shorter than the mean."""
    found = Arrivals.of(np.arange(2000) / 50, poisson(50.0))
    assert found is not None
    assert found.ks == pytest.approx(1 - np.exp(-1), abs=0.05)


def test_gaps_that_every_worker_repeats_are_too_bursty() -> None:
    """A peer draws the same gaps in each of its workers: arrivals come four at a time."""
    planned = poisson(50.0)
    repeated = np.repeat(poisson(12.5, 500, seed=3), 4)
    found = Arrivals.of(planned, repeated)
    assert found is not None
    assert found.dispersion_off > 1.5  # four together have four times the index
    assert found.ks > 0.5


def test_too_few_arrivals_and_all_at_once_say_nothing() -> None:
    assert Arrivals.of(poisson(1.0, 49), poisson(1.0, 49)) is None
    assert Arrivals.of(np.zeros(100), np.zeros(100)) is None


def test_steal_is_the_share_of_all_time_that_others_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([[100, 0, 100, 800, 0, 0, 0, 0, 7], [150, 0, 150, 1580, 0, 0, 0, 120, 9]])
    monkeypatch.setattr(health, "_processor_time", lambda: next(times))
    assert HostClock().steal_share() == pytest.approx(0.12)


def test_where_the_host_says_nothing_steal_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_processor_time", lambda: None)
    assert HostClock().steal_share() is None
