import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats import continuum
from servescope.traces.formats.continuum import REPLAYED, WHOLE_JOBS
from servescope.traces.formats.gather import MOVED

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "continuum"
LOG = "continuum_results/multiturn_trace_client_ok.json.gz"
JOBS = "continuum_results/swebench_llama70B_continuum_results.json"
START = 1776497215.5


def a_round(after_s: float = 0.0, **fields: object) -> dict[str, object]:
    told: dict[str, object] = {
        "request_start_time": START + after_s,
        "request_latency_s": 2.0,
        "execution_time_seconds": 0.5,
        "ok": True,
        "error": "",
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    }
    return {**told, **fields}


def a_log(*rounds: dict[str, object], **fields: object) -> str:
    trajectory = {"traj_id": "t", "rounds": rounds, **fields}
    return json.dumps({"config": {"model_name": "m"}, "results": [trajectory]})


def jobs(**durations: object) -> str:
    return json.dumps({"num_jobs": len(durations), "job_durations": durations})


def ranks(values: Any, *percents: float) -> list[float]:
    """The nearest rank at or above each percentile, as the published numbers count."""
    known = [value for value in values if value is not None]
    return [float(x) for x in np.percentile(known, percents, method="inverted_cdf")]


def test_the_client_log_has_the_published_statistics(original: Callable[[str], Path]) -> None:
    trace = load(original(LOG))
    frame = trace.collect()
    assert (frame.height, frame["program_id"].n_unique()) == (273, 32)
    assert ranks(frame["observed_e2e_s"], 50, 99) == pytest.approx([4.0, 14.7], abs=0.05)
    # Of the 273 tool times the last of each trajectory has no call after it.
    assert frame["delay_s"].count() == 273 - 32
    p50, p90 = ranks(frame["delay_s"], 50, 90)
    assert p50 == pytest.approx(0.0007, abs=5e-5)
    assert p90 == pytest.approx(0.55, abs=0.005)
    assert set(frame["status"]) == {"ok"}
    assert frame["input_tokens"].null_count() == frame["output_tokens"].null_count() == 0
    known = trace.provenance
    assert known.sha256 == "f7a610a449314b335184ccbb4e5fb5868a0566db53b501aa74db74c2585fdf9a"
    assert (known.format, known.kind, known.clock) == ("continuum", "measured", "utc")
    assert known.doubts == (
        MOVED,
        REPLAYED,
        "32 of 32 trajectories were interrupted: their last rounds are missing.",
    )


def test_the_jobs_have_the_published_statistics(original: Callable[[str], Path]) -> None:
    path = original(JOBS)
    trace = load(path)
    frame = trace.collect()
    assert frame.height == frame["program_id"].n_unique() == 500
    took = frame["observed_e2e_s"].to_numpy()
    assert took.mean() == pytest.approx(215.5, abs=0.05)
    assert np.percentile(took, [50, 99]) == pytest.approx([180.7, 926.5], abs=0.05)
    assert frame["input_tokens"].null_count() == frame["output_tokens"].null_count() == 500
    assert set(frame.columns).isdisjoint({"arrival_s", "status"})
    assert frame["parents"].to_list() == [[]] * 500
    table = trace.tables["job_durations"].collect()
    told = json.loads(path.read_text())["job_durations"]
    assert dict(table.iter_rows()) == told
    assert trace.provenance.doubts == (WHOLE_JOBS,)
    assert trace.provenance.sha256 == (
        "5089094f861ead1f8fed855cbe5fb80b1f5e10032cc493579e7a94c329213df6"
    )


def test_a_pause_is_the_tool_and_not_the_client(original: Callable[[str], Path]) -> None:
    """The gap between two rounds is the tool's time and some milliseconds of the client."""
    frame = load(original(LOG)).collect().sort("source_row")
    ends = frame["arrival_s"] + frame["observed_e2e_s"]
    late = (frame["arrival_s"] - ends.shift(1) - frame["delay_s"]).drop_nulls().to_numpy()
    assert len(late) == 241
    assert late.min() > 0
    assert np.median(late) < 0.005


