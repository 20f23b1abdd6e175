"""The demand of a trace: order, what is known, hours, and what the clock lets be said."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.demand import Demand
from servescope.traces import Trace
from servescope.traces.provenance import Provenance


def demand_of(about: dict[str, object] | None = None, **columns: object) -> Demand:
    size = len(next(iter(columns.values())))  # type: ignore[arg-type]
    base = {"input_tokens": [10] * size, "output_tokens": [5] * size}
    known = Provenance(format="test", source="test", **(about or {}))  # type: ignore[arg-type]
    return Demand.of(Trace.of(pl.DataFrame({**base, **columns}, strict=False), known))


def test_calls_are_put_in_order_and_what_was_not_is_counted() -> None:
    demand = demand_of(arrival_s=[3.0, None, 1.0, 2.0], input_tokens=[3, 9, 1, 2])
    assert demand.arrivals.tolist() == [1, 2, 3]
    assert demand.placed["input_tokens"].to_list() == [1, 2, 3]
    assert len(demand) == 4
    assert demand.audit.out_of_order == 1
    assert demand.span_s == 2


def test_programs_with_a_clock_each_have_no_arrivals_but_stamps() -> None:
    demand = demand_of(
        {"arrival_basis": "program"}, arrival_s=[0.0, 1.0, 0.0], program_id=list("aab")
    )
    assert not demand.timed
    assert len(demand.arrivals) == 0
    assert demand.span_s == 0
    assert demand.audit.stamps == 3
    assert demand.audit.out_of_order is None


def test_columns_that_say_nothing_are_not_there_and_failures_are_known_or_not() -> None:
    demand = demand_of(
        arrival_s=[0.0, 1.0, 2.0], model=[None] * 3, status=["ok", "error", "unknown"]
    )
    assert "model" not in demand.columns
    assert demand.failed is not None
    assert demand.failed.to_list() == [False, True, None]
    assert demand_of(arrival_s=[0.0]).failed is None
    assert demand_of(arrival_s=[0.0], status=["unknown"]).failed is None


def test_calls_that_repeat_are_counted_once_each() -> None:
    demand = demand_of(arrival_s=[1.0, 1.0, 1.0, 2.0], input_tokens=[7, 7, 8, 7])
    assert demand.audit.duplicates == 1


def test_hours_are_those_of_the_source_s_clock() -> None:
    nine = demand_of({"t0_ns": 9 * 3600 * 10**9, "clock": "utc"}, arrival_s=[0.0, 1.0])
    assert nine.hours(np.array([0.0, 3600.0, 15 * 3600.0])).tolist() == [9, 10, 0]


def test_a_span_is_cut_no_finer_than_the_clock() -> None:
    demand = demand_of({"tick_s": 3.0}, arrival_s=[0.0, 60.0])
    assert demand.finest_s == 6
    assert demand.stretches(500) == 10
    assert demand_of(arrival_s=[0.0, 60.0]).stretches(500) == 500


def test_de_ticked_arrivals_are_drawn_the_same_each_time() -> None:
    first, again = (demand_of({"tick_s": 1.0}, arrival_s=np.arange(50.0)).deticked for _ in "ab")
    assert len(first) == 20
    assert first[3] == pytest.approx(again[3])
    assert demand_of(arrival_s=[0.0, 1.5]).deticked[0].tolist() == [0, 1.5]


def test_of_a_run_how_long_calls_stayed_is_its_own_measurement() -> None:
    demand = demand_of(arrival_s=[0.0, 1.0], sent_s=[0.1, 1.1], end_s=[2.1, None])
    assert demand.calls["observed_e2e_s"].to_list() == [pytest.approx(2.0), None]
