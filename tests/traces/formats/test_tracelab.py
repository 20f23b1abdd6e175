import json
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow, NotATrace
from servescope.traces.formats import tracelab
from servescope.traces.formats.gather import MOVED

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "tracelab"
ROUNDS = "tracelab/sanitized_round_trace.jsonl"
HEADER = "session_id,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms\n"


def at(second: float) -> str:
    return f"2026-06-01T05:40:{second:06.3f}Z"


def events(*told: tuple[str, float]) -> list[dict[str, str]]:
    return [{"event_type": kind, "timestamp": at(second)} for kind, second in told]


def a_round(*told: tuple[str, float], **fields: object) -> str:
    line = {
        "session_id": "s",
        "input_tokens_total": 10,
        "prefix_tokens": 7,
        "newly_append_tokens": 3,
        "output_tokens": 5,
        "timing_events": events(*(told or (("user_message", 0), ("text", 1)))),
    }
    return json.dumps({**line, **fields}) + "\n"


def test_the_rounds_have_the_published_statistics(original: Callable[[str], Path]) -> None:
    path = original(ROUNDS)
    trace = load(path)
    frame = trace.collect()
    assert (frame.height, frame["program_id"].n_unique()) == (19, 2)
    cached, asked = sum(frame["observed_cached_tokens"]), sum(frame["input_tokens"])
    assert cached / asked == pytest.approx(0.921, abs=5e-4)
    tools = [tool for line in path.read_text().splitlines() for tool in json.loads(line)["tools"]]
    assert len(tools) == 19
    known = trace.provenance
    assert known.sha256 == "314c49483148fe68e230a683f739e3e6e68d478948ecf342739596f30af36b57"
    assert (known.format, known.licence, known.tick_s) == ("tracelab", "CC-BY-4.0", 1e-3)
    assert (known.t0, known.clock, known.kind) == ("2026-03-21 10:05:59.328 UTC", "utc", "real")
    assert known.doubts == (MOVED,)
    assert frame["arrival_s"][-1] > 71 * 86_400  # the two examples lie months apart


def test_a_pause_is_the_wall_latency_of_the_last_tool(original: Callable[[str], Path]) -> None:
    path = original(ROUNDS)
    frame = load(path).collect().sort("source_row")
    tools = [json.loads(line)["tools"] for line in path.read_text().splitlines()]
    paused = 0
    rows = zip(frame["delay_kind"], frame["delay_s"], [[], *tools[:-1]], strict=True)
    for kind, delay_s, before in rows:
        if kind == "tool":
            last = max(before, key=lambda tool: tool["result_at"])
            assert delay_s == pytest.approx(last["tool_wall_latency_ms"] / 1000, abs=1e-6)
            paused += 1
    assert paused == 14
    assert (frame["delay_kind"] == "user").sum() == 3
    assert frame["delay_kind"].null_count() == 2
    index = [json.loads(line)["round_index"] for line in path.read_text().splitlines()]
    assert frame["turn"].to_list() == index


@pytest.mark.parametrize(
    ("name", "rounds", "sessions", "digest"),
    [
        ("session_workload_example", 11, 1, "66ce858afdba777608398bd1c8e073feedcb26a6b4f1dfb7b40"),
        ("multi_session_example", 8, 3, "cc1517d38aa314ed0182bc4fb4bcd34e7a9070b3fae2b9865bd8cd0"),
    ],
)
def test_the_replay_examples(
    original: Callable[[str], Path], name: str, rounds: int, sessions: int, digest: str
) -> None:
    trace = load(original(f"tracelab/{name}.csv"))
    frame = trace.collect()
    assert (frame.height, frame["program_id"].n_unique()) == (rounds, sessions)
    assert str(trace.provenance.sha256).startswith(digest)
    assert (trace.provenance.kind, trace.provenance.doubts) == ("derived", ())


def test_the_summary_is_no_trace(original: Callable[[str], Path]) -> None:
    with pytest.raises(NotATrace):
        load(original("tracelab/summary.json"))


