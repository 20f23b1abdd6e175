"""Bounds that are moved are met by those who meet the SLO of the same bounds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import mixed

from servescope.analysis import SLO, Measured, attained
from servescope.analysis.thresholds import POINTS, RANGES, Bounds, Thresholds
from servescope.traces import Run

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]

BOUND = st.none() | st.sampled_from([0.05, 0.1, 0.3, 1.0, 4.0])
BOUNDS = st.builds(Bounds, BOUND, BOUND, BOUND, BOUND)


def slo_of(bounds: Bounds) -> SLO:
    return SLO.parse(",".join(f"{name}<{bound}s" for name, bound in bounds.asked.items()))


@given(st.integers(1, 50), st.integers(0, 10_000), BOUNDS.filter(lambda bounds: bounds.asked))
@settings(max_examples=80)
def test_they_are_met_by_those_who_meet_the_slo_of_the_same_text(
    call: Make, calls: int, seed: int, bounds: Bounds
) -> None:
    measured = Measured(mixed(call, calls, seed).lazy())
    assert Thresholds.of(measured).attained(bounds) == attained(measured, slo_of(bounds))
    assert bounds.slo == slo_of(bounds)


@given(st.integers(1, 30), st.integers(0, 10_000), BOUNDS, st.sampled_from(sorted(RANGES)))
@settings(max_examples=50)
def test_each_point_of_a_curve_is_what_the_slo_with_that_bound_says(
    call: Make, calls: int, seed: int, bounds: Bounds, over: str
) -> None:
    measured = Measured(mixed(call, calls, seed).lazy())
    grid = (0.05, 0.2, 1.0, 7.5)
    curve = Thresholds.of(measured).curve(bounds, over, grid)
    for place, bound in enumerate(grid):
        met = attained(measured, slo_of(replace(bounds, **{f"{over}_s": bound})))
        assert curve.attainment[place] == pytest.approx(met.share)
        assert curve.goodput[place] == pytest.approx(met.goodput_rps or 0, nan_ok=True) or (
            met.goodput_rps is None
        )
        assert curve.per == met.per


def test_a_value_at_its_bound_does_not_meet_it(call: Make, a_run: MakeRun) -> None:
    run = a_run([call("a", 0.0, 0.5), call("b", 4.0, 4.25)])
    asked = Thresholds.of(run)
    assert [asked.attained(Bounds(ttft)).met for ttft in (0.25, 0.3, 0.5, 0.51)] == [0, 1, 1, 2]
    assert asked.curve(Bounds(), "ttft", (0.25, 0.5, 0.51)).attainment.tolist() == [0, 0.5, 1]


def test_without_a_bound_whoever_was_answered_meets_it(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    run = a_run([call("a", 0.0, 0.5), failed("b", 1.0)])
    found = Thresholds.of(run).attained(Bounds())
    assert (found.met, found.asked, found.share) == (1, 2, 0.5)


def test_curves_of_all_runs_have_one_grid_and_never_fall(call: Make) -> None:
    for seed in range(3):
        asked = Thresholds.of(Measured(mixed(call, 40, seed).lazy()))
        for over, (low, high) in RANGES.items():
            curve = asked.curve(Bounds(ttft_s=0.4), over)
            assert np.allclose(curve.grid_s, np.geomspace(low, high, POINTS))
            assert (np.diff(curve.attainment) >= 0).all()
            assert (np.diff(curve.goodput) >= 0).all()


def test_a_run_of_no_calls_meets_nothing(a_run: MakeRun) -> None:
    asked = Thresholds.of(a_run([]))
    for bounds in (Bounds(1.0), Bounds(jct_s=1.0)):
        found = asked.attained(bounds)
        assert (found.met, found.asked, found.share, found.goodput_rps) == (0, 0, 0.0, None)
        assert np.isnan(asked.curve(bounds, "ttft").goodput).all()
