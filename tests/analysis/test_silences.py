"""Silences: by hand."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.silences import silences, silent_s


def test_silences_hold_the_time_they_hold() -> None:
    burst = np.arange(100) * 0.01
    at = np.concatenate([burst, 50 + burst, 100 + burst])
    row = silences(at, 0.0).filter(pl.col("longer_than_s") == 20).row(0, named=True)
    assert (row["silences"], row["total_s"]) == (2, pytest.approx(2 * 49.01))
    assert row["share"] == pytest.approx(2 * 49.01 / 100.99)
    assert row["poisson"] < 1e-10


def test_a_silence_is_fifty_mean_gaps_in_round_numbers() -> None:
    assert silent_s(np.arange(100) * 0.39) == 20.0
    assert silent_s(np.arange(100) * 2.0) == 100.0
    assert silent_s(np.zeros(5)) == np.inf


def test_nothing_is_said_of_gaps_that_the_clock_cannot_tell_or_the_span_cannot_hold() -> None:
    table = silences(np.arange(100.0), 6.0)
    assert table["longer_than_s"].to_list() == [10.0, 20.0, 50.0, 60.0]
    assert silences(np.zeros(3), 0.0).height == 0
