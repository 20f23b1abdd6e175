"""What is said of a whole run, on runs whose answers are known by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import STREAMS, streams

from servescope.analysis import TOTALS, Measured, totals_of
from servescope.analysis.totals import Whole
from servescope.traces import Run
from servescope.traces.server import HOST, Journal, Sample, seal

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics" / "totals.md"
Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


def told(run: Run) -> dict[str, Any]:
    return totals_of(Whole(Measured.of(run), run))


def test_mean_latency_times_rate_is_the_mean_number_in_flight(call: Make, a_run: MakeRun) -> None:
    """Little's law, exact over a span in which every call begins and ends."""
    rng = np.random.default_rng(0)
    due = np.sort(rng.uniform(0, 100, 200))
    took = rng.exponential(3.0, 200)
    run = a_run(
        call(str(n), start, start + last / 2, start + last)
        for n, (start, last) in enumerate(zip(due.tolist(), took.tolist(), strict=True))
    )
    found = told(run)
    e2e = Measured.of(run).sample("e2e_due").mean()
    assert e2e is not None
    assert e2e * found["calls_rps"] == pytest.approx(found["concurrency_mean"])


@settings(max_examples=25)
@given(STREAMS, st.sampled_from([0.5, 2.0, 8.0]), st.sampled_from([-64.0, 0.0, 1024.0]))
def test_in_another_unit_of_time_and_at_another_hour_totals_are_the_same(
    call: Make, gaps: list[list[int]], stretch: float, later: float
) -> None:
    before = totals_of(Whole(streams(call, gaps)))
    after = totals_of(Whole(streams(call, gaps, stretch=stretch, later=later)))
    for name, total in TOTALS.items():
        value = before[name]
        power = {"s": 1, "1/s": -1, "tokens/s": -1}.get(total.unit, 0)
        expected = None if value is None else pytest.approx(value * stretch**power, rel=1e-6)
        assert after[name] == expected, name


@pytest.mark.parametrize("name", TOTALS)
def test_a_total_of_nothing_is_null_or_nothing_and_never_an_error(
    failed: Make, a_run: MakeRun, name: str
) -> None:
    for rows in ([], [failed("x", 0.0)]):
        run = a_run(rows)
        value = TOTALS[name].of(Whole(Measured.of(run), run))
        assert value is None or value >= 0