def test_the_sample_of_rounds() -> None:
    """The last round is one of Codex of March, the others are two of Claude Code of June."""
    trace = load(SAMPLE / "rounds.jsonl")
    frame = trace.collect()
    assert frame["source_row"].to_list() == [3, 1, 2]
    assert frame["model"].to_list() == ["gpt-5.4", "claude-opus-4-8", "claude-opus-4-8"]
    assert frame["call_class"].to_list() == ["tool_result"] * 3
    assert frame["input_tokens"].to_list() == [12097, 41131, 41589]
    assert frame["output_tokens"].to_list() == [49, 117, 1275]
    assert frame["observed_cached_tokens"].to_list() == [9216, 38590, 41129]
    assert frame["observed_reasoning_tokens"].to_list() == [0, None, None]
    assert frame["observed_e2e_s"].to_list() == pytest.approx([1.152, 2.681, 15.112])
    assert frame["parents"].to_list() == [[], [], ["1"]]
    assert frame["delay_s"].to_list() == [None, None, pytest.approx(0.145)]
    assert "status" not in frame.columns


def test_a_round_arrives_with_what_was_last_said_before_its_answer(a_file: Write) -> None:
    """The second message was typed while the answer came: the next round takes it up."""
    told = ("tool_result", 1.0), ("user_message", 2.0), ("reasoning", 3.5), ("user_message", 4.0)
    first = a_round(("user_message", 0), ("text", 0.5), ("tool_call", 0.75))
    frame = load(a_file(first + a_round(*told, ("text", 5.0)))).collect()
    assert frame["arrival_s"].to_list() == [0.0, 2.0]
    assert frame["observed_e2e_s"].to_list() == [0.75, 3.0]
    assert frame["delay_s"].to_list() == [None, 1.25]
    assert frame["delay_kind"].to_list() == [None, "user"]


def test_a_round_that_nobody_asked_for_arrives_with_its_first_event(a_file: Write) -> None:
    lines = a_round() + a_round(("text", 3.0), ("tool_call", 4.5), ("usage_report", 5))
    trace = load(a_file(lines))
    frame = trace.collect()
    assert frame["arrival_s"].to_list() == [0.0, 3.0]
    assert frame["observed_e2e_s"].to_list() == [1.0, 1.5]
    assert frame["delay_kind"].to_list() == [None, "unknown"]
    assert trace.provenance.doubts == (
        "1 rounds have no message or tool result before their answer; they arrive with their first"
        " event.",
    )


def test_without_an_answer_its_end_is_unknown(a_file: Write) -> None:
    frame = load(a_file(a_round(("user_message", 0)) + a_round(("user_message", 9)))).collect()
    assert frame["observed_e2e_s"].to_list() == [None, None]
    assert frame["delay_s"].to_list() == [None, None]
    assert frame["parents"].to_list() == [[], ["1"]]


