"""One number given another: its law and dependence come back, and no stretch is too small."""

import numpy as np
import pytest
from scipy import stats

from servescope.analysis.models.given import Given, edges_of


def test_dependence_and_law_come_back() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    y = np.exp(0.8 * x + 0.6 * rng.normal(size=20_000))
    given = Given.fit(x, y)
    drawn = given.at(x, rng.random(20_000))
    assert stats.ks_2samp(y, drawn).statistic < 0.01
    assert stats.spearmanr(x, drawn).statistic == pytest.approx(
        stats.spearmanr(x, y).statistic, abs=0.015
    )


def test_ranks_are_uniform_and_independent_of_what_is_given() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=20_000)
    y = x + rng.normal(size=20_000)
    ranks = Given.fit(x, y).rank(x, y)
    assert stats.kstest(ranks, "uniform").statistic < 0.02
    assert abs(stats.spearmanr(x, ranks).statistic) < 0.03


def test_ranks_lead_back_to_the_values() -> None:
    rng = np.random.default_rng(2)
    x, u = rng.random(5000), rng.uniform(0.05, 0.95, 5000)
    given = Given.fit(x, x + rng.exponential(size=5000))
    assert given.rank(x, given.at(x, u)) == pytest.approx(u, abs=1e-4)


def test_few_values_do_not_depend_on_anything() -> None:
    given = Given.fit(np.arange(60.0), np.arange(60.0))
    assert given.ranks == ()


def test_stretches_are_never_too_small() -> None:
    x = np.repeat([1.0, 2.0, 3.0], [1000, 30, 500])
    edges = edges_of(x, 16, 100)
    sizes = np.bincount(np.searchsorted(edges, x, side="left"))
    assert edges == (1.0,)
    assert sizes.tolist() == [1000, 530]


def test_a_better_law_scores_higher() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=5000)
    y = x + 0.1 * rng.normal(size=5000)
    apart = Given.fit(rng.permutation(x), y)
    assert Given.fit(x, y).log_score(x, y) > apart.log_score(x, y) + 2500
