"""Recorded streams read by every profile; all numbers here were worked out by hand."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import BARE, CHAT, DONE, ROLE, STOP, Streams, content, delta, run_of, text, usage

from servescope.analysis import SLO, Measured
from servescope.analysis.profiles import PROFILES, Reading, Seen, Value, named
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.run import frame_of_rows

Row = dict[str, Any]
Make = Callable[..., Row]
MakeRun = Callable[..., Run]


def read(profile: str, run: Run, slo: str | None = None) -> dict[str, Value]:
    """Return every field of a profile of a run."""
    seen = Seen(Measured.of(run), run, SLO.parse(slo) if slo else None)
    reading = Reading(named(profile), seen)
    return {field.name: reading.of(field) for field in reading.profile.fields}


@pytest.fixture
def chat(tmp_path: Path) -> Run:
    return run_of(tmp_path / "chat", CHAT, client={"uncounted": 0})


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    return run_of(
        tmp_path / "bare", BARE, "openai", {"bare": 6}, client={"uncounted": 1},
        probe={"output_tokens": None},
    )  # fmt: skip


# All calls but `fails` are answered: 4 of 5, from 0 s to 5.0 s.
#   TTFT 1.0, 1.0, 0.5, 0.5: mean 0.75, deviation 0.25; sorted 0.5 0.5 1 1
#   last chunk after 1.4, 1.4, 0.5, 0.9: mean 4.2 / 4 = 1.05
#   end after 1.5, 1.5, 0.6, 1.0: mean 4.6 / 4 = 1.15
#   gaps .1 .3, .2 .2, none, .1 .2 .1: seven, 1.2 in all; sorted .1 .1 .1 .2 .2 .2 .3
#   tokens 3 + 12 + 1 + 4 = 20 of prompts of 8 + 10 + 5 + 6 = 29
# The SLO is TTFT < 0.9 s and TPOT < 200 ms: `role` and `many` are too late.
BY_HAND: dict[str, dict[str, float]] = {
    "vllm": {
        "duration": 5.0,
        "completed": 4,
        "failed": 1,
        "total_input_tokens": 29,
        "total_output_tokens": 20,
        "request_throughput": 0.8,  # 4 / 5
        "request_goodput": 0.4,  # `one`, whose TPOT is 0, and `thinks`: 2 / 5
        "output_throughput": 4.0,  # 20 / 5
        "total_token_throughput": 9.8,  # 49 / 5
        "max_output_tokens_per_s": 4,  # 2.0 2.2 2.4 of `many` and 2.5 of `one`
        "max_concurrent_requests": 2,  # `role` and `many` in second 1
        "mean_ttft_ms": 750,
        "median_ttft_ms": 750,  # between 0.5 and 1
        "std_ttft_ms": 250,
        "p99_ttft_ms": 1000,  # place 0.99 * 3 = 2.97, between 1 and 1
        # 0.4 / 2 = 0.2, 0.4 / 11 = 0.036364, 0.4 / 3 = 0.133333
        "mean_tpot_ms": 123.232323,
        "median_tpot_ms": 133.333333,
        "std_tpot_ms": 67.185,  # .076768 .086869 .010101 off: 0.013541 / 3
        "p99_tpot_ms": 198.666667,  # place 1.98: 0.133333 + 0.98 * 0.066667
        "mean_itl_ms": 171.428571,  # 1.2 / 7
        "median_itl_ms": 200,
        "std_itl_ms": 69.985421,  # 0.24 / 7 - 0.029388 = 0.004898
        "p99_itl_ms": 294,  # place 5.94: 0.2 + 0.94 * 0.1
        "mean_e2el_ms": 1050,
        "median_e2el_ms": 1150,  # between 0.9 and 1.4
        "std_e2el_ms": 377.491722,  # .35 .35 .55 .15 off: 0.57 / 4
        "p99_e2el_ms": 1400,
    },
    "sglang": {
        "duration": 5.0,
        "completed": 4,
        "total_input_tokens": 40,  # as planned: 10 each
        "total_output_tokens": 20,
        "request_throughput": 0.8,
        "input_throughput": 8.0,  # 40 / 5
        "output_throughput": 4.0,
        "total_throughput": 12.0,  # 60 / 5
        "request_goodput": 0.4,  # `one`, and `thinks` with 0.1667
        "slo_attainment": 0.4,  # 2 of the 5 that were sent
        "concurrency": 0.92,  # 4.6 / 5
        "max_output_tokens_per_s": 4,
        "max_concurrent_requests": 2,
        "mean_e2e_latency_ms": 1150,
        "median_e2e_latency_ms": 1250,  # between 1.0 and 1.5
        "std_e2e_latency_ms": 377.491722,
        "p90_e2e_latency_ms": 1500,
        "p95_e2e_latency_ms": 1500,
        "p99_e2e_latency_ms": 1500,
        "mean_ttft_ms": 750,
        "median_ttft_ms": 750,
        "std_ttft_ms": 250,
        "p90_ttft_ms": 1000,
        "p95_ttft_ms": 1000,
        "p99_ttft_ms": 1000,
        # to the end: 0.5 / 2 = 0.25, 0.5 / 11 = 0.045455, 0.5 / 3 = 0.166667
        "mean_tpot_ms": 154.040404,
        "median_tpot_ms": 166.666667,
        "std_tpot_ms": 83.9813,  # .095960 .108586 .012626 off: 0.021159 / 3
        "p90_tpot_ms": 233.333333,  # place 1.8: 0.166667 + 0.8 * 0.083333
        "p95_tpot_ms": 241.666667,  # place 1.9
        "p99_tpot_ms": 248.333333,  # place 1.98
        "mean_itl_ms": 171.428571,
        "median_itl_ms": 200,
        "std_itl_ms": 69.985421,
        "p90_itl_ms": 240,  # place 5.4
        "p95_itl_ms": 270,  # place 5.7
        "p99_itl_ms": 294,
        "max_itl_ms": 300,
    },
    "aiperf": {
        "time_to_first_token.avg": 750,
        "time_to_first_token.min": 500,
        "time_to_first_token.p90": 1000,  # place 2.7
        "time_to_first_token.std": 250,
        # 0.1, 0.2, 0.1; `one` has no second chunk
        "time_to_second_token.avg": 133.333333,
        "time_to_second_token.p50": 100,
        "time_to_second_token.p99": 198,  # place 1.98: 0.1 + 0.98 * 0.1
        "time_to_first_output_token.avg": 825,  # 1.0, 1.0, 0.5, 0.8
        "request_latency.avg": 1050,
        "request_latency.max": 1400,
        "decode_duration.avg": 300,  # 0.4, 0.4, 0, 0.4
        "inter_token_latency.avg": 123.232323,
        "inter_token_latency.p50": 133.333333,
        "inter_chunk_latency.avg": 171.428571,
        "inter_chunk_latency.p50": 200,
        "output_token_throughput_per_user.avg": 13.333333,  # 5, 27.5, 7.5
        "output_token_throughput_per_user.p50": 7.5,
        # 3 / 1.4, 12 / 1.4, 1 / 0.5, 4 / 0.9: 17.158730 in all
        "e2e_output_token_throughput.avg": 4.289683,
        "prefill_throughput_per_user.avg": 10,  # 8, 10, 10, 12
        "output_sequence_length.avg": 5,
        "output_token_count.avg": 4.5,  # 3, 12, 1, and 4 - 2 of `thinks`
        "reasoning_token_count.avg": 2,
        "input_sequence_length.avg": 7.25,
        "benchmark_duration": 4.9,  # to the last chunk with content
        "request_count": 4,
        "error_request_count": 1,
        "request_error_rate": 20,
        "request_throughput": 0.816327,  # 4 / 4.9
        "output_token_throughput": 4.081633,  # 20 / 4.9
        "input_token_throughput": 5.918367,  # 29 / 4.9
        "total_token_throughput": 10.0,  # 49 / 4.9
        "good_request_count": 1,  # `thinks`: of one token there is no ITL, which is not good
        "good_request_fraction": 0.2,  # of 5
        "goodput": 0.204082,  # 1 / 4.9
    },
    "guidellm": {
        "request_totals.successful": 4,
        "request_totals.incomplete": 0,
        "request_totals.errored": 1,
        "request_latency.successful.mean": 1.15,
        "request_latency.successful.median": 1.0,  # the second of 0.6 1.0 1.5 1.5
        "request_dispatch_delay.successful.mean": 0,
        "request_scheduled_latency.successful.mean": 1.15,
        "time_to_first_token_ms.successful.mean": 750,
        "time_to_first_token_ms.successful.median": 500,
        "time_to_first_token_ms.successful.percentiles.p90": 1000,
        "time_to_first_output_token_ms.successful.mean": 825,
        "time_to_first_output_token_ms.successful.median": 800,
        # TTFT is in it. 1.4 / 3 = 0.466667 three times, 1.4 / 12 = 0.116667 twelve times,
        # 0.5 once, 0.9 / 4 = 0.225 four times: 4.2 / 20
        "time_per_output_token_ms.successful.mean": 210,
        "time_per_output_token_ms.successful.median": 116.666667,  # the tenth of twenty
        "time_per_output_token_ms.successful.percentiles.p90": 466.666667,  # the 18th
        "time_per_output_token_ms.successful.percentiles.p99": 500,
        # 0.2 twice, 0.036364 eleven times, 0.133333 three times: 1.2 / 16
        "inter_token_latency_ms.successful.mean": 75,
        "inter_token_latency_ms.successful.median": 36.363636,
        "inter_token_latency_ms.successful.percentiles.p90": 200,  # the 15th of 16
        "prompt_token_count.successful.mean": 7.25,
        "output_token_count.successful.mean": 5,
        "requests_per_second.successful.mean": 0.8,
        "request_concurrency.successful.mean": 0.92,
        "prompt_tokens_per_second.successful.mean": 5.8,
        "output_tokens_per_second.successful.mean": 4.0,
        "tokens_per_second.successful.mean": 9.8,
        # `one` is not judged, `fails` is: 1 of `role`, `many`, `thinks` and `fails`
        "slo_attainment": 0.25,
        "request_goodput.successful.mean": 0.2,
    },
    "inference-perf": {
        "benchmark_time_seconds": 5.0,
        "load_summary.count": 5,
        "load_summary.schedule_delay.mean": 0,
        "successes.count": 4,
        "failures.count": 1,
        "latency.request_latency.mean": 1.15,
        "latency.request_latency.median": 1.25,
        # tokens without reasoning: 1.5 / 3, 1.5 / 12, 0.6 / 1, 1.0 / 2
        "latency.normalized_time_per_output_token.mean": 0.43125,
        # 0.4 / 2, 0.4 / 11, and 0.1 / 1 of the answer of `thinks`
        "latency.time_per_output_token.mean": 0.112121,
        "latency.time_per_output_token.median": 0.1,
        # 1.0, 1.0, and 0.8 to the answer of `thinks`; one token has none
        "latency.time_to_first_token.mean": 0.933333,
        "latency.time_to_first_token.median": 1.0,
        # .1 .3, .2 .2 and nine times 0 inside the chunks of `many`, .1: 0.9 / 14
        "latency.inter_token_latency.mean": 0.064286,
        "latency.inter_token_latency.median": 0.0,
        "latency.inter_token_latency.p90": 0.2,  # place 11.7
        "latency.inter_token_latency.p99": 0.287,  # place 12.87: 0.2 + 0.87 * 0.1
        "throughput.input_tokens_per_sec": 5.8,
        "throughput.output_tokens_per_sec": 3.6,  # 3 + 12 + 1 + 2 of content
        "throughput.total_tokens_per_sec": 9.4,
        "throughput.requests_per_sec": 0.8,
        "prompt_tokens.total": 29,
        "output_tokens.total": 20,
        "goodput_metrics.goodput_percentage": 25,  # `thinks` of the 4 successes
        "goodput_metrics.request_goodput": 0.2,
    },
    "mlperf": {
        "n_samples_issued": 5,
        "n_samples_completed": 5,  # a failed one completes
        "n_samples_failed": 1,
        "duration_ns": 5.0e9,
        "qps": 1.0,
        "tps": 4.0,
        "ttft.avg": 0.75e9,
        "ttft.median": 0.5e9,  # place 1.5, the value below
        "ttft.percentiles.99": 1.0e9,
        "ttft.std_dev": 0.288675e9,  # of a sample: 0.25 / 3 = 0.083333
        # to the end, over the tokens after the first chunk: 0.5 / 2, 0.5 / 3; how many the first
        # chunk of `many` held is not known
        "tpot.avg": 0.208333e9,
        "latency.avg": 0.96e9,  # 1.5, 1.5, 0.6, 0.2 of `fails`, 1.0
        "latency.median": 1.0e9,
        "output_sequence_lengths.avg": 5,
        "chunk_delta_ns.avg": 0.171428571e9,
        "chunk_delta_ns.median": 0.2e9,
    },
    "llmperf": {
        # last chunk of content over events: 1.4 / 5, 1.4 / 4, 0.5 / 2, 0.9 / 5
        "inter_token_latency_s.mean": 0.265,
        "inter_token_latency_s.quantiles.p50": 0.265,  # between 0.25 and 0.28
        "inter_token_latency_s.max": 0.35,
        "ttft_s.mean": 0.825,  # 1.0, 1.0, 0.5, 0.8
        "ttft_s.stddev": 0.236291,  # .175 .175 .325 .025 off: 0.1675 / 3
        "end_to_end_latency_s.mean": 1.15,
        # 3 / 1.5, 12 / 1.5, 1 / 0.6, 2 / 1.0
        "request_output_throughput_token_per_s.mean": 3.416667,
        "number_input_tokens.mean": 7.25,
        "number_output_tokens.mean": 4.5,
        "num_requests_started": 5,
        "number_errors": 1,
        "error_rate": 0.2,
        "mean_output_throughput_token_per_s": 3.6,  # 18 / 5
        "num_completed_requests": 4,
        "num_completed_requests_per_min": 48,  # 4 / 5 * 60
    },
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_recorded_chat_is_read_as_its_tool_would(profile: str, chat: Run) -> None:
    fields = read(profile, chat, "ttft<0.9s,tpot<200ms")
    expected = BY_HAND[profile]
    found = {name: fields[name].value for name in expected}
    assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_read_for_certain_has_no_reason_beside_it(profile: str, chat: Run) -> None:
    said = {
        name: field.why
        for name, field in read(profile, chat, "ttft<0.9s").items()
        if field.why is not None
    }
    allowed = {"vllm": set(), "sglang": {"total_output_tokens_retokenized"}}
    if profile == "mlperf":
        assert {name.split(".")[0] for name in said} == {"tpot"}
        assert said["tpot.avg"] == (
            "without 1 of 5 calls: a run does not tell how many tokens each chunk held"
        )
    else:
        assert set(said) == allowed.get(profile, set())


# One call: chunks at 1.0 and 1.2, an empty text at 1.3, the end at 1.3. Six tokens were asked for.
WITHOUT_USAGE: dict[str, dict[str, float | None]] = {
    "vllm": {
        "completed": 1,
        "mean_ttft_ms": 1000,
        "mean_itl_ms": 150,  # 0.2, and 0.1 to the empty text
        "mean_e2el_ms": 1300,
        "mean_tpot_ms": None,
        "total_output_tokens": None,
        "output_throughput": None,
        "total_input_tokens": 10,
    },
    "sglang": {
        "total_output_tokens": 6,  # as long as was asked for
        "mean_tpot_ms": 60,  # (1.3 - 1.0) / 5
        "mean_itl_ms": 200,
    },
    "aiperf": {
        "time_to_first_token.avg": 1000,
        "request_latency.avg": 1200,
        "inter_chunk_latency.avg": 200,
        "inter_token_latency.avg": None,
        "output_sequence_length.avg": None,
        "output_token_throughput": None,
    },
    "guidellm": {
        "output_token_count.successful.mean": 2,  # its chunks
        "time_per_output_token_ms.successful.mean": 600,  # 1.2 / 2
        "inter_token_latency_ms.successful.mean": 200,  # 0.2 / 1
        "prompt_token_count.successful.mean": None,
    },
    "inference-perf": {
        "latency.time_to_first_token.mean": 1.0,  # two chunks are at least two tokens
        "latency.time_per_output_token.mean": None,
        "latency.inter_token_latency.mean": None,
        "latency.normalized_time_per_output_token.mean": None,
        "output_tokens.total": None,
    },
    "mlperf": {"ttft.avg": 1.0e9, "tpot.avg": None, "tps": None, "latency.avg": 1.3e9},
    "llmperf": {
        "inter_token_latency_s.mean": 0.4,  # 1.2 / 3 events
        "number_output_tokens.mean": None,
        "end_to_end_latency_s.mean": 1.3,
    },
}


@pytest.mark.parametrize("profile", PROFILES)
def test_without_usage_what_needs_a_count_of_tokens_is_null_with_its_reason(
    profile: str, bare: Run
) -> None:
    fields = read(profile, bare)
    expected = WITHOUT_USAGE[profile]
    found = {name: fields[name].value for name in expected}
    assert found == {
        name: None if value is None else pytest.approx(value) for name, value in expected.items()
    }
    assert all(fields[name].why for name, value in expected.items() if value is None)


def test_answers_that_were_surely_counted_are_counted_beside_others_that_were_not(
    tmp_path: Path,
) -> None:
    """Twelve tokens in three chunks cannot be a count of chunks; three in three can."""
    streams = {name: CHAT[name] for name in ("role", "many")}
    run = run_of(tmp_path / "r", streams, client={"uncounted": 1})
    total = read("vllm", run)["total_output_tokens"]
    assert total.value == 12
    assert total.why is not None
    assert total.why.startswith("without 1 of 2 calls: the server sent no usage")
    virtual = run_of(tmp_path / "v", streams, probe={"output_tokens": None})
    assert read("aiperf", virtual)["output_sequence_length.avg"].value == 12


# --- which calls count ----------------------------------------------------------------------------

# A stream that breaks off, one with an error in it, one that holds nothing, one that is no JSON.
DOUBTFUL: Streams = {
    "cut": (0.0, [(0.5, ROLE), (1.0, content(" a")), (1.1, content(" b"))], 1.5),
    "error": (1.0, [(1.5, ROLE), (2.0, content(" a")), (2.2, '{"error":{"message":"died"}}')], 2.5),
    "empty": (2.0, [(2.5, ROLE), (2.6, delta("", STOP)), (2.6, usage(5, 0)), (2.6, DONE)], 2.6),
    "broken": (3.0, [(3.5, ROLE), (4.0, content(" a")), (4.1, "{oops")], 4.5),
}
COUNTED = {
    "vllm": ("completed", 2),  # cut, error
    "sglang": ("completed", 3),  # cut, error, empty
    "aiperf": ("request_count", 2),
    "guidellm": ("request_totals.successful", 1),  # cut
    "inference-perf": ("successes.count", 3),
    "mlperf": ("n_samples_failed", 1),  # broken
    "llmperf": ("num_completed_requests", 2),  # cut, empty
}


@pytest.mark.parametrize("profile", PROFILES)
def test_what_another_client_takes_for_a_success_counts_as_one(
    profile: str, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "r", DOUBTFUL)
    assert run.trace.collect()["status"].to_list() == ["truncated", "server", "ok", "malformed"]
    name, count = COUNTED[profile]
    assert read(profile, run)[name].value == count


def test_an_error_inside_a_completion_ends_it_for_sglang_and_an_abort_does_not(
    tmp_path: Path,
) -> None:
    streams: Streams = {
        "error": (0.0, [(1.0, text(" a")), (1.2, '{"error":"died"}')], 1.5),
        "abort": (0.0, [(1.0, text(" a")), (1.2, text(" b", '"abort"')), (1.3, DONE)], 1.5),
    }
    run = run_of(tmp_path / "r", streams, "openai")
    assert run.trace.collect()["status"].to_list() == ["server", "server"]
    counts = {"sglang": "completed", "guidellm": "request_totals.successful"}
    assert {read(profile, run)[name].value for profile, name in counts.items()} == {1}


def test_a_call_that_was_never_sent_is_no_call_for_another_tool(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    run = a_run([call("a", 0.0, 1.0), failed("b", 2.0, "not_sent", sent_s=None, end_s=2.0)])
    assert read("mlperf", run)["n_samples_issued"].value == 1
    assert read("vllm", run)["failed"].value == 0


def test_a_new_connection_is_in_the_ttft_of_those_who_start_before_it(
    call: Make, a_run: MakeRun
) -> None:
    """Picked up at 0.2 s, written at 0.5 s, the first token at 1.0 s."""
    run = a_run([call("a", 0.0, 1.0, 1.1, dispatched_s=0.2, sent_s=0.5)])
    assert read("vllm", run)["mean_ttft_ms"].value == pytest.approx(800)
    assert read("guidellm", run)["time_to_first_token_ms.successful.mean"].value == pytest.approx(
        500
    )


# --- chunks ---------------------------------------------------------------------------------------


def test_vllm_stamps_every_choice_of_a_completion_and_in_a_chat_neither_role_nor_end(
    call: Make, a_run: MakeRun
) -> None:
    """Empty chunks before, between and after the tokens at 1.0 s and 1.4 s."""
    rows = [call("a", 0.0, 1.0, 1.4, empty_s=[0.5, 1.1, 1.5])]
    completion = read("vllm", a_run(rows, asked={"backend": "openai"}))
    told = ("mean_ttft_ms", "mean_e2el_ms", "mean_itl_ms", "max_output_tokens_per_s")
    # 0.5, 1.0, 1.1, 1.4, 1.5: gaps .5 .1 .3 .1, of which four come in second 1
    assert [completion[name].value for name in told] == pytest.approx([500, 1500, 250, 4])
    chat = read("vllm", a_run(rows, asked={"backend": "vllm-chat"}))
    assert [chat[name].value for name in told] == pytest.approx([1000, 1400, 200, 3])


@pytest.mark.parametrize("profile", ["vllm", "llmperf"])
def test_a_run_of_before_empty_chunks_were_kept_says_so(profile: str, call: Make) -> None:
    rows = frame_of_rows([call("a", 0.0, 1.0, 1.2)])
    doubts = [
        Reading(named(profile), Seen(Measured(table.lazy()))).doubts
        for table in (rows, rows.drop("empty_s"))
    ]
    assert len(doubts[1]) == len(doubts[0]) + 1
    old = Reading(named("llmperf"), Seen(Measured(rows.drop("empty_s").lazy())))
    (itl,) = (f for f in old.profile.fields if f.name == "inter_token_latency_s.mean")
    assert old.of(itl) == Value(
        None, "this run is of before chunks without a piece of answer were kept"
    )


def test_where_every_chunk_is_counted_mlperf_knows_what_comes_after_the_first(
    call: Make, a_run: MakeRun
) -> None:
    """Twelve tokens, of which four in the first chunk: (1.4 - 1.0) / 8."""
    run = a_run([call("a", 0.0, 1.0, 1.2, 1.4, output_tokens=12, chunk_tokens=[4, 4, 4])])
    assert read("mlperf", run)["tpot.avg"].value == pytest.approx(0.05e9)


def test_of_sglangs_own_dialect_a_gap_is_shared_by_its_tokens(call: Make, a_run: MakeRun) -> None:
    rows = [
        call("a", 0.0, 1.0, 1.4, output_tokens=5, chunk_tokens=[1, 4]),
        call("b", 0.0, 1.0, 1.3, output_tokens=7),
    ]
    fields = read("sglang", a_run(rows, asked={"backend": "sglang"}))
    assert fields["mean_itl_ms"].value == pytest.approx(100)  # 0.4 / 4, four times
    assert fields["mean_itl_ms"].why == (
        "without 1 of 2 calls: a run does not tell how many tokens each chunk held"
    )
    assert fields["max_output_tokens_per_s"].value is None
    openai = read("sglang", a_run(rows, asked={"backend": "openai"}))
    assert openai["mean_itl_ms"].value == pytest.approx(350)


# --- goodput --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slo", "why"),
    [
        (None, "no SLO was asked"),
        ("p99(ttft)<1s", "bounds on TTFT, TPOT and E2E of every call, and no others"),
        ("stall<1s", "bounds on TTFT, TPOT and E2E of every call, and no others"),
        ("class=chat: ttft<1s", "bounds on TTFT, TPOT and E2E of every call, and no others"),
        ("ttft<1s+1ms*input", "bounds on TTFT, TPOT and E2E of every call, and no others"),
    ],
)
def test_a_goodput_that_the_tool_could_not_count_is_null(
    chat: Run, slo: str | None, why: str
) -> None:
    goodput = read("vllm", chat, slo)["request_goodput"]
    assert goodput.value is None
    assert why in (goodput.why or "")


def test_a_bound_on_e2e_is_on_the_tools_own(chat: Run) -> None:
    """Of `role` vLLM's ends after 1.4 s and SGLang's after 1.5 s."""
    assert read("vllm", chat, "e2e<1.45s")["request_goodput"].value == pytest.approx(0.8)
    assert read("sglang", chat, "e2e<1.45s")["request_goodput"].value == pytest.approx(0.4)


# --- what holds of every run ----------------------------------------------------------------------

# What a number becomes if everything takes k times as long, by its unit.
POWERS = {"ms": 1, "s": 1, "ns": 1, "s/token": 1, "1/s": -1, "1/min": -1, "tokens/s": -1}
WHOLE_SECONDS = {"max_output_tokens_per_s", "max_concurrent_requests"}

STREAMS = st.lists(
    st.tuples(st.integers(0, 20), st.lists(st.integers(0, 9), min_size=1, max_size=6)),
    min_size=1,
    max_size=6,
)


def rows_of(drawn: list[tuple[int, list[int]]], k: float) -> pl.DataFrame:
    rows = []
    for number, (due, gaps) in enumerate(drawn):
        chunks = [k * (due + at) for at in itertools.accumulate([1, *gaps])]
        failed = number % 3 == 2
        rows.append(
            {
                "call_id": str(number), "program_id": str(number), "input_tokens": 7,
                "status": "http_500" if failed else "ok", "due_s": k * due, "admitted_s": k * due,
                "dispatched_s": k * due, "sent_s": k * due, "end_s": chunks[-1] + k,
                "output_tokens": None if failed else len(chunks) + number % 2,
                "chunk_s": None if failed else chunks, "empty_s": None if failed else [],
                "first_token_s": None if failed else chunks[0],
                "first_answer_s": None if failed else chunks[0],
                "last_token_s": None if failed else chunks[-1],
            }
        )  # fmt: skip
    return frame_of_rows(rows)


@settings(max_examples=15)
@given(STREAMS, st.sampled_from((0.25, 2.0, 8.0)))
def test_if_all_takes_k_times_as_long_every_number_says_so(
    drawn: list[tuple[int, list[int]]], k: float
) -> None:
    for profile in PROFILES.values():
        once, scaled = (
            Reading(profile, Seen(Measured(rows_of(drawn, by).lazy()))) for by in (1.0, k)
        )
        for field in profile.fields:
            if field.name in WHOLE_SECONDS:
                continue
            a, b = once.of(field), scaled.of(field)
            assert a.why == b.why, field.name
            if a.value is None:
                assert b.value is None, field.name
                continue
            assert b.value == pytest.approx(a.value * k ** POWERS.get(field.unit, 0)), field.name


def nothing(call: Make, failed: Make) -> dict[str, list[Row]]:
    return {
        "no call": [],
        "failures only": [failed("a", 0.0), failed("b", 1.0, "timeout", sent_s=None)],
        "one call": [call("a", 0.0, 1.0, 1.5)],
        "one token": [call("a", 0.0, 1.0)],
        "an empty answer": [call("a", 0.0, output_tokens=0)],
        "all at once": [call("a", 0.0, 0.0, 0.0, end_s=0.0)],
        "nothing known": [{"call_id": "a", "status": None, "due_s": None}],
        "no counts": [call("a", 0.0, 1.0, 1.5, output_tokens=None)],
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_no_run_is_too_small_to_be_read(
    profile: str, call: Make, failed: Make, a_run: MakeRun
) -> None:
    for name, rows in nothing(call, failed).items():
        for field, found in read(profile, a_run(rows), "ttft<1s,tpot<1s,e2e<9s").items():
            told = found.value is not None or found.why
            assert told, f"{name}: {field} is neither known nor said why not"


@pytest.mark.parametrize("profile", PROFILES)
def test_calls_without_an_answer_have_no_latency(
    profile: str, failed: Make, a_run: MakeRun
) -> None:
    fields = read(profile, a_run([failed("a", 0.0), failed("b", 1.0)]))
    latencies = {f.name for f in PROFILES[profile].fields if f.statistic and f.unit != "tokens"}
    known = {name for name in latencies if fields[name].value is not None}
    # a failed sample completes, for MLPerf alone
    assert {name.split(".")[0] for name in known} == ({"latency"} if profile == "mlperf" else set())


def test_the_fields_of_a_profile_have_names_of_their_own_and_sentences() -> None:
    for profile in PROFILES.values():
        names = [field.name for field in profile.fields]
        assert len(names) == len(set(names))
        assert all(field.definition and field.unit for field in profile.fields)


def test_a_profile_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(InputError, match="no metric profile 'wrk'") as error:
        named("wrk")
    assert all(name in str(error.value) for name in PROFILES)


# --- the worked example ---------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "definitions.md"
NONE = "\N{EN DASH}"
IN_MS = {"ms": 1.0, "s": 1e3, "s/token": 1e3, "ns": 1e-6}
OURS = {
    "TTFT mean": ("ttft", "mean"),
    "TPOT mean": ("tpot", "mean"),
    "TBT p50": ("tbt", "p50"),
    "ICL p50": ("icl", "p50"),
    "Normalised latency mean": ("norm", "mean"),
}


def example(per_chunk: int) -> Measured:
    """A hundred tokens, the first after 1 s and one every 20 ms, so many to a chunk."""
    made = [1.0 + 0.02 * number for number in range(100)]
    chunks = made[per_chunk - 1 :: per_chunk]
    row = {
        "call_id": "a", "program_id": "a", "status": "ok", "due_s": 0.0, "admitted_s": 0.0,
        "dispatched_s": 0.0, "sent_s": 0.0, "first_token_s": chunks[0],
        "first_answer_s": chunks[0], "last_token_s": chunks[-1], "end_s": chunks[-1],
        "input_tokens": 10, "output_tokens": 100, "chunk_s": chunks, "empty_s": [],
    }  # fmt: skip
    return Measured(frame_of_rows([row]).lazy())


def number(whose: str, name: str, run: Measured) -> str:
    if whose == "ours":
        metric, statistic = OURS[name]
        sample = run.sample(metric)
        value = sample.mean() if statistic == "mean" else sample.quantile(0.5)
        scale = 1e3
    else:
        reading = Reading(named(whose), Seen(run))
        (field,) = (field for field in reading.profile.fields if field.name == name)
        value, scale = reading.of(field).value, IN_MS[field.unit]
    return NONE if value is None else f"{value * scale:.1f} ms"


def test_the_worked_example_of_the_manual_is_what_the_code_computes() -> None:
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.endswith(("ms |", f"{NONE} |"))
    ]
    told = [row for row in rows if row[0] in (*PROFILES, "ours") and len(row) == 4]
    runs = (example(1), example(4))
    assert told == [
        [whose, name, *(number(whose, name, run) for run in runs)] for whose, name, *_ in told
    ]
    assert {row[0] for row in told} == {*PROFILES, "ours"}
    found = {row[1]: row[2:] for row in told}
    # what peers' own pages and threads say of it
    assert found["mean_tpot_ms"][0] == "20.0 ms"
    assert found["time_per_output_token_ms.successful.mean"] == ["29.8 ms", "29.8 ms"]
    assert found["inter_token_latency_s.mean"][0] == "29.8 ms"
    assert found["median_itl_ms"][1] == "80.0 ms"
    assert found["latency.inter_token_latency.median"][1] == "0.0 ms"
