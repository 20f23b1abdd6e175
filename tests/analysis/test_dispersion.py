"""Dispersion over time scales: processes whose dispersion is known."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis import dispersion
from servescope.analysis.arrivals import process
from servescope.analysis.counts import Counts


def drawn(name: str, count: int = 100_000, **parameters: object) -> np.ndarray:
    return process(name, **parameters).sample(np.random.default_rng(5), count=count)


def test_a_poisson_process_has_dispersion_1_at_every_scale() -> None:
    table = dispersion.of_counts(drawn("poisson", rate_rps=5), 0.1).filter(pl.col("windows") > 400)
    assert table["idc"].to_numpy() == pytest.approx(np.ones(table.height), abs=0.15)
    assert table["allan"].to_numpy() == pytest.approx(np.ones(table.height), abs=0.15)
    assert (table["idc_low"] <= table["idc"]).all()


def test_gamma_gaps_have_the_dispersion_of_their_shape_over_long_times() -> None:
    table = dispersion.of_counts(drawn("gamma", 1_000_000, rate_rps=5, burstiness=0.25), 0.1)
    long = table.filter(pl.col("scale_s").is_between(20, 60))
    assert long["idc"].to_numpy() == pytest.approx(np.full(long.height, 4.0), rel=0.1)
    intervals = dispersion.of_intervals([drawn("gamma", rate_rps=5, burstiness=0.25)])
    assert intervals["idi"].to_numpy()[:6] == pytest.approx(np.full(6, 4.0), rel=0.15)


def test_a_slow_trend_widens_the_dispersion_and_leaves_the_allan_factor_alone() -> None:
    rng = np.random.default_rng(6)
    at = np.sort(10_000 * np.sqrt(rng.random(100_000)))  # a rate that grows in proportion to time
    row = dispersion.of_counts(at, 1.0).filter(pl.col("scale_s") == 64).row(0, named=True)
    assert row["idc"] > 50
    assert row["allan"] == pytest.approx(1.0, abs=0.3)


def test_the_dispersion_and_allan_factor_are_those_of_the_dense_counts() -> None:
    at = drawn("mmpp", 4000, rates_rps=(20, 1), hold_s=(5, 15))
    for row in dispersion.of_counts(at, 0.5).iter_rows(named=True):
        counts = Counts.of(at, row["scale_s"]).dense()
        assert row["idc"] == pytest.approx(counts.var(ddof=1) / counts.mean())
        steps = np.diff(counts)
        assert row["allan"] == pytest.approx((steps**2).mean() / 2 / counts.mean())
        assert row["peak_to_mean"] == pytest.approx(counts.max() / counts.mean())


def test_a_metronome_has_cv_0_and_zeros_have_none() -> None:
    found = dispersion.cv_of(np.full(100, 0.5))
    assert found is not None
    assert found.estimate == 0
    assert dispersion.cv_of(np.zeros(10)) is None
    assert dispersion.cv_of(np.array([1.0])) is None
