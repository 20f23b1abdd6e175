"""Errors of curves over time against hand-computed ones."""

import math

import numpy as np
import polars as pl
import pytest
from made_traces import trace_of

from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.scores import Score
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.fidelity.temporal import count_curve, log_error, scores
from servescope.analysis.sample import Floats


def side(at: Floats) -> Side:
    ones = np.ones(len(at), np.int64)
    return Side.of(Demand.of(trace_of(at, ones, ones)), None)


def test_the_error_of_a_curve_is_the_mean_log_ratio() -> None:
    real = pl.DataFrame({"x": [1.0, 2.0, 4.0], "y": [1.0, 2.0, 4.0]})
    other = pl.DataFrame({"x": [1.0, 2.0, 8.0], "y": [2.0, 1.0, 9.0]})
    assert log_error(real, other) == pytest.approx(math.log(2))
    assert log_error(real, other.filter(pl.col("x") == 8)) is None


def test_pairs_have_twice_the_dispersion_at_every_scale() -> None:
    """Every call of a Poisson process twice: Var and mean of counts are 4 and 2 times as large."""
    rng = np.random.default_rng(1)
    at = np.cumsum(rng.exponential(1.0, 4000))
    single, double = side(at), side(np.repeat(at, 2))
    curves = [count_curve(single, each) for each in (single, double)]
    assert curves[1]["y"].to_numpy() == pytest.approx(2 * curves[0]["y"].to_numpy())
    found = {s.measure: s.value for s in scores(single, double) if isinstance(s, Score)}
    assert found["idc"] == pytest.approx(math.log(2))
    assert found["rate"] == pytest.approx(1.0, abs=0.001)
    assert found["peak_to_mean"] == pytest.approx(0.0, abs=1e-9)
    assert found["acf"] == pytest.approx(0.0, abs=1e-9)


def test_a_rhythm_that_is_lost_is_found_in_the_memory() -> None:
    rng = np.random.default_rng(1)
    second = np.arange(4000)
    wave = rng.poisson(5 * (1 + 0.9 * np.sin(second / 5)))
    flat = rng.poisson(5, len(second))
    real, other = (side(np.repeat(second + 0.5, counts)) for counts in (wave, flat))
    found = {(s.measure, s.subject): s.value for s in scores(real, other) if isinstance(s, Score)}
    # counts of a wave correlate as a cosine, of which the noise leaves 0.67
    assert found["acf", "counts of 1 s"] == pytest.approx(0.67 / math.sqrt(2), abs=0.05)


def test_peaks_are_told_at_four_widths() -> None:
    rng = np.random.default_rng(1)
    at = np.cumsum(rng.exponential(0.5, 20_000))
    real = side(np.sort(np.concatenate([at, np.full(500, 5000.0)])))
    found = [s for s in scores(real, side(at)) if isinstance(s, Score)]
    peaks = {s.subject: s for s in found if s.measure == "peak_to_mean"}
    assert set(peaks) == {"1 s", "10 s", "1 min", "10 min"}
    assert peaks["1 s"].real == pytest.approx(250, rel=0.05)
    assert peaks["1 s"].value > peaks["10 s"].value > peaks["1 min"].value > peaks["10 min"].value
