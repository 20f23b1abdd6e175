import polars as pl
import pytest

from servescope.traces import Provenance, Quality, Trace, inspect, load

HERE = Provenance(format="test", source="here")
KNOWN = ("call_id", "arrival_s", "input_tokens", "output_tokens")


def a_trace(**columns: object) -> Trace:
    base = {"input_tokens": [1, 1, 1, 1], "output_tokens": [1, 1, 1, 1]}
    base["arrival_s"] = [0, 1, 2, 3]
    return Trace.of(pl.DataFrame({**base, **columns}, strict=False), HERE)


def test_a_clean_trace_has_nothing_to_doubt() -> None:
    found = inspect(a_trace())
    names = found.missing
    assert found == Quality(
        calls=4,
        programs=None,
        span_s=3.0,
        tied_share=0.0,
        out_of_order=0,
        no_input=0,
        no_output=0,
        failed=0,
        doubts=(),
        resolution_s=1.0,
        largest_gap_s=1.0,
        largest_gap_at_s=0.0,
        missing={**dict.fromkeys(names, 4), **dict.fromkeys(KNOWN, 0)},
        uses=found.uses,
    )


def test_ties_are_counted_and_said() -> None:
    quality = inspect(a_trace(arrival_s=[0.0, 0.0, 0.0, 1.0]))
    assert quality.tied_share == pytest.approx(2 / 3)
    assert quality.doubts == ("67% of the arrivals share a stamp with the one before.",)


def test_ties_that_the_source_explains_are_not_said_twice() -> None:
    quality = inspect(load("mooncake:conversation"))
    assert quality.tied_share == pytest.approx(0.88, abs=0.005)
    assert len(quality.doubts) == 1


def test_steps_back_in_time_are_counted() -> None:
    quality = inspect(a_trace(arrival_s=[5.0, 1.0, 2.0, 0.0]))
    assert (quality.out_of_order, quality.span_s) == (2, 5.0)


def test_zero_and_unknown_tokens_are_both_none_to_send() -> None:
    quality = inspect(a_trace(input_tokens=[0, None, 3, 4], output_tokens=[0, 1, 1, 1]))
    assert (quality.no_input, quality.no_output) == (2, 1)
    assert quality.doubts == ("2 calls have no input tokens; a replay cannot send them.",)


def test_an_unknown_status_is_no_failure() -> None:
    assert inspect(a_trace(status=["ok", None, "error", "http_503"])).failed == 2


def test_a_call_outside_every_program_is_one_of_its_own() -> None:
    assert inspect(a_trace(program_id=["s", "s", None, None])).programs == 3


def test_programs_are_unknown_where_none_is_named() -> None:
    assert inspect(a_trace(program_id=[None] * 4)).programs is None


def test_a_call_that_nothing_places_in_time_is_doubted() -> None:
    quality = inspect(a_trace(arrival_s=[0.0, None, None, None], parents=[None, ["0"], [], None]))
    assert quality.doubts == ("1 calls say neither when they arrive nor what they wait for.",)
    assert (quality.span_s, quality.tied_share) == (0.0, None)


def test_a_trace_of_programs_alone_has_no_span() -> None:
    trace = Trace.of(
        pl.DataFrame({"input_tokens": [1], "output_tokens": [1], "parents": [[]]}), HERE
    )
    quality = inspect(trace)
    assert (quality.calls, quality.span_s, quality.tied_share) == (1, None, None)
    assert quality.doubts == ()


def test_what_the_reader_doubted_comes_first() -> None:
    assert inspect(a_trace(input_tokens=[0, 1, 1, 1]).doubting("odd")).doubts[0] == "odd"


@pytest.mark.parametrize(
    ("name", "calls", "programs", "span_s", "failed"),
    [
        ("burstgpt:sample", 400, None, 37_269.0, 17),
        ("burstgpt:sessions", 280, 106, 38_686.0, 1),
        ("mooncake:conversation", 400, None, 141.0, 0),
    ],
)
def test_bundled_traces_have_the_published_counts(
    name: str, calls: int, programs: int | None, span_s: float, failed: int
) -> None:
    """100 sessions and 6 API calls make the 106 programs of BurstGPT v3."""
    quality = inspect(load(name))
    assert (quality.calls, quality.programs, quality.span_s, quality.failed) == (
        calls,
        programs,
        span_s,
        failed,
    )


def test_the_largest_gap_is_found_with_its_place() -> None:
    quality = inspect(a_trace(arrival_s=[0.0, 0.5, 9.0, 9.5]))
    assert (quality.largest_gap_s, quality.largest_gap_at_s) == (8.5, 0.5)


@pytest.mark.parametrize(
    ("arrivals", "step_s"),
    [
        ([0.0, 3.0, 6.0, 12.0], 3.0),
        ([0.0, 0.1, 0.3, 0.7], 0.1),
        ([0.0, 0.0000001, 0.0000003, 1.0], None),  # 100 ns is the finest that is looked for
        ([0.0, 0.0, 0.0, 0.0], None),
    ],
)
def test_the_grid_of_the_stamps_is_measured(arrivals: list[float], step_s: float | None) -> None:
    assert inspect(a_trace(arrival_s=arrivals)).resolution_s == (
        None if step_s is None else pytest.approx(step_s)
    )


def test_equal_calls_of_one_moment_are_duplicates_whatever_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pieces of 2 rows cut through the run of three equal calls."""
    monkeypatch.setattr("servescope.traces.trace.BATCH_ROWS", 2)
    trace = Trace.of(
        pl.DataFrame(
            {
                "arrival_s": [0.0, 1.0, 1.0, 1.0, 1.0, 2.0],
                "input_tokens": [5, 5, 5, 5, 6, 5],
                "output_tokens": [1] * 6,
            }
        ),
        HERE,
    )
    assert inspect(trace).duplicates == 2


def test_parts_that_are_more_than_the_whole_are_counted_and_said() -> None:
    quality = inspect(
        a_trace(
            observed_cached_tokens=[0, 1, 2, None],
            observed_ttft_s=[1.0, 2.0, 3.0, 4.0],
            observed_e2e_s=[2.0, 2.0, 2.0, None],
        )
    )
    assert quality.inconsistent == {
        "observed_cached_tokens is more than input_tokens": 1,
        "observed_ttft_s is more than observed_e2e_s": 1,
    }
    assert quality.doubts == (
        "In 1 calls observed_cached_tokens is more than input_tokens.",
        "In 1 calls observed_ttft_s is more than observed_e2e_s.",
    )


def test_the_audit_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("burstgpt:sessions", "mooncake:conversation", "azure:sample")
    whole = [inspect(load(name)) for name in names]
    monkeypatch.setattr("servescope.traces.trace.BATCH_ROWS", 7)
    assert [inspect(load(name)) for name in names] == whole
