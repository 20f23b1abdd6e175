"""Warm-up, drain and drift on runs in which they were planted."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from queues import latencies

from servescope.analysis import Measured
from servescope.analysis.steady_state import kpss, mser5, stationarity_of, trim_of
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def test_mser5_cuts_a_start_that_is_unlike_the_rest() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(10.0, 1.0, 2000)
    values[:200] += np.linspace(20, 0, 200)
    cut = mser5(values)
    assert cut is not None
    assert 120 <= cut <= 260


def test_mser5_leaves_a_steady_run_nearly_whole_and_never_cuts_more_than_half() -> None:
    rng = np.random.default_rng(1)
    cuts = [mser5(rng.normal(10.0, 1.0, 2000)) or 0 for _ in range(50)]
    assert np.median(cuts) <= 100
    rising = mser5(np.arange(1000.0))
    assert rising is not None
    assert rising <= 505
    assert mser5(np.ones(99)) is None
    assert mser5(np.ones(1000)) == 0


def test_a_trim_is_at_least_twice_the_longest_call_and_at_most_half_the_run(call: Make) -> None:
    """Calls of 2 s, one every second for 100 s: nothing due in the first 4 s counts."""
    rows = [call(f"{n:03}", float(n), n + 1.0, n + 2.0) for n in range(101)]
    trim = trim_of(Measured(frame_of_rows(rows).lazy()).calls, mser=False)
    assert trim is not None
    assert (trim.first_s, trim.from_s, trim.until_s) == (0.0, 4.0, 100.0)
    assert (trim.warmup_s, trim.mser_s) == (4.0, None)
    slow = [call(f"{n:03}", float(n), n + 90.0) for n in range(101)]
    trim = trim_of(Measured(frame_of_rows(slow).lazy()).calls)
    assert trim is not None
    assert trim.floor_s == 180.0
    assert trim.from_s == 50.0


def test_a_warm_up_that_outlasts_the_floor_is_found_by_mser5(call: Make) -> None:
    waits = [(9.0 if n < 60 else 1.0) + 0.01 * (n % 7) for n in range(400)]
    rows = [call(f"{n:03}", float(n), n + wait) for n, wait in enumerate(waits)]
    trim = trim_of(Measured(frame_of_rows(rows).lazy()).calls)
    assert trim is not None
    assert trim.mser_s == pytest.approx(60, abs=5)
    assert trim.from_s == max(trim.floor_s, trim.mser_s or 0.0)


def test_nothing_answered_has_no_steady_state(failed: Make) -> None:
    assert trim_of(Measured(frame_of_rows([failed("x", 0.0)]).lazy()).calls) is None


def test_a_queue_in_its_steady_state_is_rarely_found_to_drift() -> None:
    """Nominal: a tenth at most, for two tests at 5 %."""
    drifting = 0
    for replicate in range(100):
        values = latencies(np.random.default_rng([3, replicate]), 20_000, 0.55, "poisson")
        found = stationarity_of(np.arange(len(values)), values)
        assert found is not None
        drifting += not found.stationary
    assert drifting <= 16


def test_a_queue_that_grows_is_found_to_drift() -> None:
    for replicate in range(20):
        values = latencies(np.random.default_rng([4, replicate]), 20_000, 1.1, "poisson", burn=0)
        found = stationarity_of(np.arange(len(values)), values)
        assert found is not None
        assert not found.stationary
        assert found.drift > 0.5


def test_kpss_is_that_of_statsmodels() -> None:
    tsa = pytest.importorskip("statsmodels.tsa.stattools")
    rng = np.random.default_rng(5)
    for _ in range(20):
        walk = np.cumsum(rng.normal(size=60)) * 0.2 + rng.normal(size=60)
        lags = int(np.ceil(4 * (60 / 100) ** 0.25))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of p-values beyond the table
            expected = tsa.kpss(walk, regression="c", nlags=lags)[1]
        assert kpss(walk) == pytest.approx(expected, abs=1e-6)


def test_too_few_values_are_not_judged() -> None:
    assert stationarity_of(np.arange(99), np.ones(99)) is None
    steady = stationarity_of(np.arange(100), np.ones(100))
    assert steady is not None
    assert (steady.stationary, steady.drift) == (True, 0.0)
