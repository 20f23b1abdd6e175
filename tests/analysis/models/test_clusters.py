"""Calls in clusters: how a window begins, the score against an exact one, and planted clusters."""

import math

import numpy as np
import pytest
from scipy import linalg

from servescope.analysis.models.clusters import Clusters
from servescope.analysis.models.renewal import Poisson
from servescope.traces.errors import InputError


def exact_score(at: np.ndarray, width: float, rate: float, size: float, spread: float) -> float:
    """Follow the number of calls still to come, up to 80, by matrix exponentials."""
    most, q = 80, 1 - 1 / size
    number = np.arange(most)
    silence = np.diag(-(rate / size) - number / spread)
    for more in range(1, most):
        silence += (rate / size) * (1 - q) * q ** (more - 1) * np.eye(most, k=more)
    arrival = np.diag(number[1:] / spread, k=-1)
    ahead = rate / size * spread / q
    state = (
        np.exp([math.lgamma(ahead + k) - math.lgamma(ahead) - math.lgamma(k + 1) for k in number])
        * (1 - q) ** ahead
        * q**number
    )
    now = 0.0
    for time in at:
        state = state @ linalg.expm(silence * (time - now)) @ arrival
        now = time
    return math.log((state @ linalg.expm(silence * (width - now))).sum())


def test_the_score_is_nearly_exact() -> None:
    """A silence, and one arrival, are exact; more are, but for the step that is not."""
    rate, size, spread = 2.0, 4.0, 1.5
    shape = Clusters(size=size, spread_s=spread)
    for at in (np.empty(0), np.array([1.3])):
        assert shape.log_score(at, 3.0, rate) == pytest.approx(
            exact_score(at, 3.0, rate, size, spread), abs=1e-4
        )
    at = shape.sample(np.random.default_rng(0), rate, 15.0)
    found, exact = shape.log_score(at, 15.0, rate), exact_score(at, 15.0, rate, size, spread)
    assert found == pytest.approx(exact, abs=0.01 * len(at))


def test_windows_begin_amid_clusters() -> None:
    shape = Clusters(size=6.0, spread_s=5.0)
    random = np.random.default_rng(0)
    halves = np.array(
        [np.histogram(shape.sample(random, 4.0, 2.0), (0, 1, 2))[0] for _ in range(8000)]
    )
    error = halves.std(axis=0) / math.sqrt(len(halves))
    assert (np.abs(halves.mean(axis=0) - 4) < 4 * error).all()


def test_long_counts_have_the_dispersion_of_geometric_clusters() -> None:
    """Var / mean is E[N^2] / E[N] = 2 m - 1 for geometric sizes of mean m."""
    shape = Clusters(size=5.0, spread_s=0.5)
    counts = [len(shape.sample(np.random.default_rng(k), 10.0, 100.0)) for k in range(2000)]
    assert np.var(counts) / np.mean(counts) == pytest.approx(9, rel=0.12)


def test_size_and_spread_are_found_again() -> None:
    at = Clusters(size=5.0, spread_s=1.0).sample(np.random.default_rng(1), 5.0, 2000.0)
    found = Clusters.fit(at, 2000.0, 2000.0)
    assert found.size == pytest.approx(5, rel=0.15)
    assert found.spread_s == pytest.approx(1, rel=0.15)


def test_clusters_of_one_are_a_poisson_process() -> None:
    at = Poisson().sample(np.random.default_rng(0), 3.0, 100.0)
    score = Clusters(size=1.0, spread_s=2.0).log_score(at, 100.0, 3.0)
    assert score == pytest.approx(Poisson().log_score(at, 100.0, 3.0))
    assert len(Clusters(size=1.0, spread_s=0.1).sample(np.random.default_rng(0), 3.0, 100.0)) > 200


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(InputError):
        Clusters(size=0.5, spread_s=1.0)
    with pytest.raises(InputError):
        Clusters.fit(np.arange(10.0), 10.0)
