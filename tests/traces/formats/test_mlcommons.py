import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import inspect, load
from servescope.traces.errors import BadRow, NotATrace

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "mlcommons.jsonl"


def a_row(turn: int, role: str = "user", talk: str = "a", **fields: object) -> str:
    said = {"tool_results": [{"tool_call_id": "t", "content": "r"}]} if role == "tool" else {}
    row = {"conversation_id": talk, "turn": turn, "role": role, **said}
    return json.dumps({**row, **({} if said else {"content": f"{role} {turn}"}), **fields}) + "\n"


def a_talk(*roles: str, talk: str = "a", **of_tools: object) -> str:
    return "".join(
        a_row(turn, role, talk, **(of_tools if role == "tool" else {}))
        for turn, role in enumerate(roles, start=1)
    )


def prompts(path: Path) -> list[list[dict[str, Any]]]:
    return [json.loads(text) for text in contents(path)["input_messages"]]


def contents(path: Path) -> dict[str, list[Any]]:
    return load(path).tables["contents"].collect().to_dict(as_series=False)


def test_the_whole_file_has_the_published_statistics(original: Callable[[str], Path]) -> None:
    trace = load(original("mlcommons_agentic/agentic_coding_2.5h.jsonl.gz"))
    frame = trace.collect()
    assert (frame.height, frame["program_id"].n_unique()) == (1007, 20)
    assert frame.height / 20 == pytest.approx(50, abs=0.5)
    assert frame["source_row"].max() == 2014
    delays = frame["delay_s"].drop_nulls()
    assert len(delays) == 987
    assert delays.mean() == pytest.approx(0.645, abs=0.0005)
    assert (delays.min(), delays.max()) == pytest.approx((0.038, 120.1), abs=0.0005 + 0.003)
    assert set(frame["delay_kind"].drop_nulls()) == {"tool"}
    assert "arrival_s" not in frame.columns
    assert trace.provenance.sha256 == (
        "b7da8c4ffbe1cabd79c4d8169e5201541e006364b4bfc016d01d893e20ee6f70"
    )
    found = inspect(trace).structure
    assert found is not None
    assert (found.programs, found.followers, found.pauses, found.misnumbered) == (20, 987, 987, 0)


def test_a_prompt_is_everything_before_the_answer(original: Callable[[str], Path]) -> None:
    trace = load(original("mlcommons_agentic/agentic_coding_2.5h.jsonl.gz"))
    first = trace.tables["contents"].head(3).collect()
    for turn, text in enumerate(first["input_messages"]):
        roles = [message["role"] for message in json.loads(text)]
        assert roles == ["system", "user", *["assistant", "tool"] * turn]
    assert first["output_text"][0].startswith("We need to modify Django")
    assert "readonly_fields" in first["output_text"][0].splitlines()[-1]


def test_the_schema_is_no_trace(original: Callable[[str], Path]) -> None:
    with pytest.raises(NotATrace):
        load(original("mlcommons_agentic/agentic_inference_dataset_schema.json"))


def test_the_sample() -> None:
    """Two results of parallel tools are two messages, and one pause."""
    frame = load(SAMPLE).collect()
    assert frame["source_row"].to_list() == [2, 4, 6]
    assert frame["turn"].to_list() == [0, 1, 0]
    assert frame["parents"].to_list() == [[], ["2"], []]
    assert frame["delay_s"].to_list() == [None, 0.36833, None]
    asked = prompts(SAMPLE)
    assert [m["role"] for m in asked[1]] == ["system", "user", "assistant", "tool", "tool"]
    assert asked[1][3] == {
        "role": "tool",
        "tool_call_id": "functions.bash:0",
        "content": "checks.py:191",
    }
    assert asked[1][2]["reasoning_content"] == "Let us find it."
    assert asked[2] == [{"role": "user", "content": "Explain."}]
    said = contents(SAMPLE)["output_text"]
    assert said[1:] == ["It is in checks.py.", "It is so."]
    assert said[0].startswith("Let us find it.\n[{")


