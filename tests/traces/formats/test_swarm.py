import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "swarm.jsonl"
CLAUDE = "swarm_agentic/cpp-builds-claude-opus-4.6/cpp-build-firefox.jsonl.zst"
GEMMA = "swarm_agentic/cpp-builds-gemma-4-31b/cpp-vllm-docker-125m.jsonl.zst"
PIECES = (
    "Where prompt_tokens is missing, completion_tokens counts pieces of a stream, which may hold"
    " several tokens each."
)


def a_line(seq: int = 1, second: int = 0, **fields: object) -> str:
    line = {
        "seq": seq,
        "experiment_id": "e",
        "timestamp": f"2026-04-21T11:01:{second:02}.500000+00:00",
        "messages": [{"role": "user", "content": "hi"}],
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_time_s": 1.25,
    }
    return json.dumps({**line, **fields}) + "\n"


def p50(values: list[float]) -> float:
    return float(np.percentile(values, 50, method="nearest"))


def test_the_claude_recording_has_the_published_statistics(
    original: Callable[[str], Path],
) -> None:
    trace = load(original(CLAUDE))
    frame = trace.collect()
    assert (frame.height, frame["program_id"].n_unique()) == (29, 1)
    assert frame["arrival_s"].max() == pytest.approx(3416, abs=0.5)
    assert frame["input_tokens"].mean() == pytest.approx(38362, abs=0.5)
    assert frame["output_tokens"].mean() == pytest.approx(205, abs=0.5)
    assert p50(frame["observed_ttft_s"].to_list()) == pytest.approx(2.1, abs=0.05)
    assert frame["status"].null_count() == 29
    assert frame["delay_kind"].to_list() == [None, *["tool"] * 28]
    assert trace.provenance.sha256 == (
        "5fed2ce88b9d602364bd6b670aec92c753af7e8a12dc8f450d4350e88e6cfb1a"
    )
    assert PIECES not in trace.provenance.doubts
    assert not any("missing by their numbers" in doubt for doubt in trace.provenance.doubts)
    roles = [
        [message["role"] for message in json.loads(text)]
        for text in trace.tables["contents"].collect()["input_messages"]
    ]
    assert [len(prompt) for prompt in roles] == list(range(2, 59, 2))


def test_the_gemma_recording_has_the_published_statistics(
    original: Callable[[str], Path],
) -> None:
    trace = load(original(GEMMA))
    frame = trace.collect()
    assert frame.height == 15
    assert frame["arrival_s"].max() == pytest.approx(1602, abs=0.5)
    assert frame["input_tokens"].null_count() == 15
    assert frame["output_tokens"].mean() == pytest.approx(90, abs=0.5)
    assert p50(frame["observed_ttft_s"].to_list()) == pytest.approx(43.9, abs=0.05)
    assert set(frame["status"]) == {"ok"}
    assert trace.provenance.sha256 == (
        "b0584127e6bfc0bd109a0bed546f573b8c20a09a644b132afcb90131d1d79486"
    )
    assert {PIECES, "1 calls are missing by their numbers (seq)."} <= set(trace.provenance.doubts)


def test_the_stamp_is_the_start(original: Callable[[str], Path]) -> None:
    """No call is stamped before the call before it has ended by its total time."""
    frame = load(original(CLAUDE)).collect()
    ends = frame["arrival_s"] + frame["observed_e2e_s"]
    gaps = (frame["arrival_s"] - ends.shift(1)).drop_nulls()
    assert gaps.min() > 0
    assert frame["delay_s"].drop_nulls().to_list() == pytest.approx(gaps.to_list())


