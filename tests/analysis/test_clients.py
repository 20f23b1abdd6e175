"""Clients: shares of a variance, by hand and against numpy."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.clients import by_pool, shared_out


def test_parts_of_the_variance_are_covariances_with_the_total() -> None:
    rng = np.random.default_rng(1)
    rates = rng.gamma(1, 1, (5, 300)) * (rng.random((5, 300)) < 0.4)
    who, where = np.nonzero(rates)
    found = shared_out(who, where, rates[who, where], 5, 300)
    assert found is not None
    shares, alone = found
    total = rates.sum(axis=0)
    expected = [np.cov(row, total, ddof=0)[0, 1] / total.var() for row in rates]
    assert shares == pytest.approx(expected)
    assert shares.sum() == pytest.approx(1)
    assert alone == pytest.approx(rates.var(axis=1).sum() / total.var())


def test_a_total_that_does_not_vary_cannot_be_shared_out() -> None:
    assert shared_out(np.array([0, 1]), np.array([0, 1]), np.ones(2), 2, 2) is None


def test_pools_are_folders_and_one_alone_has_no_name() -> None:
    two = by_pool(pl.DataFrame({"client_id": ["a/m/c-1", "a/n/c-1"]}))
    assert two["pool"].to_list() == ["a/m", "a/n"]
    assert by_pool(pl.DataFrame({"client_id": ["a/m/c-1", "a/m/c-2"]}))["pool"].to_list() == [
        "",
        "",
    ]
