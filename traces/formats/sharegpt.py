"""ShareGPT conversations: what people and a chat model said, without times or counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.formats import peek
from servescope.traces.formats.entries import entries
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

NO_TIMES = "Nothing says when calls arrived: an arrival process must be added to replay them."
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "system": "system",
}
_COLUMNS = (
    "call_id",
    "program_id",
    "turn",
    "parents",
    "delay_kind",
    "model",
    "input_messages",
    "output_text",
)


class _Message(msgspec.Struct):
    speaker: str = msgspec.field(name="from")
    value: str


class _Conversation(msgspec.Struct):
    conversations: list[_Message]
    id: str | int | None = None
    model: str | None = None


def sniff(head: bytes) -> bool:
    """Recognise conversations of messages with `from` and `value`."""
    fields = {path.removeprefix("[].") for path in peek.paths(head)}
    return fields >= {"conversations[].from", "conversations[].value"}


def read(source: Source) -> Trace:
    """Read ShareGPT: every answer is a call, and its prompt is the conversation up to it.

    A conversation is a program of calls, each of which waits for the one before.
    """
    names: set[str] = set()
    repeated = headless = silent = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal repeated, headless, silent
        for row, talk in entries(source, _Conversation):
            odd = next((m.speaker for m in talk.conversations if m.speaker not in _ROLES), None)
            if odd is not None:
                source.reject(
                    row,
                    f"a message is from {odd!r}.",
                    f"Known are {', '.join(_ROLES)}; rename the speaker.",
                    reason="speaker is not known",
                    shown=msgspec.json.encode(talk),
                )
                continue
            name = str(row if talk.id is None else talk.id)
            if name in names:
                repeated += 1
                name = f"{name} in record {row}"
            names.add(name)
            spoken = [_ROLES[message.speaker] for message in talk.conversations]
            headless += spoken[:1] == ["assistant"]
            calls = list(_calls(talk, name))
            silent += not calls
            yield from ({"source_row": row, "program_id": name, **call} for call in calls)

    trace = gather(source, tabulate(source, rows(), *_COLUMNS), format="sharegpt")
    doubts = [NO_TIMES]
    if headless:
        doubts.append(
            f"{headless} conversations begin with an answer: its prompt is not there, so it is no"
            " call of its own."
        )
    if silent:
        doubts.append(f"{silent} conversations hold no answer with a prompt and are no calls.")
    if repeated:
        doubts.append(
            f"{repeated} conversations have the id of an earlier one; each is a program of its own."
        )
    return trace.doubting(*doubts)


def _calls(talk: _Conversation, name: str) -> Iterator[dict[str, Any]]:
    said: list[str] = []  # the messages as JSON, each encoded once
    before = None
    turn = 0
    for message in talk.conversations:
        role = _ROLES[message.speaker]
        if role == "assistant" and said:
            call_id = f"{name}, {turn}"
            yield {
                "call_id": call_id,
                "turn": turn,
                "parents": [before] if before else [],
                "delay_kind": "user" if before else None,
                "model": talk.model,
                "input_messages": f"[{','.join(said)}]",
                "output_text": message.value,
            }
            before, turn = call_id, turn + 1
        said.append(msgspec.json.encode({"role": role, "content": message.value}).decode())


FORMAT = Format(
    sniff,
    read,
    "ShareGPT conversations, a JSON list or JSON lines",
    "the fields conversations, from and value",
)
