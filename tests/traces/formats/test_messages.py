import json
from typing import Any

import pytest

from servescope.traces.formats import messages

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "value",
    [
        [USER],
        json.dumps([USER]),
        USER,
        {"messages": [USER], "model": "m"},
        {"messages": [[USER]]},
        {"choices": [{"index": 0, "message": USER}]},
        [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}],
        {"messages": [[{"id": ["langchain", "user"], "kwargs": {"content": "hi"}}]]},
    ],
)
def test_every_shape_is_one_chat(value: Any) -> None:
    assert messages.chat(value) == [USER]


@pytest.mark.parametrize("value", [None, "hi", "[1, 2]", [], {}, {"prompt": "hi"}, "{", 7, [None]])
def test_what_is_no_chat_is_none(value: Any) -> None:
    assert messages.chat(value) is None


def test_calls_of_tools_stay_and_their_results_are_text() -> None:
    call = {"type": "tool_call", "id": "c", "name": "f", "arguments": {}}
    result = {"type": "tool_call_response", "id": "c", "result": {"degrees": 9}}
    chat = messages.chat(
        [{"role": "assistant", "parts": [call]}, {"role": "tool", "parts": [result]}]
    )
    assert chat == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"degrees":9}'},
    ]


def test_texts_become_columns() -> None:
    assert messages.texts([USER], {"role": "assistant", "content": "ho"}).columns == {
        "input_messages": '[{"role":"user","content":"hi"}]',
        "input_text": None,
        "output_text": "ho",
    }
    assert messages.texts({"prompt": "hi"}, "ho").columns == {
        "input_messages": None,
        "input_text": '{"prompt":"hi"}',
        "output_text": "ho",
    }
    assert set(messages.texts(None, "").columns.values()) == {None}
    assert set(messages.texts({}, []).columns.values()) == {None}


def test_only_the_model_is_heard() -> None:
    said = [USER, {"role": "assistant", "content": "a"}, {"role": "model", "content": "b"}]
    assert messages.texts(said, "c").repeated == ["a", "b"]
    assert messages.texts(None, None).repeated == []
