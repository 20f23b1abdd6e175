import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.sharegpt import NO_TIMES

SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "sharegpt.json"
Write = Callable[..., Path]


def talk(*said: tuple[str, Any], name: object = "t") -> dict[str, Any]:
    return {"id": name, "conversations": [{"from": who, "value": what} for who, what in said]}


def test_every_answer_is_a_call_with_the_conversation_so_far() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert trace.provenance.format == "sharegpt"
    assert calls["call_id"].to_list() == ["talk_0, 0", "talk_0, 1", "talk_1, 0"]
    assert calls["program_id"].to_list() == ["talk_0", "talk_0", "talk_1"]
    assert calls["turn"].to_list() == [0, 1, 0]
    assert calls["parents"].to_list() == [[], ["talk_0, 0"], []]
    assert calls["delay_kind"].to_list() == [None, "user", None]
    assert calls["delay_s"].null_count() == 3
    assert calls["source_row"].to_list() == [1, 1, 2]
    assert "arrival_s" not in calls.columns
    texts = trace.tables["contents"].collect()
    assert texts["output_text"].to_list() == ["Jupiter.", "Mercury.", "That was all."]
    assert json.loads(texts["input_messages"][1]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which planet is the largest?"},
        {"role": "assistant", "content": "Jupiter."},
        {"role": "user", "content": "And the smallest?"},
    ]
    assert json.loads(texts["input_messages"][2])[0] == {
        "role": "assistant",
        "content": "... as I said before.",
    }


def test_what_is_no_call_is_said() -> None:
    assert load(SAMPLE, tokenizer="estimate").provenance.doubts == (
        NO_TIMES,
        "1 conversations begin with an answer: its prompt is not there, so it is no call of its"
        " own.",
        "1 conversations hold no answer with a prompt and are no calls.",
    )


def test_tokens_are_counted_only_if_a_tokenizer_is_named() -> None:
    assert load(SAMPLE).collect()["input_tokens"].null_count() == 3
    counted = load(SAMPLE, tokenizer="estimate").collect()
    # 4 bytes a token: 9 and 28 bytes, then 8 and 17 more.
    assert counted["input_tokens"].to_list()[:2] == [3 + 7, 3 + 7 + 2 + 5]
    assert counted["output_tokens"].to_list() == [2, 2, 4]


def test_lines_are_read_as_the_list_is(a_file: Write) -> None:
    talks = json.loads(SAMPLE.read_text())
    lines = load(a_file("".join(json.dumps(t) + "\n" for t in talks), "t.jsonl"))
    assert lines.collect().equals(load(SAMPLE).collect())


def test_an_id_that_comes_again_is_another_program(a_file: Write) -> None:
    talks = [talk(("human", "a"), ("gpt", "b")), talk(("user", "c"), ("assistant", "d"))]
    talks += [talk(("human", "e"), ("gpt", "f"), name=None)]
    trace = load(a_file(json.dumps(talks)), tokenizer="estimate")
    assert trace.collect()["program_id"].to_list() == ["t", "t in record 2", "3"]
    assert trace.provenance.doubts == (
        NO_TIMES,
        "1 conversations have the id of an earlier one; each is a program of its own.",
    )


def test_two_answers_in_a_row_are_two_calls(a_file: Write) -> None:
    path = a_file(json.dumps([talk(("human", "a"), ("gpt", "b"), ("gpt", "c"))]))
    trace = load(path, tokenizer="estimate")
    assert trace.collect()["input_tokens"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (talk(("human", "a"), ("parrot", "b")), "record 2: a message is from 'parrot'"),
        (talk(("human", 5)), r"record 2: Expected `str`, got `int` - at `\$.conversations\[0\]"),
        ({"id": 1, "conversations": [{"from": "human"}]}, "missing required field `value`"),
        ({"id": 1}, "missing required field `conversations`"),
    ],
)
def test_a_bad_record_is_named(a_file: Write, bad: object, said: str) -> None:
    with pytest.raises(BadRow, match=said):
        load(a_file(json.dumps([talk(("human", "a"), ("gpt", "b")), bad])))


def test_bad_records_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    path = a_file(json.dumps([talk(("parrot", "a")), talk(("human", "a"), ("gpt", "b"))]))
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["source_row"].to_list() == [2]
    assert trace.provenance.rows_dropped == {"speaker is not known": 1}


def test_nothing_else_recognises_it() -> None:
    head = SAMPLE.read_bytes()
    assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["sharegpt"]
    assert BUILT_IN["sharegpt"].sniff(head[:400])
