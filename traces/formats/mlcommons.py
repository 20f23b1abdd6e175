"""MLCommons agentic conversations: one message a line, and how long each tool took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from servescope.traces.formats import jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.tokens import texts_of
from servescope.traces.trace import Trace

_COLUMNS = (
    "program_id",
    "turn",
    "parents",
    "delay_s",
    "delay_kind",
    "model",
    "input_messages",
    "output_text",
)


class _Result(msgspec.Struct):
    tool_call_id: str
    content: str


class _Row(msgspec.Struct):
    conversation_id: str
    turn: int
    role: Literal["user", "assistant", "tool"]
    content: str | None = None
    system: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_results: list[_Result] | None = None
    delay_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    model: str | None = None


@dataclass(slots=True)
class _Conversation:
    """What has been said so far, and what has happened since the last call."""

    name: str
    rows: int = 0
    calls: int = 0
    last_call: int | None = None
    system: list[msgspec.Raw] = field(default_factory=list)
    messages: list[msgspec.Raw] = field(default_factory=list)
    waits_for: set[str] = field(default_factory=set)
    pause_s: float | None = None


def sniff(head: bytes) -> bool:
    """Recognise a message that has a conversation and a turn."""
    return peek.paths(head) >= {"conversation_id", "turn", "role"}


def read(source: Source) -> Trace:
    """Read conversations: a call is every message of the assistant, asked with all before it."""
    return gather(
        source,
        tabulate(source, _calls(source), *_COLUMNS),
        format="mlcommons",
        units="seconds, of pauses only",
        inferred={"parents": "the order of the messages within a conversation"},
    )


def _calls(source: Source) -> Iterator[dict[str, Any]]:
    talk, begun = _Conversation(""), set[str]()
    for number, row in jsonl.records(source, _Row):
        if row.conversation_id != talk.name and row.conversation_id not in begun:
            talk = _Conversation(row.conversation_id)
            begun.add(talk.name)
        problem = _problem(talk, row)
        if problem:
            source.reject(
                number,
                f"{problem} in conversation {row.conversation_id}.",
                "Write the rows of a conversation together, in order, as turns 1, 2, 3, ...",
                reason="rows out of order",
            )
            continue
        talk.rows += 1
        if row.role == "assistant":
            yield _call(talk, row, number)
            talk.calls += 1
            talk.last_call, talk.pause_s = number, None
            talk.waits_for.clear()
        else:
            talk.waits_for.add(row.role)
            if row.delay_seconds is not None:
                talk.pause_s = (talk.pause_s or 0.0) + row.delay_seconds
        talk.messages += map(_encoded, _messages(row))
        if row.system is not None:
            talk.system = [_encoded({"role": "system", "content": row.system})]


def _problem(talk: _Conversation, row: _Row) -> str | None:
    """Say why a row cannot follow; what follows a missing row has lost a part of its prompt."""
    if row.conversation_id != talk.name:
        return "a row comes after another conversation began"
    if row.turn != talk.rows + 1:
        return f"turn {row.turn} comes where turn {talk.rows + 1} is due"
    if row.role == "assistant" and not talk.waits_for:
        return f"turn {row.turn} answers neither a user nor a tool"
    return None


def _call(talk: _Conversation, row: _Row, number: int) -> dict[str, Any]:
    follows = talk.last_call is not None
    kind = next(iter(talk.waits_for)) if len(talk.waits_for) == 1 else "unknown"
    said = [row.reasoning_content or "", *texts_of(_messages(row))]
    return {
        "source_row": number,
        "program_id": talk.name,
        "turn": talk.calls,
        "parents": [str(talk.last_call)] if follows else [],
        "delay_s": talk.pause_s if follows else None,
        "delay_kind": kind if follows else None,
        "model": row.model,
        "input_messages": msgspec.json.encode(talk.system + talk.messages).decode(),
        "output_text": "\n".join(filter(None, said)) or None,
    }


def _messages(row: _Row) -> list[dict[str, Any]]:
    """Return a row as the chat messages that are sent: results of parallel tools are one each."""
    if row.tool_results is not None:
        return [{"role": "tool", **msgspec.structs.asdict(result)} for result in row.tool_results]
    said = {
        "content": row.content,
        "reasoning_content": row.reasoning_content,
        "tool_calls": row.tool_calls,
    }
    return [{"role": row.role, **{name: value for name, value in said.items() if value}}]


def _encoded(message: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(message))


FORMAT = Format(
    sniff,
    read,
    "MLCommons agentic conversations, JSON lines of messages",
    "the fields conversation_id, turn and role",
)