def test_the_sample_of_a_log_keeps_a_failure() -> None:
    trace = load(SAMPLE / "client.json")
    frame = trace.collect()
    assert frame["source_row"].to_list() == [1, 3, 2, 4]
    assert frame["turn"].to_list() == [0, 0, 1, 1]
    assert frame["parents"].to_list() == [[], [], ["1"], ["3"]]
    assert frame["delay_s"].to_list() == [None, None, 0.547624, 0.552032]
    assert frame["delay_kind"].to_list() == [None, None, "tool", "tool"]
    assert frame["input_tokens"].to_list() == [651, 621, 735, None]
    assert frame["output_tokens"].to_list() == [58, 69, 21, None]
    assert frame["status"].to_list() == ["ok", "ok", "ok", "error"]
    assert frame["error"].to_list() == [None, None, None, "connection refused"]
    assert frame["observed_e2e_s"].to_list() == pytest.approx(
        [4.001085281, 4.158237457, 2.198329926, None]
    )
    assert set(frame["model"]) == {"meta-llama/Llama-3.1-8B-Instruct"}
    texts = trace.tables["contents"].collect()["output_text"]
    assert [text.split()[0] for text in texts] == ["I'll", "Now,", "I'll"]
    assert trace.provenance.t0 == "2026-04-18 07:26:55.6397624 UTC"


def test_the_sample_of_jobs() -> None:
    trace = load(SAMPLE / "results.json")
    assert trace.collect()["program_id"].to_list() == ["12", "17", "4"]
    table = trace.tables["job_durations"].collect()
    assert table.columns == ["job_id", "duration_s"]
    assert table["duration_s"].to_list() == pytest.approx([57.406166, 52.431776, 115.686508])


def test_a_log_and_its_jobs_can_be_read_together() -> None:
    trace = load(SAMPLE)
    frame = trace.collect()
    assert (frame.height, trace.provenance.files) == (7, 2)
    assert frame["arrival_s"].null_count() == 3
    assert frame["program_id"].n_unique() == 5
    assert {REPLAYED, WHOLE_JOBS} < set(trace.provenance.doubts)


def test_what_a_round_does_not_say_is_unknown(a_file: Write) -> None:
    first: dict[str, object] = {"request_start_time": START}
    frame = load(a_file(a_log(first, a_round(3)))).collect()
    assert frame["status"].to_list() == [None, "ok"]
    assert frame["observed_e2e_s"].to_list() == [None, 2.0]
    assert frame["input_tokens"].to_list() == [None, 10]
    assert frame["delay_s"].to_list() == [None, None]
    assert frame["parents"].to_list() == [[], ["1"]]
    assert frame["arrival_s"].to_list() == [0.0, 3.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (a_log(a_round(), a_round(-1e300)), "round 2: its `request_start_time` -1e.300 is no"),
        (a_log(a_round(), a_round(1e10)), "round 2: its `request_start_time` .* is no moment"),
        (a_log(a_round(), a_round(request_latency_s=-1)), "round 2: observed_e2e_s is -1.0"),
        (a_log(a_round(execution_time_seconds=-1), a_round(3)), "round 2: delay_s is -1.0"),
        (a_log(a_round(usage={"prompt_tokens": -1})), "round 1: input_tokens is -1"),
        (jobs(a=1.5, b=-2), r"job 2: the job took -2.0 s"),
        (a_log(a_round(ok="yes")), r"Expected `bool \| null`, got `str`.*rounds\[0\]\.ok"),
        (jobs(a="1"), r"Expected `float`, got `str` - at `\$\.job_durations\[\.\.\.\]`"),
        (a_log(a_round())[:-1], "Input data was truncated"),
        (jobs(), "has no row that can be read"),
    ],
)
def test_what_makes_no_sense_is_named(a_file: Write, content: str, message: str) -> None:
    with pytest.raises(BadRow, match=message):
        load(a_file(content))


def test_bad_rounds_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    """What followed a round that was put aside follows nothing: its pause is not known."""
    aside = tmp_path / "r.jsonl"
    content = a_log(a_round(), a_round(request_start_time=1e12), a_round(9), a_round(12))
    trace = load(a_file(content), on_error="skip", rejected=aside)
    frame = trace.collect()
    assert frame["source_row"].to_list() == [1, 3, 4]
    assert frame["turn"].to_list() == [0, 2, 3]
    assert frame["parents"].to_list() == [[], [], ["3"]]
    assert frame["delay_s"].to_list() == [None, None, 0.5]
    assert trace.provenance.rows_dropped == {"request_start_time is no moment": 1}
    assert "round 2" in json.loads(aside.read_text())["where"]


def test_other_files_are_not_claimed() -> None:
    assert not continuum.sniff(b'{"job_durations": {"1": 2}}')
    assert not continuum.sniff(b'{"results": [{"traj_id": "t", "rounds": []}]}')
    assert not continuum.sniff(b"num_jobs,job_durations\n")
