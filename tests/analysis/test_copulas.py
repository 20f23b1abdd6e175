"""Copulas and rank correlations: known dependence is found again."""

import math

import numpy as np
import pytest
from scipy import stats

from servescope.analysis import copulas


def pairs(r: float, calls: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    z = np.random.default_rng(4).multivariate_normal([0, 0], [[1, r], [r, 1]], calls)
    lengths = np.rint(np.exp(6 + z)).astype(np.int64)
    return lengths[:, 0], lengths[:, 1]


@pytest.mark.parametrize("r", [-0.6, 0.0, 0.6])
def test_the_rank_correlation_of_a_gaussian_copula_is_the_arcsine(r: float) -> None:
    x, y = pairs(r)
    found = copulas.correlation(copulas.mid_ranks(x), copulas.mid_ranks(y))
    assert found is not None
    assert found.estimate == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert found.low < 6 / math.pi * math.asin(r / 2) < found.high
    linear = copulas.correlation(x.astype(float), y.astype(float))
    assert linear is not None
    assert linear.estimate == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_the_copula_that_drew_the_pairs_comes_first() -> None:
    x, y = pairs(0.6)
    best = copulas.fit(copulas.mid_ranks(x), copulas.mid_ranks(y))[0]
    assert (best.family, best.parameter) == ("gaussian", pytest.approx(0.6, abs=0.03))
    rng = np.random.default_rng(2)
    v, w = rng.random(20_000), rng.random(20_000)
    theta = 2.0  # Clayton's, drawn by its conditional distribution
    u = (v**-theta * (w ** (-theta / (1 + theta)) - 1) + 1) ** (-1 / theta)
    lower = copulas.fit(u, v)[0]
    assert (lower.family, lower.parameter) == ("clayton", pytest.approx(theta, rel=0.05))
    assert lower.tau == pytest.approx(0.5, abs=0.02)
    assert lower.lower == pytest.approx(2**-0.5, abs=0.02)


def test_ranks_share_their_middle_where_values_tie() -> None:
    expected = (stats.rankdata([5, 7, 7, 9]) - 0.5) / 4
    assert copulas.mid_ranks(np.array([5, 7, 7, 9])) == pytest.approx(expected)
    assert copulas.mid_ranks(np.array([0.5, 0.7, 0.7, 0.9])) == pytest.approx(expected)


def test_conditional_quantiles_are_those_of_each_group() -> None:
    x = np.repeat(np.arange(1, 101), 100)
    table = copulas.conditional(x, 10 * x)
    assert table.height == 10
    assert table["calls"].sum() == len(x)
    assert table["calls"].to_numpy() == pytest.approx(np.full(10, 1000), abs=100)
    assert (table["p50"] >= 10 * table["input_from"]).all()
    assert (table["p90"] <= 10 * table["input_to"]).all()


def test_what_does_not_vary_has_no_correlation() -> None:
    assert copulas.correlation(np.full(10, 0.5), np.arange(10.0)) is None
