"""Tails: a spliced power law is found where it begins, and a log-normal is not called one."""

import numpy as np
import pytest

from servescope.analysis import tails


def spliced(rng: np.random.Generator, calls: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    body = rng.lognormal(5, 0.8, 2 * calls)
    body = body[body < 600][: int(0.92 * calls)]
    tail = 600 * (1 - rng.random(calls - len(body))) ** (-1 / 1.6)
    values, weights = np.unique(np.rint(np.concatenate([body, tail])), return_counts=True)
    return values[values > 0], weights[values > 0].astype(float)


def test_the_exponent_and_the_beginning_of_a_tail_are_found() -> None:
    values, weights = spliced(np.random.default_rng(1))
    tail = tails.power_law(values, weights, np.random.default_rng(5))
    assert tail is not None
    assert tail.exponent.low < 1.6 < tail.exponent.high
    assert 500 < tail.least < 800
    both = tails.spliced(values, weights, tail)
    assert both is not None
    assert (both.mu, both.sigma) == (pytest.approx(5, abs=0.05), pytest.approx(0.8, abs=0.05))
    assert both.distance < 0.01


def test_the_tail_of_a_log_normal_is_rather_log_normal() -> None:
    x = np.rint(np.random.default_rng(2).lognormal(5, 1, 50_000))
    values, weights = np.unique(x[x > 0], return_counts=True)
    tail = tails.power_law(values, weights.astype(float))
    assert tail is not None
    assert tail.lognormal_z < 0


def test_the_zipf_exponent_of_ranked_counts_is_found() -> None:
    rng = np.random.default_rng(3)
    p = np.arange(1, 501) ** -1.2
    counts = rng.multinomial(200_000, p / p.sum()).astype(float)
    found = tails.zipf(counts)
    assert found is not None
    assert found[0] == pytest.approx(1.2, abs=0.02)
    assert tails.zipf(np.array([3.0, 1.0])) is None


def test_zipfs_law_of_whole_numbers_is_found() -> None:
    x = np.random.default_rng(6).zipf(1.7, 30_000)
    values, weights = np.unique(x[x < 100_000], return_counts=True)
    exponent, apart, _ = tails.zipf_values(values.astype(float), weights.astype(float))
    assert exponent == pytest.approx(1.7, abs=0.03)
    assert apart < 0.01


def test_few_values_have_no_tail() -> None:
    assert tails.power_law(np.arange(1.0, 8), np.ones(7)) is None