def test_a_prompt_is_what_was_cached_and_what_is_new(a_file: Write) -> None:
    lines = (
        a_round(input_tokens_total=None),
        a_round(input_tokens_total=11),
        a_round(input_tokens_total=12, prefix_tokens=None),
        a_round(input_tokens_total=None, newly_append_tokens=None),
    )
    trace = load(a_file("".join(lines)))
    assert trace.collect()["input_tokens"].to_list() == [10, 11, 12, None]
    assert trace.provenance.doubts == (
        "In 1 rounds input_tokens_total is not the sum of prefix_tokens and newly_append_tokens.",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_round(timing_events=[]), "its 'timing_events' are empty"),
        (
            a_round(timing_events=[{"event_type": "text", "timestamp": "2026-06-01T05:40:20"}]),
            "a 'timestamp' is '2026-06-01T05:40:20', not a date and time with a zone",
        ),
        (a_round(timing_events=[{"event_type": "text"}]), "missing required field `timestamp`"),
        (a_round(prefix_tokens="7"), r"Expected `int \| null`, got `str` - at `\$\.prefix_tokens`"),
        (a_round(session_id=None), r"got `null` - at `\$\.session_id`"),
        (a_round(output_tokens=-1), "output_tokens is -1"),
        ("{}\n", "missing required field `session_id`"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 2: .*{message}"):
        load(a_file(a_round() + line))


def test_bad_lines_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    aside = tmp_path / "r.jsonl"
    lines = a_round() + a_round(timing_events=[]) + a_round(("user_message", 2), ("text", 3))
    trace = load(a_file(lines), on_error="skip", rejected=aside)
    assert trace.collect()["parents"].to_list() == [[], ["1"]]
    assert trace.provenance.rows_dropped == {"no timing_events": 1}
    assert "line 2" in json.loads(aside.read_text())["where"]


def test_a_replay_waits_for_the_tool_of_the_round_before() -> None:
    """Only the first round of a session has an arrival: the others wait for their tools."""
    trace = load(SAMPLE / "replay.csv")
    frame = trace.collect()
    assert frame["turn"].to_list() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert frame["arrival_s"].to_list() == [0.0, None, None, 0.2, None, 0.5, None, None]
    assert frame["parents"].to_list() == [[], ["1"], ["2"], [], ["4"], [], ["6"], ["7"]]
    assert frame["delay_s"].to_list() == [None, 0.1, 0.1, None, 0.08, None, 0.05, 0.05]
    assert frame["input_tokens"].to_list() == [512, 704, 896, 400, 548, 600, 784, 864]
    assert frame["observed_cached_tokens"].to_list() == [0, 576, 768, 0, 448, 0, 664, 784]
    assert (trace.provenance.clock, trace.provenance.t0_ns) == ("source", 0)


def test_a_replay_may_leave_the_arrivals_out(a_file: Write) -> None:
    trace = load(a_file(HEADER + "a,0,0,5,1,20\nb,3,0,6,1,\na,1,6,2,1,0\nb,7,6,2,1,0\n"))
    frame = trace.collect()
    assert "arrival_s" not in frame.columns
    assert frame["parents"].to_list() == [[], [], ["1"], ["2"]]
    assert frame["turn"].to_list() == [0, 0, 1, 1]
    assert frame["delay_s"].to_list() == [None, None, 0.02, None]
    assert (trace.provenance.clock, trace.provenance.t0) == (None, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("s,0,0,5,1,0", "its round_idx 0 comes after 0 in session s"),
        (",1,0,5,1,0", "does not say which round of which session"),
        ("s,,0,5,1,0", "does not say which round of which session"),
        ("s,1,0,-5,1,0", "a length or a wait is negative"),
        ("s,1,0,5,1,-3", "a length or a wait is negative"),
        ("s,1,0,5,x,0", "'output_len' is 'x', not a whole number"),
        ("s,1,0,5,1", "it has 5 cells, the header has 6"),
    ],
)
def test_a_replay_row_that_makes_no_sense_is_named(a_file: Write, row: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 3: .*{message}"):
        load(a_file(f"{HEADER}s,0,0,5,1,0\n{row}\n"))


def test_an_arrival_that_is_no_moment_is_named(a_file: Write) -> None:
    header = HEADER.replace("session_id,", "session_id,arrival_time,")
    with pytest.raises(BadRow, match=r"trace\.csv, line 2: its timestamp 'soon' is no moment"):
        load(a_file(header + "s,soon,0,0,5,1,0\n"))
    frame = load(a_file(header + "s,1.5,0,0,5,1,0\nt,4,0,0,5,1,0\n"), unit="s").collect()
    assert frame["arrival_s"].to_list() == [0.0, 2.5]


def test_other_files_are_not_claimed() -> None:
    assert not tracelab.sniff(b'{"session_id": "s", "prefix_tokens": 1}')
    assert not tracelab.sniff(b"session_id,round_idx,input_len,output_len\n")
    assert not tracelab.sniff(b"")
