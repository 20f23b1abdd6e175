"""One clock for all traces, and traces in two parts."""

import numpy as np
import polars as pl
import pytest
from made_traces import poisson, trace_of

from servescope.analysis.clock import Tick
from servescope.analysis.demand import Demand
from servescope.analysis.fidelity.sides import Side, coarsest, split, spread
from servescope.traces import Trace
from servescope.traces.errors import InputError

SECOND = Tick(1.0, "grid", 1.0, 0.0)


def floored(seed: int) -> Trace:
    one = poisson(seed)
    return Trace.of(one.frame.with_columns(pl.col("arrival_s").floor()), one.provenance)


def test_the_coarsest_tick_counts() -> None:
    fine, coarse = Demand.of(poisson(1)), Demand.of(floored(1))
    assert coarsest([fine]) is None
    found = coarsest([fine, coarse])
    assert found is not None
    assert found.step_s == 1.0


def test_arrivals_stay_within_their_tick_and_in_order() -> None:
    one = floored(1)
    drawn = spread(one, SECOND, seed=3).collect()["arrival_s"].to_numpy()
    assert (np.diff(drawn) >= 0).all()
    assert np.abs(drawn - one.collect()["arrival_s"].to_numpy()).max() <= 0.5
    assert len(np.unique(drawn)) == len(drawn)


def test_a_side_draws_what_a_trace_is_given() -> None:
    """The engine serves the arrivals that the statistics are of."""
    one = floored(1)
    side = Side.of(Demand.of(one), SECOND, seed=3)
    assert (side.arrivals == spread(one, SECOND, seed=3).collect()["arrival_s"].to_numpy()).all()


def test_a_fine_clock_is_left_alone() -> None:
    one = poisson(1)
    assert spread(one, None) is one


@pytest.mark.parametrize(
    ("rate_rps", "calls", "least_s", "longest_s"),
    [
        (10.0, 40_000, 0.1, 300.0),  # over an hour
        (10.0, 4000, 0.1, 40.0),  # a tenth of 400 s
        (0.01, 1000, 10.0, 10_000.0),  # rare calls: three decades
        (0.05, 30_000, 60.0, 60_000.0),  # a week
    ],
)
def test_scales_fit_the_trace(
    rate_rps: float, calls: int, least_s: float, longest_s: float
) -> None:
    at = np.linspace(0, (calls - 1) / rate_rps, calls)
    ones = np.ones(calls, np.int64)
    side = Side(Demand.of(trace_of(at, ones, ones)), 0.0)
    assert side.scales == pytest.approx((least_s, longest_s), rel=0.01)


def test_a_trace_is_cut_at_a_share_of_its_span() -> None:
    one = trace_of(np.array([0.0, 1.0, 9.0, 10.0]), np.ones(4, np.int64), np.ones(4, np.int64))
    first, second = (part.collect().height for part in split(one, 0.5))
    assert (first, second) == (2, 2)
    first, second = (part.collect().height for part in split(one, 0.95))
    assert (first, second) == (3, 1)


def test_programs_with_clocks_of_their_own_are_cut_whole() -> None:
    ones = np.ones(6, np.int64)
    names = pl.Series(["a", "a", "b", "c", "c", "d"])
    one = trace_of(np.zeros(6), ones, ones, program_id=names).known(arrival_basis="program")
    first, second = (set(part.collect()["program_id"]) for part in split(one, 0.5))
    assert first == {"a", "b"}
    assert second == {"c", "d"}


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="cannot be cut"):
        split(poisson(1, calls=10), share)
