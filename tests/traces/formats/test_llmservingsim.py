import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats import llmservingsim
from servescope.traces.formats.gather import MOVED
from servescope.traces.formats.llmservingsim import FROM_THE_QUEUE, TOKEN_IDS

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "llmservingsim"
WORKLOAD = "llmservingsim/workload_me2_01_mixed.jsonl"
MEASURED = "llmservingsim/vllm_bench_RTX4090_Llama-3.1-8B_requests.jsonl"
STAGES = {"queued_ts": 5.0, "scheduled_ts": 6.0, "first_token_ts": 6.5, "last_token_ts": 9.0}


def a_request(at_ns: object = 0, **fields: object) -> str:
    line = {"input_toks": 10, "output_toks": 2, "arrival_time_ns": at_ns}
    return json.dumps({**line, **fields}) + "\n"


def a_session(*steps: dict[str, object], **fields: object) -> str:
    return json.dumps({"arrival_time_ns": 0, "sub_requests": steps, **fields}) + "\n"


def a_step(tool_ns: int = 0, **fields: object) -> dict[str, object]:
    return {"input_toks": 10, "output_toks": 2, "tool_duration_ns": tool_ns, **fields}


def served(name: str = "a", **fields: object) -> str:
    line = {"request_id": name, "input_toks": 10, "output_toks": 2, "arrival_time": 1787267980.25}
    return json.dumps({**line, **STAGES, **fields}) + "\n"


def p50(values: Any) -> float:
    return float(np.percentile(values.to_numpy(), 50, method="higher"))


def test_the_workload_has_the_published_statistics(original: Callable[[str], Path]) -> None:
    trace = load(original(WORKLOAD))
    frame = trace.collect()
    arrivals = frame["arrival_s"].to_numpy()
    gaps = np.diff(arrivals)
    assert frame.height == 608
    assert arrivals[-1] == pytest.approx(60.9, abs=0.05)
    assert len(gaps) / arrivals[-1] == pytest.approx(9.97, abs=0.005)
    assert gaps.std(ddof=1) / gaps.mean() == pytest.approx(0.99, abs=0.005)
    assert frame["input_tokens"].mean() == pytest.approx(9218, abs=0.5)
    assert frame["output_tokens"].mean() == pytest.approx(3021, abs=0.5)
    known = trace.provenance
    assert (known.format, known.kind, known.clock) == ("llmservingsim", "synthetic", "source")
    assert (known.t0_ns, known.tick_s, known.doubts) == (101_537_000, 1e-9, ())
    assert known.sha256 == "b3e9c79a96c9627feed0b6a10bc2207cbec7d6277b2e51826a0e069b46151cd5"
    assert set(frame.columns).isdisjoint({"parents", "status"})


def test_the_run_has_the_published_statistics(original: Callable[[str], Path]) -> None:
    trace = load(original(MEASURED))
    frame = trace.collect()
    assert frame.height == 300
    assert p50(frame["observed_queue_s"]) == pytest.approx(60, abs=0.5)
    assert p50(frame["observed_ttft_s"]) == pytest.approx(60, abs=0.5)
    assert p50(frame["observed_e2e_s"]) == pytest.approx(84, abs=0.5)
    known = trace.provenance
    assert (known.kind, known.clock, known.tick_s) == ("measured", "utc", 2.0**-22)
    assert known.doubts == (FROM_THE_QUEUE,)
    assert known.sha256 == "5a6f2a0b09d5eb84bd75b30ed625d883c22b4bcc0a839cd1128ae42f74ecc90d"


def test_the_sample_of_a_workload_has_a_session() -> None:
    trace = load(SAMPLE / "workload.jsonl")
    frame = trace.collect().sort("source_row", "turn")
    assert frame["call_id"].to_list() == ["1", "2", "3/0", "3/1"]
    assert frame["program_id"].to_list() == [None, None, "agent-0", "agent-0"]
    assert frame["turn"].to_list() == [None, None, 0, 1]
    assert frame["arrival_s"].to_list() == [0.0, 0.042833, 0.048463, None]
    assert frame["parents"].to_list() == [[], [], [], ["3/0"]]
    assert frame["delay_s"].to_list() == [None, None, None, 1.5]
    assert frame["delay_kind"].to_list() == [None, None, None, "tool"]
    assert frame["input_tokens"].to_list() == [27369, 1390, 100, 160]
    assert frame["output_tokens"].to_list() == [1626, 527, 20, 30]


