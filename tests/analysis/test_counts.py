"""Counts in windows: against a histogram, at every width."""

import numpy as np
import pytest

from servescope.analysis.arrivals import process
from servescope.analysis.counts import Counts, round_width, width_for


def drawn(count: int = 3000) -> np.ndarray:
    gamma = process("gamma", rate_rps=5, burstiness=0.2)
    return gamma.sample(np.random.default_rng(5), count=count)


def test_counts_are_those_of_a_histogram_at_every_octave() -> None:
    at = drawn()
    for counts in Counts.of(at, 0.25).octaves():
        edges = at[0] + counts.width_s * np.arange(counts.windows + 1)
        assert counts.dense() == pytest.approx(np.histogram(at, edges)[0])


def test_weights_are_summed_window_by_window() -> None:
    at = drawn()
    weights = np.random.default_rng(6).random(len(at))
    for counts in Counts.of(at, 0.25, weights=weights).octaves():
        edges = at[0] + counts.width_s * np.arange(counts.windows + 1)
        assert counts.dense() == pytest.approx(np.histogram(at, edges, weights=weights)[0])


def test_windows_may_begin_later_and_none_may_be_whole() -> None:
    at = np.array([0.0, 0.5, 1.5, 2.5, 3.0])
    assert Counts.of(at, 1.0, 1.0).dense().tolist() == [1, 1]
    assert Counts.of(at, 10.0).windows == 0
    assert Counts.of(np.empty(0), 1.0).dense().tolist() == []


def test_sections_hold_all_windows_in_order() -> None:
    section, sizes = Counts.of(drawn(), 0.25).sections(7)
    assert sizes.sum() == Counts.of(drawn(), 0.25).windows
    assert (np.diff(section) >= 0).all()
    assert set(section.tolist()) == set(range(7))


def test_an_octave_is_found_that_cuts_a_span_into_few_enough() -> None:
    assert width_for(100, 0, 1000) == 0.1
    assert width_for(100, 3.0, 10) == 12.0


def test_widths_are_round_and_no_finer_than_the_clock_allows() -> None:
    assert round_width(3600, 300) == 20
    assert round_width(3600, 300, finest_s=60) == 60
    assert round_width(86_400 * 400, 300) == 2 * 86_400
