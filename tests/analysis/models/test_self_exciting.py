"""Arrivals that set off others."""

import math

import numpy as np
import pytest

from servescope.analysis.models.renewal import Poisson
from servescope.analysis.models.self_exciting import MOST_BRANCHING, SelfExciting, _log_scores
from servescope.analysis.models.stretches import Stretches
from servescope.analysis.point_processes import Hawkes
from servescope.traces.errors import InputError


def test_the_score_is_the_sum_over_all_pairs() -> None:
    shape, rate, width = SelfExciting(branching=0.6, decay_per_s=2.0), 1.5, 5.0
    at = np.array([0.5, 0.6, 2.0, 4.9])

    def intensity(t: float) -> float:
        before = sum(math.exp(-2 * (t - s)) for s in at if s < t)
        return rate * 0.4 + rate * 0.6 * math.exp(-2 * t) + 0.6 * 2 * before

    grid = (np.arange(200_000) + 0.5) * width / 200_000
    integral = np.mean([intensity(t) for t in grid[::20]]) * width
    expected = sum(math.log(intensity(t)) for t in at) - integral
    assert shape.log_score(at, width, rate) == pytest.approx(expected, abs=2e-3)


def test_without_branching_it_is_a_poisson_process() -> None:
    at = Poisson().sample(np.random.default_rng(0), 3.0, 100.0)
    shape = SelfExciting(branching=0.0, decay_per_s=1.0)
    assert shape.log_score(at, 100.0, 3.0) == pytest.approx(Poisson().log_score(at, 100.0, 3.0))


def test_many_stretches_score_as_each_of_them() -> None:
    at = Poisson().sample(np.random.default_rng(0), 5.0, 100.0)
    cut = Stretches.of(at, 100.0, 25.0, mean=40)
    together = _log_scores(cut, 0.5, 1.0)
    shape = SelfExciting(branching=0.5, decay_per_s=1.0)
    alone = [
        shape.log_score(row[:count], cut.width_s, rate)
        for row, count, rate in zip(cut.at, cut.count, cut.rate_rps, strict=True)
    ]
    assert together == pytest.approx(alone)


def test_branching_and_decay_are_found_again() -> None:
    at = Hawkes(5.0, 0.6, 2.0).sample(np.random.default_rng(1), until_s=3000.0)
    found = SelfExciting.fit(at, 3000.0, 3000.0)
    assert found.branching == pytest.approx(0.6, abs=0.05)
    assert found.decay_per_s == pytest.approx(2.0, rel=0.2)


def test_branching_ends_where_samples_would_explode() -> None:
    """On and off, as agents are: the likeliest Hawkes process would be beyond 1."""
    rng = np.random.default_rng(0)
    at = np.sort(np.concatenate([600 * k + 5 * rng.random(200) for k in range(10)]))
    found = SelfExciting.fit(at, 6000.0)
    assert found.branching <= MOST_BRANCHING
    counts = [len(found.sample(np.random.default_rng(k), 1.0, 60.0)) for k in range(200)]
    assert np.mean(counts) == pytest.approx(60, abs=4 * np.std(counts) / math.sqrt(200))


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(InputError):
        SelfExciting(branching=1.0, decay_per_s=1.0)
    with pytest.raises(InputError):
        SelfExciting.fit(np.zeros(100), 10.0)