def test_delays_of_several_rows_add_up(a_file: Write) -> None:
    """Each is slept before its own row is sent, so they do not overlap."""
    rows = a_talk("user", "assistant", "tool", "tool", "assistant", delay_seconds=1.5)
    assert load(a_file(rows)).collect()["delay_s"].to_list() == [None, 3.0]


def test_no_delay_is_unknown_and_zero_is_zero(a_file: Write) -> None:
    rows = a_talk("user", "assistant", "tool", "assistant")
    assert load(a_file(rows)).collect()["delay_s"].to_list() == [None, None]
    rows = a_talk("user", "assistant", "tool", "assistant", delay_seconds=0)
    assert load(a_file(rows)).collect()["delay_s"].to_list() == [None, 0.0]


def test_whose_pause_it_is(a_file: Write) -> None:
    """A tool's, a user's, or of both, which is neither."""
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant", "tool", "user"]
    frame = load(a_file(a_talk(*roles, "assistant"))).collect()
    assert frame["delay_kind"].to_list() == [None, "tool", "user", "unknown"]


def test_a_delay_before_the_first_call_is_no_pause(a_file: Write) -> None:
    frame = load(a_file(a_row(1, delay_seconds=2.0) + a_row(2, "assistant"))).collect()
    assert frame["delay_s"].to_list() == [None]
    assert frame["delay_kind"].to_list() == [None]


def test_a_question_without_an_answer_is_no_call(a_file: Write) -> None:
    frame = load(a_file(a_talk("user", "assistant", "user"))).collect()
    assert frame["source_row"].to_list() == [2]


def test_texts_are_counted_on_request(a_file: Write) -> None:
    """ "user 1" and "assistant 2" have 6 and 11 bytes: 2 and 3 tokens of 4 bytes."""
    frame = load(
        a_file(a_talk("user", "assistant", "user", "assistant")), tokenizer="estimate"
    ).collect()
    assert frame["input_tokens"].to_list() == [2, 2 + 3 + 2]
    assert frame["output_tokens"].to_list() == [3, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (a_row(3, "assistant"), "turn 3 comes where turn 2 is due in conversation a"),
        (a_row(1), "turn 1 comes where turn 2 is due"),
        (a_row(1, talk="b") + a_row(2, "assistant"), "after another conversation began"),
        (a_row(2, "assistant") + a_row(3, "assistant"), "turn 3 answers neither a user nor a tool"),
        (a_row(2, "robot"), r"Invalid enum value 'robot' - at `\$\.role`"),
        (a_row(2, "tool", delay_seconds=-1), r"`float` >= 0.0 - at `\$\.delay_seconds`"),
        (a_row(2, "tool", delay_seconds="1"), r"got `str` - at `\$\.delay_seconds`"),
        (
            a_row(2, "tool", tool_results=[{}]),
            r"field `tool_call_id` - at `\$\.tool_results\[0\]`",
        ),
        ('{"conversation_id": "a", "turn": 2}\n', "missing required field `role`"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(a_file: Write, rows: str, message: str) -> None:
    bad = 1 + len(rows.splitlines())
    with pytest.raises(BadRow, match=rf"trace\.csv, line {bad}: .*{message}"):
        load(a_file(a_row(1) + rows))


def test_what_follows_a_bad_row_is_put_aside_too(a_file: Write, tmp_path: Path) -> None:
    """A prompt without one of its messages is another prompt; other conversations go on."""
    rows = a_talk("user", "assistant") + a_row(3, "tool", delay_seconds=-1) + a_row(4, "assistant")
    aside = tmp_path / "r.jsonl"
    trace = load(
        a_file(rows + a_talk("user", "assistant", talk="b")), on_error="skip", rejected=aside
    )
    assert trace.collect()["source_row"].to_list() == [2, 6]
    assert trace.provenance.rows_dropped == {"field delay_seconds": 1, "rows out of order": 1}
    assert [json.loads(line)["where"][-6:] for line in aside.read_text().splitlines()] == [
        "line 3",
        "line 4",
    ]
