"""The dyadic test of the Poisson process: right under the null, and sharp against bursts."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.arrivals import process
from servescope.analysis.poisson_tests import dyadic


def test_a_rate_that_changes_slowly_is_no_burstiness() -> None:
    rng = np.random.default_rng(7)
    at = np.sort(10_000 * np.sqrt(rng.random(50_000)))
    table = dyadic(at, 0.1).filter(pl.col("scale_s") < 100)
    assert table["z"].abs().max() < 4
    assert (table["p_value"] > 0.001).all()


def test_bursts_are_seen_at_the_scales_at_which_they_are() -> None:
    at = process("mmpp", rates_rps=(20, 1), hold_s=(5, 15)).sample(
        np.random.default_rng(8), count=20_000
    )
    table = dyadic(at, 0.1)
    at_10_s = table.filter(pl.col("scale_s").is_between(5, 15)).row(0, named=True)
    assert at_10_s["z"] > 10
    assert at_10_s["p_value"] < 1e-10
    assert at_10_s["correlation"] > 0.05


def test_the_mean_and_variance_of_a_split_are_those_of_the_binomial() -> None:
    # windows of two arrivals: (2K - N)^2 / N is 2 for both on a side, 0 for one each
    pairs = np.arange(200)[:, None] * 4.0 + np.array([0.0, 1.0])
    apart = pairs.copy()
    apart[::2, 1] += 2.0  # every other window has one in each half
    table = dyadic(np.sort(apart.reshape(-1)), 2.0)
    row = table.filter(pl.col("scale_s") == 2).row(0, named=True)
    assert row["dispersion"] == pytest.approx(1.0, abs=0.02)
    assert row["z"] == pytest.approx(0.0, abs=0.2)
