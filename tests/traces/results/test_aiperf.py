"""Records that AIPerf wrote, against the summary that it wrote of them."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.results import Result, read
from servescope.traces.results.aiperf import FROM_SENT, ISSUED

Said = Callable[[str], Any]
Lines = list[dict[str, Any]]


@pytest.fixture
def faults(data: Path) -> Result:
    (result,) = read(data / "aiperf/faults/profile_export.jsonl.gz")
    return result


@pytest.fixture
def edited(data: Path, tmp_path: Path) -> Callable[[Callable[[Lines], object]], Path]:
    """The recorded records after a change, with what lay beside them."""

    def make(change: Callable[[Lines], object]) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(data / "aiperf/faults", folder, dirs_exist_ok=True)
        packed = folder / "profile_export.jsonl.gz"
        lines = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]
        change(lines)
        path = folder / "profile_export.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return make


@pytest.mark.parametrize("name", ["faults", "clean", "closed"])
def test_the_quantiles_are_those_of_aiperfs_summary(
    name: str, data: Path, said: Said, measured: Any, gaps: Any
) -> None:
    told = said(f"aiperf/{name}/profile_export_aiperf.json.gz")
    (result,) = read(data / f"aiperf/{name}/profile_export.jsonl.gz")
    calls = measured(result)
    ours = {
        "time_to_first_token": calls["ttft"].drop_nulls().to_numpy(),
        "time_to_first_output_token": calls["ttfo"].drop_nulls().to_numpy(),
        "request_latency": calls["e2e"].drop_nulls().to_numpy(),
        "inter_token_latency": calls["tpot"].drop_nulls().to_numpy(),
        "inter_chunk_latency": gaps(result),
    }
    for metric, values in ours.items():
        ms = values * 1000
        assert len(ms) == told[metric]["count"], metric
        assert ms.mean() == pytest.approx(told[metric]["avg"]), metric
        for p in (50, 90, 99):
            assert np.percentile(ms, p) == pytest.approx(told[metric][f"p{p}"]), metric


def test_failures_and_tokens_are_counted_as_aiperf_counts_them(faults: Result, said: Said) -> None:
    told = said("aiperf/faults/profile_export_aiperf.json.gz")
    ok = faults.calls.filter(status="ok")
    assert ok.height == told["request_count"]["avg"]
    assert faults.calls.height - ok.height == told["error_request_count"]["avg"]
    assert ok["output_tokens"].sum() == told["total_osl"]["avg"]
    assert ok["input_tokens"].sum() == told["total_isl"]["avg"]
    failed = faults.calls.filter(pl.col("status") != "ok")
    assert sorted(failed["status"]) == ["http_503"] * 4 + ["reset"] * 2
    assert failed.filter(status="http_503")["error"][0] == '{"error": {"message": "planted"}}'
    assert failed["input_tokens"].null_count() == failed.height
    # of an answer with an HTTP error AIPerf writes its start as its end
    assert failed.filter(status="http_503")["end_s"].null_count() == 4
    assert failed.filter(status="reset")["end_s"].null_count() == 0


def test_turns_of_a_session_wait_for_each_other(faults: Result, said: Said) -> None:
    calls = {row["call_id"]: row for row in faults.calls.iter_rows(named=True)}
    assert faults.calls["program_id"].n_unique() == 16
    assert calls["0/0"]["parents"] == []
    assert calls["0/2"]["parents"] == ["0/1"]
    for row in calls.values():
        for parent in row["parents"]:
            ended = calls[parent]["end_s"]
            assert ended is None or ended <= row["due_s"]


def test_every_stamp_is_what_aiperf_wrote(faults: Result, data: Path) -> None:
    packed = data / "aiperf/faults/profile_export.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]
    first = min(lines, key=lambda line: line["metadata"]["credit_issued_ns"])
    zero = first["metadata"]["credit_issued_ns"]
    assert faults.started_ns == zero
    (row,) = faults.calls.filter(call_id="0/0").to_dicts()
    told = first["metadata"]
    assert row["due_s"] == 0.0
    assert row["sent_s"] == (told["request_start_ns"] - zero) / 1e9
    assert row["first_byte_s"] == (told["request_ack_ns"] - zero) / 1e9
    assert row["end_s"] == (told["request_end_ns"] - zero) / 1e9
    gaps = first["metrics"]["inter_chunk_latency"]["value"]
    assert np.diff(row["chunk_s"]) * 1000 == pytest.approx(gaps)
    assert row["last_token_s"] == pytest.approx(row["chunk_s"][-1], abs=1e-8)
    assert ISSUED in faults.doubts


def test_what_lies_beside_the_records_is_used(faults: Result, said: Said) -> None:
    assert (faults.version, faults.model, faults.seed) == ("0.13.0", "Llama-3.1-8B", 7)
    assert faults.endpoint == "http://127.0.0.1:18732"
    assert faults.load == {"type": "poisson", "sessions": 16, "rate": 6.0}
    inputs = said("aiperf/faults/inputs.json.gz")["data"]
    asked = [p["max_completion_tokens"] for session in inputs for p in session["payloads"]]
    assert faults.plan["output_tokens"].to_list() == asked
    assert faults.plan["prompt_sha256"].n_unique() == 43
    assert faults.known_by == "prompts"


def test_records_alone_are_read_and_what_is_lost_is_said(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "aiperf/faults/profile_export.jsonl.gz", tmp_path)
    (result,) = read(tmp_path / "profile_export.jsonl.gz")
    assert (result.version, result.model, result.endpoint, result.seed) == (None,) * 4
    assert result.plan["prompt_sha256"].count() == 0
    assert result.known_by == "lengths"
    # later turns hold the server's own answers
    assert result.plan.filter(pl.col("turn") > 0)["input_tokens"].count() == 0
    lost = [doubt.partition(" is ")[0] for doubt in result.doubts if "not beside" in doubt]
    assert lost == ["profile_export_aiperf.json", "inputs.json"]


def test_a_warm_up_is_left_out_and_counted(data: Path) -> None:
    (result,) = read(data / "aiperf/closed/profile_export.jsonl.gz")
    assert result.calls.height == 24
    assert result.left_out == {"of AIPerf's warm-up": 4}
    assert "4 calls of AIPerf's warm-up are left out, as in its own summary." in result.doubts


def test_every_profiling_phase_is_a_benchmark(edited: Any) -> None:
    def second_half(lines: Lines) -> None:
        for line in lines:
            if line["metadata"]["session_num"] >= 20:
                line["metadata"] |= {"profiling_index": 1, "phase_name": "faster"}

    results = read(edited(second_half))
    assert [(r.part, r.calls.height) for r in results] == [("profiling", 20), ("faster", 23)]
    assert [r.calls["due_s"].min() for r in results] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("error", "cancelled", "status"),
    [
        ({"message": "late", "type": "TimeoutError"}, False, "timeout"),
        ({"message": "no", "type": "ClientConnectorError"}, False, "connection"),
        ({"message": "odd", "type": "InvalidInferenceResultError"}, False, "error"),
        ({"message": "died", "type": "SSEResponseError", "code": 502}, False, "server"),
        ({"message": "stop", "type": "RequestCancellationError", "code": 499}, False, "cancelled"),
        (None, True, "cancelled"),
    ],
)
def test_failures_have_our_words(
    error: dict[str, Any] | None, cancelled: bool, status: str, edited: Any
) -> None:
    def fail(lines: Lines) -> None:
        lines[0] |= {"error": error, "metrics": {}}
        lines[0]["metadata"]["was_cancelled"] = cancelled

    (result,) = read(edited(fail))
    assert result.calls.filter(call_id="0/0")["status"].item() == status


def test_sub_agents_are_calls_of_their_roots_program(edited: Any) -> None:
    def adopt(lines: Lines) -> None:
        by_num = {line["metadata"]["session_num"]: line["metadata"] for line in lines}
        child, root = by_num[2], by_num[0]  # the first turns of two sessions
        for line in lines:
            told = line["metadata"]
            if told["x_correlation_id"] == child["x_correlation_id"]:
                told["root_correlation_id"] = root["x_correlation_id"]
                told["parent_correlation_id"] = root["x_correlation_id"]

    (result,) = read(edited(adopt))
    assert result.calls["program_id"].n_unique() == 15
    of_root = result.calls.filter(program_id="0").sort("turn")
    assert of_root["parents"].to_list()[:4] == [[], ["0/0"], None, ["0/2"]]


def test_without_a_pacers_stamp_due_is_sent(edited: Any) -> None:
    def forget(lines: Lines) -> None:
        for line in lines:
            del line["metadata"]["credit_issued_ns"]

    (result,) = read(edited(forget))
    assert result.calls["due_s"].equals(result.calls["sent_s"].alias("due_s"))
    assert FROM_SENT in result.doubts


def test_answers_in_one_piece_have_no_first_token(edited: Any) -> None:
    def whole(lines: Lines) -> None:
        for line in lines:
            for name in ("time_to_first_token", "time_to_first_output_token"):
                line["metrics"].pop(name, None)
            line["metrics"].pop("inter_chunk_latency", None)

    (result,) = read(edited(whole))
    assert result.calls["first_token_s"].count() == 0
    assert result.calls["chunk_s"].count() == 0
    assert result.calls["last_token_s"].count() == 37


def test_a_run_that_aiperf_calls_incomplete_says_so(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(data / "aiperf/faults", folder)
    packed = folder / "profile_export_aiperf.json.gz"
    told = json.loads(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    told |= {"was_cancelled": True, "is_complete": False, "incomplete_reason": "records stalled"}
    (folder / "profile_export_aiperf.json").write_text(json.dumps(told))
    (result,) = read(folder / "profile_export.jsonl.gz")
    assert any("AIPerf was cancelled" in doubt for doubt in result.doubts)
    assert "AIPerf says that its run is incomplete: records stalled." in result.doubts


def test_its_other_files_are_told_from_its_records(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAResult, match=r"AIPerf's summary.*profile_export\.jsonl"):
        read(data / "aiperf/faults/profile_export_aiperf.json.gz")
    raw = tmp_path / "profile_export_raw.jsonl"
    raw.write_text('{"metadata":{"session_num":0,"request_start_ns":1},"responses":[]}\n')
    with pytest.raises(NotAResult, match="raw records"):
        read(raw)


def test_times_in_no_unit_of_time_are_refused(edited: Any) -> None:
    def miles(lines: Lines) -> None:
        lines[0]["metrics"]["time_to_first_token"]["unit"] = "miles"

    with pytest.raises(BadRow, match="time_to_first_token is in 'miles'"):
        read(edited(miles))


def test_two_records_of_one_turn_are_refused(edited: Any) -> None:
    with pytest.raises(BadRow, match="two records of turn 0"):
        read(edited(lambda lines: lines.append(lines[0])))
