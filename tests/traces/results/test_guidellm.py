"""A report that GuideLLM wrote, against the statistics in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.results import read
from servescope.traces.results.guidellm import ASAP, NO_GAPS

Said = Callable[[str], Any]
REPORT = "guidellm/benchmarks.json.gz"


@pytest.fixture
def edited(said: Said, tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """The recorded report after a change to its first benchmark, which is then alone."""

    def make(change: Callable[[Any], object]) -> Path:
        report = said(REPORT)
        del report["benchmarks"][1:]
        change(report["benchmarks"][0])
        path = tmp_path / "benchmarks.json"
        path.write_text(json.dumps(report))
        return path

    return make


def test_every_benchmark_of_a_report_is_a_result(data: Path) -> None:
    results = read(data / REPORT)
    assert [(r.part, r.load["rate"]) for r in results] == [("constant-4", 4.0), ("constant-8", 8.0)]
    assert {(r.version, r.model, r.seed) for r in results} == {("0.8.1", "Llama-3.1-8B", 7)}
    assert results[0].endpoint == "http://127.0.0.1:18732"


@pytest.mark.parametrize("place", [0, 1])
def test_the_quantiles_are_those_of_guidellms_report(
    place: int, data: Path, said: Said, measured: Any
) -> None:
    told = said(REPORT)["benchmarks"][place]["metrics"]
    ok = measured(read(data / REPORT)[place]).filter(pl.col("status") == "ok")
    tokens = ok["output_tokens"].to_numpy()
    ours = {
        "time_to_first_token_ms": ok["ttft"].to_numpy() * 1000,
        "request_latency": (ok["end_s"] - ok["sent_s"]).to_numpy(),
        # each request counts as often as it has gaps between tokens
        "inter_token_latency_ms": np.repeat(ok["tpot"].to_numpy() * 1000, tokens - 1),
        "output_token_count": tokens,
    }
    for metric, values in ours.items():
        theirs = told[metric]["successful"]
        assert len(values) == theirs["count"], metric
        assert values.mean() == pytest.approx(theirs["mean"]), metric
        for p in (50, 90, 95, 99):
            found = np.percentile(values, p, method="inverted_cdf")
            assert found == pytest.approx(theirs["percentiles"][f"p{p}"]), metric


def test_failures_are_counted_as_guidellm_counts_them(data: Path, said: Said) -> None:
    made = said(REPORT)["benchmarks"][0]["metrics"]["request_totals"]
    calls = read(data / REPORT)[0].calls
    failed = calls.filter(pl.col("status") != "ok")
    assert (calls.height, failed.height) == (made["total"], made["errored"])
    assert sorted(failed["status"]) == ["http_503"] * 3 + ["reset"] * 2
    assert failed.filter(status="http_503")["output_tokens"].count() == 0
    assert failed["end_s"].null_count() == 0


def test_calls_stand_in_the_order_of_the_data_and_are_due_as_planned(data: Path) -> None:
    slow, fast = read(data / REPORT)
    for result, gap_s in ((slow, 0.25), (fast, 0.125)):
        due = [number * gap_s for number in range(24)]
        assert result.calls["due_s"].to_list() == pytest.approx(due, abs=1e-5)
        assert result.plan["due_s"].to_list() == pytest.approx(due, abs=1e-5)
        assert (result.calls["sent_s"] > result.calls["due_s"]).all()


def test_gaps_are_not_made_up(data: Path) -> None:
    result = read(data / REPORT)[0]
    assert result.calls["chunk_s"].count() == 0
    assert NO_GAPS in result.doubts


def test_prompts_are_known_of_calls_that_were_answered(data: Path) -> None:
    result = read(data / REPORT)[0]
    both = result.plan.join(result.calls.select("call_id", "status"), on="call_id")
    assert both.filter(status="ok")["prompt_sha256"].null_count() == 0
    assert both.filter(pl.col("status") != "ok")["prompt_sha256"].count() == 0
    assert result.known_by == "prompts"


def test_turns_of_a_conversation_wait_for_each_other(edited: Any) -> None:
    def chain(benchmark: Any) -> None:
        first, second = benchmark["requests"]["successful"][:2]
        second["info"] |= {
            "conversation_id": first["info"]["conversation_id"],
            "preceding_nodes": 1,
            "node_id": "main_1",
            "parent_node_ids": ["main_0"],
        }
        ended = second["info"]["timings"]["targeted_start"] + 0.001
        second["info"]["timings"]["predecessor_completed"] = ended

    (result,) = read(edited(chain))
    assert result.calls["program_id"].n_unique() == 23
    (second,) = result.calls.filter(call_id="0/1").to_dicts()
    assert (second["turn"], second["parents"]) == (1, ["0/0"])
    assert second["due_s"] == second["ready_s"] == pytest.approx(0.501, abs=1e-5)
    assert result.plan.filter(call_id="0/1")["due_s"].item() is None


def test_a_call_that_was_stopped_is_cancelled(edited: Any) -> None:
    def stop(benchmark: Any) -> None:
        last = benchmark["requests"]["successful"].pop()
        last["info"] |= {"status": "cancelled", "error": "Request was cancelled"}
        last["info"]["timings"]["request_end"] = None
        benchmark["requests"]["incomplete"] = [last]

    (result,) = read(edited(stop))
    (row,) = result.calls.filter(status="cancelled").to_dicts()
    assert row["error"] == "Request was cancelled"
    assert row["end_s"] is not None  # when its worker let go of it


def test_loads_without_a_timetable_say_so(edited: Any) -> None:
    def concurrent(benchmark: Any) -> None:
        benchmark["config"]["strategy"] = {"type_": "concurrent", "streams": 4}

    (result,) = read(edited(concurrent))
    assert ASAP in result.doubts
    assert result.plan["due_s"].count() == 0
    assert result.load == {"type_": "concurrent", "streams": 4}


def test_without_a_target_due_is_sent(edited: Any) -> None:
    def forget(benchmark: Any) -> None:
        for requests in benchmark["requests"].values():
            for request in requests or ():
                request["info"]["timings"]["targeted_start"] = None

    (result,) = read(edited(forget))
    assert result.calls["due_s"].equals(result.calls["sent_s"].alias("due_s"))


def test_a_sample_a_warm_up_and_a_cool_down_are_known(edited: Any) -> None:
    def cut(benchmark: Any) -> None:
        benchmark["scheduler_metrics"]["requests_made"]["total"] = 1000
        benchmark["scheduler_metrics"]["measure_start_time"] += 1.5
        benchmark |= {"warmup_duration": 1.5, "cooldown_duration": 2.0}

    (result,) = read(edited(cut))
    assert result.warmup_s == pytest.approx(1.509, abs=0.001)
    assert "GuideLLM kept 24 of the 1000 calls that it made: a sample." in result.doubts
    assert any("leave the last 2 s out" in doubt for doubt in result.doubts)


def test_a_report_of_another_version_is_read_with_a_doubt(said: Said, tmp_path: Path) -> None:
    report = said(REPORT)
    report["metadata"]["guidellm_version"] = "0.7.0"
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps(report))
    assert read(path)[0].doubts[0].startswith("GuideLLM 0.7.0 wrote the file")


def test_two_benchmarks_of_one_load_have_two_names(said: Said, tmp_path: Path) -> None:
    report = said(REPORT)
    report["benchmarks"][1]["config"]["strategy"] = report["benchmarks"][0]["config"]["strategy"]
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps(report))
    assert [result.part for result in read(path)] == ["constant-4-1", "constant-4-2"]


def _forget_times(benchmark: Any) -> None:
    for requests in benchmark["requests"].values():
        for request in requests or ():
            request["info"]["timings"] = {}


def _no_requests(benchmark: Any) -> None:
    benchmark["requests"] = {"successful": [], "errored": None, "incomplete": []}


def _twice(benchmark: Any) -> None:
    benchmark["requests"]["errored"].append(benchmark["requests"]["successful"][0])


def _far_away(benchmark: Any) -> None:
    for requests in benchmark["requests"].values():
        for request in requests or ():
            request["info"]["timings"]["targeted_start"] = 1e17


def _torn_arguments(benchmark: Any) -> None:
    benchmark["requests"]["successful"][0]["request_args"] = '{"body": {'


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_forget_times, NotAResult, "does not say when its calls were sent"),
        (_no_requests, NotAResult, "holds no call"),
        (_twice, BadRow, "two requests of one place"),
        (_far_away, BadRow, "which is no moment"),
        (_torn_arguments, BadRow, "arguments of a request is not whole JSON"),
    ],
)
def test_what_makes_no_sense_is_refused(
    change: Any, error: type[Exception], says: str, edited: Any
) -> None:
    with pytest.raises(error, match=says):
        read(edited(change))
