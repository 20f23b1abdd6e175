"""Stretches of time: every arrival once, with the rate of its window."""

import numpy as np
import pytest

from servescope.analysis.models.stretches import Stretches, check_enough, window_edges
from servescope.traces.errors import InputError


def test_every_arrival_is_in_one_stretch() -> None:
    at = np.sort(np.random.default_rng(0).random(5000)) * 2400
    cut = Stretches.of(at, 2400.0, 600.0, mean=100)
    assert cut.count.sum() == 5000
    assert len(cut.at) == 48  # 4 windows of 12 or 13 hundreds each
    again = [
        row[:n] + k * cut.width_s for k, (row, n) in enumerate(zip(cut.at, cut.count, strict=True))
    ]
    assert np.concatenate(again) == pytest.approx(at)
    counts = np.histogram(at, window_edges(2400.0, 600.0))[0]
    assert cut.rate_rps == pytest.approx(np.repeat(counts / 600, 12))


def test_bins_hold_what_the_stretches_do() -> None:
    at = np.sort(np.random.default_rng(0).random(300)) * 60
    cut = Stretches.of(at, 60.0, 60.0, mean=100)
    assert cut.counts(5).sum(axis=0) == pytest.approx(cut.count)
    assert cut.counts(5).T.ravel() == pytest.approx(np.histogram(at, 15, (0, 60))[0])


def test_of_many_arrivals_some_stretches_are_looked_at() -> None:
    at = np.sort(np.random.default_rng(0).random(50_000)) * 6000
    cut = Stretches.of(at, 6000.0, 600.0, mean=100, most=10_000)
    assert cut.count.sum() == pytest.approx(10_000, rel=0.05)


def test_windows_without_arrivals_are_left_out() -> None:
    at = np.sort(np.random.default_rng(0).random(100)) * 600 + 1200
    cut = Stretches.of(at, 3000.0, 600.0)
    assert len(cut.at) == 1
    assert cut.rate_rps == pytest.approx([100 / 600])


@pytest.mark.parametrize(
    "at", [np.arange(29.0), np.full(50, 2.0), np.arange(50.0) - 1, np.arange(50.0) * 3]
)
def test_too_little_is_refused(at: np.ndarray) -> None:
    with pytest.raises(InputError):
        check_enough(at, 100.0)
