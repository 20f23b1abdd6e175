"""Chat messages in the shapes that tracing tools write them, as plain messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from servescope.traces.tokens import texts_of

_WRAPPED_IN = ("messages", "message", "choices", "generations")
_SPEAKERS = ("assistant", "model", "ai", "AIMessage")


def decoded(value: Any) -> Any:
    """Return the JSON value that a text holds; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


def chat(value: Any) -> list[dict[str, Any]] | None:
    """Return a value as a list of chat messages, `[{"role", "content", ...}]`; None if it is none.

    Takes JSON texts, lists of messages, one message, and objects around either. The parts of the
    GenAI conventions become contents and tool_calls.
    """
    value = decoded(value)
    while isinstance(value, dict) and not _is_message(value):
        inside = next((value[key] for key in _WRAPPED_IN if value.get(key)), None)
        if inside is None:
            return None
        value = inside
    if isinstance(value, dict):
        value = [value]
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, dict) and isinstance(item.get("message"), dict) for item in value):
        value = [item["message"] for item in value]
    if not all(isinstance(item, dict) and _is_message(item) for item in value):
        return None
    return [_plain(message) for message in value]


class Texts(NamedTuple):
    """The texts of a call: the columns that `gather` keeps, and the answers in its prompt."""

    columns: dict[str, str | None]
    repeated: list[str]


def texts(asked: Any, given: Any) -> Texts:
    """Return the texts of what was asked and what was given, in whatever shape they are."""
    prompt, answer = chat(asked), chat(given)
    columns = {
        "input_messages": msgspec.json.encode(prompt).decode() if prompt else None,
        "input_text": None if prompt else _text(asked),
        "output_text": "\n".join(texts_of(answer)) if answer else _text(given),
    }
    said = ("\n".join(texts_of([m])) for m in prompt or () if m.get("role") in _SPEAKERS)
    return Texts(columns, [text for text in said if text])


def _text(value: Any) -> str | None:
    if value is None or value == "" or value == {} or value == []:
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _is_message(value: dict[str, Any]) -> bool:
    return "role" in value or "kwargs" in value


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    if "kwargs" in message:  # a message that LangChain serialised
        inner = message["kwargs"] if isinstance(message["kwargs"], dict) else {}
        path = message.get("id")
        name = path[-1] if isinstance(path, list) and path else inner.get("type")
        return {"role": name, "content": inner.get("content"), **_calls(inner.get("tool_calls"))}
    parts = message.get("parts")
    if message.get("content") is not None or not isinstance(parts, list):
        return message
    parts = [part if isinstance(part, dict) else {"content": part} for part in parts]
    calls = [part for part in parts if part.get("type") == "tool_call"]
    texts = [text for text in map(_said, parts) if text]
    return {"role": message.get("role"), "content": "\n".join(texts), **_calls(calls)}


def _calls(calls: Any) -> dict[str, Any]:
    return {"tool_calls": calls} if calls else {}


def _said(part: dict[str, Any]) -> str | None:
    for key in ("content", "text", "result", "response"):
        if part.get(key) is not None:
            return _text(part[key])
    return None