def test_the_sample_keeps_a_failure() -> None:
    """The Gemma recording is a day older; its second call has no answer at all."""
    trace = load(SAMPLE)
    frame = trace.collect()
    assert frame["source_row"].to_list() == [3, 4, 1, 2]
    assert frame["status"].to_list() == ["ok", "http_503", None, None]
    assert frame["error"].to_list() == [None, "overloaded", None, None]
    assert frame["output_tokens"].to_list() == [11, None, 343, 177]
    assert frame["input_tokens"].to_list() == [None, None, 29812, 30189]
    assert frame["observed_ttft_s"].to_list() == pytest.approx([183.6839, None, 2.77194, 1.98978])
    assert frame["delay_s"].to_list() == pytest.approx([None, 2.31389, None, 0.002082])
    assert trace.provenance.t0 == "2026-04-20 13:31:40.481757+00:00"
    assert trace.provenance.clock == "utc"


def test_whose_pause_it_is_shows_in_the_last_message(a_file: Write) -> None:
    asked = [[{"role": role}] for role in ("user", "tool", "user", "assistant")] + [[]]
    lines = [a_line(n, 2 * n, messages=messages) for n, messages in enumerate(asked, 1)]
    frame = load(a_file("".join(lines))).collect()
    assert frame["delay_kind"].to_list() == [None, "tool", "user", "unknown", "unknown"]
    assert frame["delay_s"].to_list() == [None, 0.75, 0.75, 0.75, 0.75]


def test_zero_prompt_tokens_were_not_counted(a_file: Write) -> None:
    trace = load(a_file(a_line(prompt_tokens=0, completion_tokens=0, messages=[])))
    frame = trace.collect()
    assert frame["input_tokens"].to_list() == [None]
    assert frame["output_tokens"].to_list() == [0]
    assert PIECES not in trace.provenance.doubts


def test_a_pause_after_a_call_without_an_end_is_unknown(a_file: Write) -> None:
    frame = load(a_file(a_line() + a_line(2, 9, total_time_s=None))).collect()
    assert frame["delay_s"].to_list() == [None, 7.75]
    frame = load(a_file(a_line(total_time_s=None) + a_line(2, 9))).collect()
    assert frame["delay_s"].to_list() == [None, None]


def test_other_zones_are_the_same_moments(a_file: Write) -> None:
    later = a_line(2, timestamp="2026-04-21T13:01:02.5+02:00")
    assert load(a_file(a_line() + later)).collect()["arrival_s"].to_list() == [0.0, 2.0]


def test_numbers_that_are_missing_are_counted_by_experiment(a_file: Write) -> None:
    lines = a_line(4) + a_line(7, 5) + a_line(1, 9, experiment_id="f")
    assert "2 calls are missing by their numbers (seq)." in load(a_file(lines)).provenance.doubts


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line(timestamp="2026-04-21T11:01:50"), "not a date and time with a zone"),
        (a_line(timestamp="yesterday"), "'timestamp' is 'yesterday'"),
        (a_line(timestamp=5), r"got `int` - at `\$\.timestamp`"),
        (a_line(prompt_tokens=-3), "input_tokens is -3"),
        (a_line(completion_tokens=-3), "output_tokens is -3"),
        (a_line(completion_tokens=1.5), r"got `float` - at `\$\.completion_tokens`"),
        (a_line(ttft_ms=-1), "observed_ttft_s is -0.001"),
        (a_line(total_time_s=-1), "observed_e2e_s is -1"),
        (a_line(messages={}), r"Expected `array`, got `object` - at `\$\.messages`"),
        (a_line(messages=["hi"]), r"got `str` - at `\$\.messages\[0\]`"),
        ('{"seq": 1}\n', "missing required field `experiment_id`"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 3: .*{message}"):
        load(a_file(a_line() + "\n" + line))


def test_bad_lines_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    aside = tmp_path / "r.jsonl"
    lines = a_line() + a_line(2, 5, timestamp="?") + a_line(3, 9)
    trace = load(a_file(lines), on_error="skip", rejected=aside)
    assert trace.collect()["parents"].to_list() == [[], ["1"]]
    assert trace.provenance.rows_dropped == {"timestamp is no time": 1}
    assert "line 2" in aside.read_text()


def test_a_long_first_prompt_is_recognised(a_file: Write) -> None:
    long = [{"role": "user", "content": "x" * 100_000}]
    assert load(a_file(a_line(messages=long))).provenance.format == "swarm"
