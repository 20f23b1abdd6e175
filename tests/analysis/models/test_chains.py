"""Hidden chains against the sum over all paths."""

from itertools import pairwise, product

import numpy as np
import pytest

from servescope.analysis.models.chains import forward, smoothed, stationary

TRANSITION = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.05, 0.15, 0.8]])


def test_the_stationary_shares_stay() -> None:
    shares = stationary(TRANSITION)
    assert shares @ TRANSITION == pytest.approx(shares)
    assert shares.sum() == pytest.approx(1)


def test_scores_and_chances_are_those_of_all_paths() -> None:
    """Four bins and three states: 81 paths, added up one by one."""
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(4, 2, 3))
    begin = stationary(TRANSITION)
    score, chance, jumps = smoothed(logs, TRANSITION, begin)
    total, seen, moved = 0.0, np.zeros_like(logs), np.zeros((3, 3))
    for row in range(2):
        weights = {}
        for path in product(range(3), repeat=4):
            log = np.log(begin[path[0]]) + sum(logs[k, row, path[k]] for k in range(4))
            log += sum(np.log(TRANSITION[a, b]) for a, b in pairwise(path))
            weights[path] = np.exp(log)
        whole = sum(weights.values())
        total += np.log(whole)
        assert forward(logs, TRANSITION, begin)[0][row] == pytest.approx(np.log(whole))
        for path, weight in weights.items():
            for k in range(4):
                seen[k, row, path[k]] += weight / whole
            for a, b in pairwise(path):
                moved[a, b] += weight / whole
    assert score == pytest.approx(total)
    assert chance == pytest.approx(seen)
    assert jumps == pytest.approx(moved)
