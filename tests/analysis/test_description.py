"""Summaries of traces: known processes, and the bundled traces by known figures."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis import describe
from servescope.analysis.description import Spread
from servescope.traces import Trace, load
from servescope.traces.provenance import Provenance


def a_trace(**columns: object) -> Trace:
    size = len(next(iter(columns.values())))  # type: ignore[arg-type]
    base = {"input_tokens": [10] * size, "output_tokens": [5] * size}
    frame = pl.DataFrame({**base, **columns}, strict=False)
    return Trace.of(frame, Provenance(format="test", source="test", doubts=("said before",)))


def test_a_spread_is_of_order_statistics_and_the_sample_deviation() -> None:
    found = Spread.of(pl.Series([1, None, 2, 3, 4]))
    assert found is not None
    assert (found.mean, found.p50, found.p90, found.p99, found.max) == (2.5, 2, 4, 4, 4)
    assert found.cv == pytest.approx(np.sqrt(5 / 3) / 2.5)


def test_nothing_has_no_spread_and_one_value_or_zeros_have_no_cv() -> None:
    assert Spread.of(pl.Series([None], dtype=pl.Float64)) is None
    for values in ([7], [0, 0]):
        found = Spread.of(pl.Series(values))
        assert found is not None
        assert found.cv is None


def test_a_metronome_has_cv_0() -> None:
    found = describe(a_trace(arrival_s=[0.5 * n for n in range(100)]))
    assert found.iat is not None
    assert (found.iat.cv, found.rate_rps, found.span_s) == (pytest.approx(0), 2.0, 49.5)


@pytest.mark.parametrize(("shape", "cv"), [(1.0, 1.0), (0.25, 2.0), (4.0, 0.5)])
def test_poisson_has_cv_1_and_gamma_gaps_the_cv_of_their_shape(shape: float, cv: float) -> None:
    gaps = np.random.default_rng(0).gamma(shape, 1 / (2 * shape), 20_000)
    found = describe(a_trace(arrival_s=np.cumsum(gaps)))
    assert found.iat is not None
    assert found.iat.cv == pytest.approx(cv, rel=0.04)
    assert found.rate_rps == pytest.approx(2.0, rel=0.04)


def test_arrivals_need_not_be_in_order() -> None:
    found = describe(a_trace(arrival_s=[3.0, 1.0, 2.0]))
    assert found.iat is not None
    assert (found.iat.mean, found.span_s) == (1.0, 2.0)


def test_too_coarse_a_clock_gives_no_inter_arrival_statistic_and_says_so() -> None:
    found = describe(a_trace(arrival_s=[0.0, 0.0, 0.0, 1.0]))
    assert (found.iat, found.rate_rps) == (None, 3.0)
    assert found.doubts == (
        "said before",
        "67% of the arrivals share a stamp with the one before.",
        "So many ties leave no inter-arrival statistic that is not the clock's own.",
    )


def test_turns_and_programs_are_counted_and_a_call_of_none_is_one_by_itself() -> None:
    found = describe(a_trace(arrival_s=range(6), program_id=["p", "p", "p", "q", None, None]))
    assert found.programs == 4
    assert found.turns is not None
    assert (found.turns.mean, found.turns.max) == (2.0, 3.0)
    assert found.multi_turn_share == 3 / 6


def test_without_programs_nothing_is_said_of_turns() -> None:
    found = describe(a_trace(arrival_s=[0.0, 1.0]))
    assert (found.programs, found.turns, found.multi_turn_share) == (None, None, None)


def test_only_a_known_failure_counts_as_failed() -> None:
    status = ["ok", "error", None, "http_503"]
    assert describe(a_trace(arrival_s=range(4), status=status)).failed == 2


@pytest.mark.parametrize("arrivals", [[], [1.0], [2.0, 2.0]])
def test_over_no_time_there_is_no_rate(arrivals: list[float]) -> None:
    found = describe(a_trace(arrival_s=pl.Series(arrivals, dtype=pl.Float64)))
    assert (found.calls, found.rate_rps) == (len(arrivals), None)


def test_a_trace_without_arrivals_is_described_by_its_lengths() -> None:
    found = describe(a_trace(call_id=["a", "b"], parents=[[], ["a"]]))
    assert (found.calls, found.span_s, found.iat) == (2, None, None)
    assert found.input_tokens is not None
    assert found.input_tokens.mean == 10


def test_burstgpts_sample_has_the_figures_that_are_known_of_it() -> None:
    """Medians are order statistics: the 200th of 400, where interpolation would say 320 and 230."""
    found = describe(load("burstgpt:sample"))
    assert found.input_tokens is not None
    assert found.output_tokens is not None
    assert found.iat is not None
    asked, given = (
        (round(s.mean, 1), s.p50, s.p90, s.p99, s.max)
        for s in (found.input_tokens, found.output_tokens)
    )
    assert asked == (520.5, 308, 1416, 1958, 2126)
    assert given == (276.5, 229, 570, 1421, 2019)
    assert (found.calls, found.failed, found.span_s) == (400, 17, 37269)
    assert found.iat.cv == pytest.approx(4.57, abs=0.005)
    assert found.rate_rps == 399 / 37269


def test_azures_sample_is_far_from_poisson_and_knows_no_programs() -> None:
    found = describe(load("azure:sample"))
    assert (found.calls, found.programs) == (1500, None)
    assert found.iat is not None
    assert found.iat.cv is not None
    assert found.iat.cv > 10
