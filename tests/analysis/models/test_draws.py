"""Randomness that is keyed: the same for the same purpose and window, and for no other."""

import numpy as np
from scipy import stats

from servescope.analysis.models.draws import Draws


def test_a_window_has_the_same_numbers_whatever_was_drawn_before() -> None:
    alone = Draws(3).rng("marks", 7).random(5)
    draws = Draws(3)
    for window in range(7):
        draws.rng("marks", window).random(window)
    assert np.array_equal(draws.rng("marks", 7).random(5), alone)
    assert draws.key("marks", 7) == Draws(3).key("marks", 7)


def test_seeds_streams_purposes_and_windows_each_have_numbers_of_their_own() -> None:
    of = [
        Draws(seed, stream).rng(purpose, window).random()
        for seed in (0, 1, 12)
        for stream in (0, 1, 2)
        for purpose in ("count", "starts")
        for window in (0, 1, 21)
    ]
    assert len(set(of)) == len(of)


def test_names_are_not_run_together() -> None:
    """Seed 1 of stream 11 is not seed 11 of stream 1."""
    assert Draws(1, 11).key("count", 1) != Draws(11, 1).key("count", 1)
    assert Draws(1).key("count", 11) != Draws(1).key("count1", 1)


def test_first_numbers_and_keys_of_windows_are_even_and_independent() -> None:
    draws = Draws(5)
    first = np.array([draws.rng("count", window).random() for window in range(4000)])
    keys = np.array([draws.key("starts", window) for window in range(4000)], np.uint64)
    for numbers in (first, keys / 2.0**64):
        assert stats.kstest(numbers, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.06
    assert abs(np.corrcoef(first, keys / 2.0**64)[0, 1]) < 0.06
