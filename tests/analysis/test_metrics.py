"""Every metric on streams whose answers are known by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import STREAMS, streams

from servescope.analysis import METRICS, Measured
from servescope.traces import Run, load
from servescope.traces.errors import MissingColumns
from servescope.traces.run import frame_of_rows

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "metrics"
Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


def numbers(run: Run, metric: str) -> list[float]:
    sample = Measured.of(run).sample(metric)
    return sample.values.repeat(sample.weights).tolist()


# Due at 1.0, sent 0.1 late; tokens at 1.5, 1.6, 1.9. A role-only chunk is never stamped.
BY_HAND = {
    "ttft": [0.4],
    "ttft_due": [0.5],
    "ttfo": [0.4],
    "ttfo_due": [0.5],
    "queue": [0.05],
    "tpot": [0.2],
    "tbt": [0.1, 0.3],
    "icl": [0.1, 0.3],
    "stall": [0.3],
    "e2e": [0.8],
    "e2e_due": [0.9],
    "norm": [0.8 / 3],
    "norm_due": [0.3],
    "jct": [0.9],
    "jct_sent": [0.8],
    "jct_pause": [0.0],
    "jct_client": [0.1],
    "jct_prefill": [0.4],
    "jct_decode": [0.4],
    "jct_closing": [0.0],
    "slowdown": [0.9 / 0.8],
    "connect": [0.0],
    "client_wait": [0.0],
    "lag": [0.1],
}


def test_a_stream_of_single_tokens_has_every_metric_by_hand(call: Make, a_run: MakeRun) -> None:
    run = a_run([call("x", 1.0, 1.5, 1.6, 1.9, sent_s=1.1, observed_queue_s=0.05)])
    assert {name: pytest.approx(numbers(run, name)) for name in METRICS} == BY_HAND


def test_chunks_of_several_tokens_have_no_tbt_but_icl_and_tpot(call: Make, a_run: MakeRun) -> None:
    run = a_run([call("x", 0.0, 1.0, 1.4, 2.0, output_tokens=6)])
    assert numbers(run, "tbt") == []
    assert numbers(run, "icl") == pytest.approx([0.4, 0.6])
    assert numbers(run, "tpot") == pytest.approx([1.0 / 5])


def test_where_the_server_counts_tokens_a_gap_is_shared_by_the_tokens_that_end_it(
    call: Make, a_run: MakeRun
) -> None:
    """0.4 s brought four tokens, 0.6 s two; the gaps still add up to the time between."""
    run = a_run([call("x", 0.0, 1.0, 1.4, 2.0, output_tokens=8, chunk_tokens=[2, 4, 2])])
    assert numbers(run, "tbt") == pytest.approx([0.1] * 4 + [0.3] * 2)
    assert sum(numbers(run, "tbt")) == pytest.approx(2.0 - 1.0)


@pytest.mark.parametrize("chunk_tokens", [[1, 1, 1], [3, 0, 3], [2, None, 2], [3, 3], None, []])
def test_counts_that_do_not_add_up_say_nothing_of_tokens(
    call: Make, a_run: MakeRun, chunk_tokens: list[int | None] | None
) -> None:
    good = call("y", 0.0, 1.0, 1.5)
    run = a_run([call("x", 0, 1, 2, 3, output_tokens=6, chunk_tokens=chunk_tokens), good])
    assert numbers(run, "tbt") == pytest.approx([0.5])


def test_one_token_has_no_time_between(call: Make, a_run: MakeRun) -> None:
    run = a_run([call("x", 0.0, 1.0)])
    assert numbers(run, "ttft") == numbers(run, "e2e") == numbers(run, "jct") == [1.0]
    for between in ("tpot", "tbt", "icl", "stall"):
        assert numbers(run, between) == []
        assert METRICS[between].between_tokens


def test_an_answer_in_one_piece_has_no_tpot_rather_than_one_of_zero(
    call: Make, a_run: MakeRun
) -> None:
    run = a_run([call("x", 0.0, 1.0, output_tokens=50)])
    assert numbers(run, "tpot") == numbers(run, "stall") == numbers(run, "tbt") == []


def test_without_a_count_of_tokens_there_is_icl_but_neither_tpot_nor_tbt(
    call: Make, a_run: MakeRun
) -> None:
    run = a_run([call("x", 0.0, 1.0, 1.5, output_tokens=None)])
    assert numbers(run, "icl") == numbers(run, "stall") == [0.5]
    assert numbers(run, "tpot") == numbers(run, "tbt") == []


@pytest.mark.parametrize("status", ["timeout", "truncated", "cancelled", None])
def test_a_failed_call_has_no_latency_even_if_tokens_came_but_its_lag_counts(
    call: Make, a_run: MakeRun, status: str | None
) -> None:
    run = a_run([call("x", 0.0, 1.0, 2.0, 3.0, sent_s=0.25, status=status)])
    assert numbers(run, "lag") == [0.25]
    assert numbers(run, "connect") == [0.0]
    assert all(numbers(run, name) == [] for name, m in METRICS.items() if not m.of_client)
    assert Measured.of(run).programs["failed"].to_list() == [1]


def test_a_program_lasts_from_its_first_due_call_to_its_last_token_pauses_included(
    call: Make, a_run: MakeRun
) -> None:
    rows = [
        call("a", 1.0, 2.0, 3.0, program_id="p"),
        call("b", 13.0, 14.0, program_id="p"),
        call("c", 5.0, 5.5, program_id="q"),
    ]
    programs = Measured.of(a_run(rows)).programs
    told = {row["program_id"]: row for row in programs.iter_rows(named=True)}
    p = told["p"]
    assert (p["calls"], p["failed"], p["due_s"], p["jct"]) == (2, 0, 1.0, 13.0)
    assert told["q"]["jct"] == 0.5


def test_a_program_with_a_call_that_failed_or_was_given_up_has_no_jct(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    rows = [
        call("a", 0.0, 1.0, program_id="p"),
        failed("b", 2.0, program_id="p"),
        failed("c", 9.0, "cancelled", program_id="p", sent_s=None),
    ]
    programs = Measured.of(a_run(rows)).programs
    assert programs.select("calls", "failed", "jct").row(0) == (3, 2, None)


def test_a_program_with_an_empty_answer_or_a_call_without_due_time_has_no_jct(
    call: Make, a_run: MakeRun
) -> None:
    rows = [
        call("a", 0.0, 1.0, program_id="empty"),
        call("b", 2.0, program_id="empty", end_s=3.0),
        call("c", 0.0, 1.0, program_id="undue"),
        call("d", None, 2.0, program_id="undue"),
    ]
    assert numbers(a_run(rows), "jct") == []


def test_a_call_of_no_program_is_one_by_itself(call: Make, a_run: MakeRun) -> None:
    rows = [call(name, 0.0, end, program_id=None) for name, end in (("a", 1.0), ("b", 2.0))]
    run = a_run(rows)
    assert Measured.of(run).values("jct").rows() == [("a", 1.0), ("b", 2.0)]


def test_a_call_without_due_or_sent_time_has_only_the_other_clock(
    call: Make, a_run: MakeRun
) -> None:
    run = a_run([call("a", None, 1.0, sent_s=0.5), call("b", 0.0, 2.0, sent_s=None)])
    assert numbers(run, "ttft") == [0.5]
    assert numbers(run, "ttft_due") == [2.0]
    assert numbers(run, "lag") == []


def test_a_summary_has_a_row_a_metric_and_null_where_there_is_no_value(
    failed: Make, a_run: MakeRun
) -> None:
    for rows in ([], [failed("x", 0.0, sent_s=None)]):
        table = Measured.of(a_run(rows)).summary
        assert table["metric"].to_list() == list(METRICS)
        without = table.filter(pl.col("metric") != "client_wait")  # which an unsent call may have
        assert set(without["n"]) == {0}
        assert (
            without.select(~pl.selectors.by_name("metric", "n")).null_count().row(0)
            == (len(METRICS) - 1,) * 13
        )


@pytest.mark.parametrize("calls", [1, 4, 5, 28, 29, 298, 299, 1000])
def test_quantiles_of_a_summary_are_order_statistics_of_enough_values(
    call: Make, a_run: MakeRun, calls: int
) -> None:
    """Of 1,000 calls p99 is the 990th; of fewer than 299 there is none, nor a p90 of 28."""
    run = a_run(call(f"{n:04}", 0.0, float(n)) for n in range(1, calls + 1))
    row = Measured.of(run).summary.row(by_predicate=pl.col("metric") == "ttft", named=True)
    for label, percent, needed in (("p50", 50, 5), ("p90", 90, 29), ("p99", 99, 299)):
        expected = math.ceil(calls * percent / 100) if calls >= needed else None
        assert row[label] == expected
    assert (row["n"], row["max"], row["mean"]) == (calls, calls, (calls + 1) / 2)


def test_a_summary_has_intervals_where_there_are_programs_enough(
    call: Make, a_run: MakeRun
) -> None:
    for calls, sure in ((49, False), (400, True)):
        rng = np.random.default_rng(0)
        waits = rng.lognormal(0, 0.1, calls).tolist()
        run = a_run(call(f"{n:04}", float(n), n + wait) for n, wait in enumerate(waits))
        row = Measured.of(run).summary.row(by_predicate=pl.col("metric") == "ttft", named=True)
        for label in ("mean", "p50", "p90"):
            assert (row[f"{label}_low"] is not None) is sure
            if sure:
                assert row[f"{label}_low"] < row[label] < row[f"{label}_high"]


def test_a_trace_that_was_never_replayed_has_no_latencies() -> None:
    with pytest.raises(MissingColumns, match="no status"):
        Measured.of(load("azure:sample")).values("ttft")
    with pytest.raises(MissingColumns, match="no due_s"):
        assert Measured.of(load("burstgpt:sample")).summary.is_empty()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_page_and_a_row_in_the_index(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert page.startswith(f"# {METRICS[name].label}")
    assert f"`{name}`" in page
    assert f"({name}.md)" in (PAGES / "index.md").read_text()
    unit = {"s": " s", "s/token": " s", "ratio": ""}[METRICS[name].unit]
    example = " and ".join(f"{value:.4g}{unit}" for value in BY_HAND[name])
    assert f"**{example}**" in page


@settings(max_examples=25)
@given(STREAMS, st.sampled_from([0.5, 2.0, 8.0]))
def test_in_another_unit_of_time_every_latency_is_the_same_in_that_unit(
    call: Make, gaps: list[list[int]], stretch: float
) -> None:
    before, after = streams(call, gaps), streams(call, gaps, stretch=stretch)
    for name, metric in METRICS.items():
        factor = 1.0 if metric.unit == "ratio" else stretch
        expected = before.sample(name).values * factor
        assert after.sample(name).values == pytest.approx(expected, abs=1e-9), name


@settings(max_examples=25)
@given(STREAMS, st.sampled_from([-64.0, 1024.0]))
def test_no_latency_depends_on_when_a_run_was(
    call: Make, gaps: list[list[int]], later: float
) -> None:
    before, after = streams(call, gaps), streams(call, gaps, later=later)
    for name in METRICS:
        assert after.sample(name).values == pytest.approx(before.sample(name).values, abs=1e-9)


LONGER = ("ttft", "ttft_due", "ttfo", "ttfo_due", "queue", "e2e", "e2e_due", "norm", "norm_due",
          "jct", "jct_sent", "jct_prefill")  # fmt: skip


@settings(max_examples=25)
@given(STREAMS, st.sampled_from([0.125, 1.0]))
def test_an_answer_that_comes_later_is_never_quicker_and_its_pace_the_same(
    call: Make, gaps: list[list[int]], delay: float
) -> None:
    before, after = streams(call, gaps), streams(call, gaps, delay=delay)
    for name in METRICS:
        was, now = before.sample(name).values, after.sample(name).values
        if name in LONGER:
            assert (now > was).all(), name
        elif METRICS[name].between_tokens or METRICS[name].of_client:
            assert now == pytest.approx(was, abs=1e-9), name


@pytest.mark.parametrize("name", METRICS)
def test_without_what_it_needs_a_metric_is_null_and_never_an_error(call: Make, name: str) -> None:
    kept = ("program_id", "output_tokens", "on_path", "path_from_s", "path_until_s", "ideal_s")
    for missing in METRICS[name].needs:
        if missing not in kept:
            row = call("x", 0.0, 1.0, 1.5, observed_queue_s=0.1) | {missing: None}
            assert len(Measured(frame_of_rows([row]).lazy()).sample(name)) == 0, missing
    absent = frame_of_rows([call("x", 0.0, 1.0, 1.5)]).with_columns(output_tokens=None)
    Measured(absent.lazy()).sample(name)


def test_every_metric_says_its_unit_its_clock_and_whose_definition_it_is() -> None:
    for metric in METRICS.values():
        assert metric.unit in ("s", "s/token", "ratio")
        assert metric.clock in ("sent", "due", "none")
        assert metric.source
        assert metric.says
