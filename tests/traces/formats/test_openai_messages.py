import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import Trace, load
from servescope.traces.errors import BadRow
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.openai_messages import CREATED, FIRST_ALONE
from servescope.traces.formats.sharegpt import NO_TIMES

SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "openai_messages.jsonl"
ASKED = {"role": "user", "content": "Hello?"}
GIVEN = {"role": "assistant", "content": "Yes."}
Write = Callable[..., Path]


def lines(a_file: Write, *records: dict[str, Any], **options: Any) -> Trace:
    text = "".join(json.dumps(record) + "\n" for record in records)
    return load(a_file(text, "chats.jsonl"), **options)


def test_conversations_and_logs_are_told_apart() -> None:
    calls = load(SAMPLE, tokenizer="estimate").collect().sort("source_row", "turn")
    assert calls.select("source_row", "program_id", "turn", "parents").rows() == [
        (1, "1", 0, []),
        (1, "1", 1, ["1, 0"]),
        (2, None, None, None),
        (3, None, None, None),
        (4, None, None, None),
    ]
    assert calls["input_tokens"].to_list() == [10, 17, 9, 12, 2]
    assert calls["output_tokens"].to_list() == [2, 2, 12, 1, None]
    assert calls["observed_cached_tokens"].to_list() == [None, None, 4, None, None]
    assert calls["status"].to_list() == [None, None, "ok", "ok", "error"]
    assert calls["error"][4] == "context_length_exceeded: at most 8 tokens"
    assert calls["model"].to_list() == [None, None, "small", "small", "small"]
    assert calls["client_id"].to_list() == [None, None, "anna", None, None]


def test_times_are_epochs_or_dates() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    # 1711652795 is 2024-03-28 19:06:35 UTC.
    assert dict(zip(calls["source_row"], calls["arrival_s"], strict=True)) == {
        1: None,
        2: 0.0,
        3: 5.0,
        4: 10.0,
    }
    assert (trace.provenance.clock, trace.provenance.t0) == ("utc", "2024-03-28 19:06:35 UTC")
    assert CREATED in trace.provenance.doubts


def test_without_times_the_order_is_all_there_is(a_file: Write) -> None:
    trace = lines(a_file, {"messages": [ASKED, GIVEN]}, tokenizer="estimate")
    assert trace.provenance.doubts == (NO_TIMES,)
    assert trace.provenance.clock is None
    assert "status" not in trace.columns
    assert trace.collect()["arrival_s"].to_list() == [None]


def test_a_log_may_hold_the_answer_as_its_last_message(a_file: Write) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    trace = lines(a_file, {"messages": [ASKED, GIVEN, ASKED, GIVEN], "usage": usage})
    assert trace.collect().select("input_tokens", "output_tokens").rows() == [(3, 4)]
    contents = trace.tables["contents"].collect().row(0, named=True)
    assert json.loads(contents["input_messages"]) == [ASKED, GIVEN, ASKED]
    assert contents["output_text"] == "Yes."


def test_an_answer_to_a_tool_waited_for_the_tool(a_file: Write) -> None:
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    result = {"role": "tool", "content": "7", "tool_call_id": "c"}
    trace = lines(a_file, {"messages": [ASKED, calling, result, GIVEN, ASKED, GIVEN]})
    assert trace.collect()["delay_kind"].to_list() == [None, "tool", "user"]
    assert '"name":"f"' in trace.tables["contents"].collect()["output_text"][0]


def test_a_conversation_arrives_with_its_first_call(a_file: Write) -> None:
    trace = lines(
        a_file,
        {"messages": [ASKED, GIVEN, ASKED, GIVEN], "timestamp": 7},
        {"messages": [ASKED, GIVEN], "timestamp": 9.5},
        unit="s",
        tokenizer="estimate",
    )
    calls = trace.collect()
    assert sorted(zip(calls["call_id"], calls["arrival_s"], strict=True)) == [
        ("1, 0", 0.0),
        ("1, 1", None),
        ("2, 0", 2.5),
    ]
    assert trace.provenance.doubts == (FIRST_ALONE,)


def test_a_conversation_that_begins_with_an_answer(a_file: Write) -> None:
    trace = lines(a_file, {"messages": [GIVEN, ASKED, GIVEN]}, tokenizer="estimate")
    assert trace.collect().height == 1
    assert trace.provenance.doubts[-1] == "1 conversations begin with an answer, which is no call."


def test_a_list_of_records_is_as_good_as_lines(a_file: Write) -> None:
    records = [{"messages": [ASKED, GIVEN]}, {"messages": [ASKED]}]
    trace = load(a_file(json.dumps(records)))
    assert trace.provenance.format == "openai_messages"
    assert trace.collect()["source_row"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"messages": []}, "line 2: it has no messages"),
        ({"messages": [ASKED], "timestamp": "soon"}, "line 2: 'timestamp' is 'soon', not a time"),
        ({"messages": [ASKED], "usage": {"prompt_tokens": -1}}, "line 2: input_tokens is -1"),
        ({"messages": [ASKED], "usage": {"prompt_tokens": "x"}}, r"got `str` - at `\$.usage.prom"),
        ({"messages": [{"content": "x"}]}, "line 2: Object missing required field `role`"),
        ({"messages": "x"}, r"line 2: Expected `array`, got `str` - at `\$.messages`"),
    ],
)
def test_a_bad_line_is_named(a_file: Write, bad: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        lines(a_file, {"messages": [ASKED]}, bad)


def test_bad_lines_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    good, bad = {"messages": [ASKED]}, {"messages": []}
    trace = lines(a_file, good, bad, good, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["source_row"].to_list() == [1, 3]
    assert trace.provenance.rows_dropped == {"no messages": 1}


def test_only_fields_of_the_api_are_recognised() -> None:
    sniff = BUILT_IN["openai_messages"].sniff
    head = SAMPLE.read_bytes()
    assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["openai_messages"]
    assert not sniff(b'{"messages":[{"role":"user"}],"session_id":1}')
    assert not sniff(b'{"messages":[{"text":"x"}]}')
    long = b'{"messages":[{"role":"user","content":"' + b"x" * 70_000
    assert not sniff(long[:65_536])  # what comes after is not seen yet
    assert sniff(long + b'"}]}\n')