def test_throughput_counts_what_was_asked_and_what_was_served(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    rows = [
        call("a", 2.0, 3.0, 4.0, program_id="p"),
        failed("b", 4.0, program_id="p"),
        call("c", 6.0, 11.0, 12.0),
    ]
    found = told(a_run(rows))
    assert [found[name] for name in ("calls", "failed", "programs", "span")] == [3, 1, 2, 10.0]
    assert (found["calls_rps"], found["programs_rps"]) == (0.2, 0.1)
    assert (found["output_tps"], found["input_tps"], found["total_tps"]) == (0.4, 2.0, 2.4)


def test_a_call_whose_end_is_not_known_ends_with_its_last_token(call: Make, a_run: MakeRun) -> None:
    rows = [call(str(n), float(n), n + 1.0, n + 2.0, end_s=None) for n in (0, 4)]
    found = told(a_run(rows))
    assert (found["span"], found["concurrency_mean"]) == (6.0, pytest.approx(4 / 6))


def test_a_call_that_was_never_sent_does_not_stretch_the_span(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    never = failed("c", 500.0, "not_sent", sent_s=None)
    interrupted = failed("d", 3.0, "cancelled", end_s=5.0)
    found = told(a_run([call("a", 0.0, 4.0), never, interrupted]))
    assert (found["calls"], found["failed"], found["span"]) == (3, 2, 5.0)


def test_rates_over_no_time_are_null(call: Make, a_run: MakeRun) -> None:
    empty = told(a_run([]))
    assert (empty["calls"], empty["span"], empty["calls_rps"]) == (0, 0.0, None)
    assert empty["concurrency_peak"] is empty["concurrency_mean"] is None
    one = told(a_run([call("a", 1.0, 2.0)]))
    assert (one["span"], one["calls_rps"]) == (1.0, 1.0)
    undue = told(a_run([call("a", None, 2.0, sent_s=None)]))
    assert (undue["calls"], undue["span"], undue["calls_rps"]) == (1, 0.0, None)


def test_a_call_that_ends_makes_room_for_one_that_begins_at_the_same_moment(
    call: Make, a_run: MakeRun
) -> None:
    found = told(a_run([call("a", 0.0, 1.0), call("b", 1.0, 2.0), call("c", 1.5, 2.0)]))
    assert found["concurrency_peak"] == 2
    assert found["concurrency_mean"] == pytest.approx(2.5 / 2)


def test_the_cached_share_is_of_calls_whose_server_says_it(call: Make, a_run: MakeRun) -> None:
    """Of 30 prompt tokens of which something is known, 9 were cached; a 0 that was said counts."""
    rows = [
        call("a", 0.0, 1.0, input_tokens=20, cached_tokens=9),
        call("b", 0.0, 1.0, input_tokens=10, cached_tokens=0),
        call("c", 0.0, 1.0, input_tokens=1000),
    ]
    assert told(a_run(rows))["cached_share"] == pytest.approx(0.3)
    assert told(a_run(rows[2:]))["cached_share"] is None


def test_what_servers_and_gpus_say_is_added_up_over_them(call: Make, a_run: MakeRun) -> None:
    """Two replicas: 4 and 1 preemptions, 10 calls queued 2 s and 30 queued 12 s; 90 J, 3 tokens."""
    run = a_run([call("a", 0.0, 1.0, 1.5, 2.0)])
    journal = Journal(run.path)
    for replica, preempted, queue_s, queued in (
        ("http://a", 4, 2.0, 10),
        ("http://b", 1, 12.0, 30),
    ):
        for t_s, grown in ((0.0, 0.0), (2.0, 1.0)):
            for name, value in (
                ("up", 1.0),
                ("vllm:num_preemptions_total", 7 + preempted * grown),
                ("vllm:request_queue_time_seconds_sum", queue_s * grown),
                ("vllm:request_queue_time_seconds_count", queued * grown),
                ("vllm:num_requests_waiting", 3.0),
                ("vllm:kv_cache_usage_perc", 0.25 * grown),
            ):
                journal.append([Sample(t_s, replica, name, "", value)])
    for t_s, joules in ((0.0, 1000.0), (2.0, 1090.0)):
        journal.append([Sample(t_s, HOST, "gpu_energy_joules_total", "gpu=0", joules)])
    journal.flush()
    seal(run.path)
    found = told(Run.open(run.path))
    assert found["preemptions"] == 5
    assert found["queue_mean"] == pytest.approx(14 / 40)
    assert (found["waiting_mean"], found["waiting_peak"], found["kv_usage_peak"]) == (6, 3, 0.25)
    assert found["energy_per_token"] == pytest.approx(30)


def test_without_servers_nothing_is_said_of_them(call: Make, a_run: MakeRun) -> None:
    found = told(a_run([call("a", 0.0, 1.0)]))
    for name in ("prefix_hit_share", "queue_mean", "preemptions", "energy_per_token"):
        assert found[name] is None


def test_every_total_has_a_row_on_its_page() -> None:
    page = PAGE.read_text()
    for total in TOTALS.values():
        assert f"| `{total.name}` | {total.label} |" in page


def test_totals_are_of_what_was_measured_without_the_warm_up(call: Make, a_run: MakeRun) -> None:
    rows = [call("a", 0.0, 1.0), call("b", 5.0, 6.0), call("c", 7.0, 9.0)]
    found = told(a_run(rows, warmup_s=2.0))
    assert (found["calls"], found["span"]) == (2, 4.0)
    assert pl.Series([found["calls_rps"]]).item() == 0.5
