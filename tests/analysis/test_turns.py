"""Models of turns: each is recognised by what it drew."""

import numpy as np
import pytest

from servescope.analysis import turns


def counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, weights = np.unique(values, return_counts=True)
    return distinct.astype(float), weights.astype(float)


def test_a_geometric_law_is_found() -> None:
    made = {f.family: f for f in turns.fit(*counted(np.random.default_rng(1).geometric(0.3, 9999)))}
    found = made["geometric"]
    assert found.parameters["p"] == pytest.approx(0.3, abs=0.01)
    assert found.distance < 0.015
    assert found.aic - min(f.aic for f in made.values()) < 6
    assert made["zipf"].aic - found.aic > 100


def test_zipfs_law_is_found() -> None:
    values = np.random.default_rng(2).zipf(2.3, 20_000)
    made = {f.family: f for f in turns.fit(*counted(values[values < 5000]))}
    assert made["zipf"].parameters["exponent"] == pytest.approx(2.3, abs=0.05)
    assert made["geometric"].aic > made["zipf"].aic


def test_a_cut_off_is_found() -> None:
    k = np.arange(1, 2000)
    p = k**-1.1 * np.exp(-0.08 * k)
    values = np.random.default_rng(3).choice(k, 20_000, p=p / p.sum())
    best = turns.fit(*counted(values))[0]
    assert best.family == "power law with cut-off"
    assert best.parameters == pytest.approx({"exponent": 1.1, "rate": 0.08}, rel=0.15)


def test_sessions_that_are_all_alike_have_no_model() -> None:
    assert turns.fit(np.array([1.0]), np.array([50.0])) == []