def test_the_sample_of_a_run() -> None:
    """Only differences of the monotonic stamps are kept."""
    trace = load(SAMPLE / "measured.jsonl")
    frame = trace.collect()
    assert frame["call_id"].to_list() == ["bench-0", "bench-1", "bench-2"]
    assert frame["arrival_s"].to_list() == pytest.approx([0.0, 0.2650914, 0.3961475])
    assert frame["observed_queue_s"].to_list() == pytest.approx([2.0579e-5, 9.982e-6, 4.378e-5])
    assert frame["observed_ttft_s"][0] == pytest.approx(0.689434586)
    assert frame["observed_e2e_s"][0] == pytest.approx(17.570317551)
    assert trace.provenance.t0 == "2026-08-20 23:19:40.0827403 UTC"


def test_a_nanosecond_is_kept(a_file: Write) -> None:
    trace = load(a_file(a_request(1_000_000_001) + a_request(0) + a_request(2_000_000_002)))
    assert trace.collect()["arrival_s"].to_list() == [0.0, 1.000000001, 2.000000002]
    assert trace.provenance.doubts == (MOVED,)


def test_a_session_without_a_name_is_named_by_its_line(a_file: Write) -> None:
    frame = load(a_file(a_session(a_step(5), a_step()) + a_session(a_step(), session_id=7)))
    assert frame.collect()["program_id"].to_list() == ["1", "1", "7"]


def test_token_ids_are_not_read(a_file: Write) -> None:
    trace = load(a_file(a_request(input_tok_ids=[1, 2]) + a_request(1)))
    assert trace.provenance.doubts == (TOKEN_IDS,)
    assert load(a_file(a_session(a_step(input_tok_ids=[3])))).provenance.doubts == (TOKEN_IDS,)


def test_a_stage_that_was_not_reached_is_unknown(a_file: Write) -> None:
    lines = served(last_token_ts=None) + served("b", queued_ts=None) + served("c", input_toks=None)
    frame = load(a_file(lines)).collect()
    assert frame["observed_queue_s"].to_list() == [1.0, None, 1.0]
    assert frame["observed_ttft_s"].to_list() == [1.5, None, 1.5]
    assert frame["observed_e2e_s"].to_list() == [None, None, 4.0]
    assert frame["input_tokens"].to_list() == [10, 10, None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_request(-1), r"Expected `int` >= 0 - at `\$\.arrival_time_ns`"),
        (a_request(0.5), r"Expected `int`, got `float` - at `\$\.arrival_time_ns`"),
        (a_request(input_toks=-1), r"Expected `int` >= 0 - at `\$\.input_toks`"),
        (a_request(output_toks=None), "neither `input_toks` and `output_toks` nor `sub_requests`"),
        (a_session(), "neither `input_toks` and `output_toks` nor `sub_requests`"),
        (a_session(a_step(-1)), r"at `\$\.sub_requests\[0\]\.tool_duration_ns`"),
        (a_session({"input_toks": 1}), "missing required field `output_toks`"),
        ('{"input_toks": 1}\n', "missing required field `arrival_time_ns`"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_of_a_workload_that_makes_no_sense_is_named(
    a_file: Write, line: str, message: str
) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 2: .*{message}"):
        load(a_file(a_request() + line))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (served("b", first_token_ts=5.5), "its `first_token_ts` lies before its `scheduled_ts`"),
        (served("b", arrival_time=1e10), "its `arrival_time` .* is no moment"),
        (served("b", arrival_time="1"), r"Expected `float`, got `str` - at `\$\.arrival_time`"),
        (served("a"), "a call named a came before"),
    ],
)
def test_a_line_of_a_run_that_makes_no_sense_is_named(
    a_file: Write, line: str, message: str
) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 2: .*{message}"):
        load(a_file(served() + line))


def test_bad_lines_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    aside = tmp_path / "r.jsonl"
    lines = a_request() + a_session() + a_request(9)
    trace = load(a_file(lines), on_error="skip", rejected=aside)
    assert trace.collect()["source_row"].to_list() == [1, 3]
    assert trace.provenance.rows_dropped == {"no request and no session": 1}
    assert "line 2" in json.loads(aside.read_text())["where"]


def test_other_files_are_not_claimed() -> None:
    assert not llmservingsim.sniff(b'{"input_toks": 1, "output_toks": 2}')
    assert not llmservingsim.sniff(b'{"request_id": "a", "arrival_time": 1.5}')
    assert not llmservingsim.sniff(b"input_toks,output_toks,arrival_time_ns\n")
