"""Chats as the OpenAI API writes them: training examples, and logs of requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from servescope.traces.formats import peek
from servescope.traces.formats.entries import entries
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.sharegpt import NO_TIMES
from servescope.traces.formats.source import HEAD_BYTES, Source
from servescope.traces.formats.stamps import Stamps
from servescope.traces.schema import GROUPS
from servescope.traces.status import FAILED, OK
from servescope.traces.tokens import texts_of
from servescope.traces.trace import Trace

FIRST_ALONE = (
    "A conversation with a time has it for its first call alone; its later calls have no arrival."
)
CREATED = (
    "Arrivals are the `created` of answers: whole seconds, when the server took a call up and not"
    " when it was sent."
)
# What a record may hold beside its messages; a file with any other field is of another format.
_LOG = ("usage", "response", "created", "timestamp", "error", "id", "object", "metadata")
_PARAMETERS = (
    "model",
    "user",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "n",
    "stop",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "reasoning_effort",
    "service_tier",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
)
_COLUMNS = (
    "stamp_ns",
    "call_id",
    "program_id",
    "turn",
    "parents",
    "delay_kind",
    "client_id",
    "model",
    "input_tokens",
    "output_tokens",
    "status",
    "error",
    "observed_cached_tokens",
    "observed_reasoning_tokens",
    "input_messages",
    "output_text",
)


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """What an answer cost, by the names of chat completions and by those of responses."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    @property
    def columns(self) -> dict[str, int | None]:
        """The counts by canonical name."""
        into = self.prompt_tokens_details or self.input_tokens_details or _InputDetails()
        out = self.completion_tokens_details or self.output_tokens_details or _OutputDetails()
        asked, given = self.prompt_tokens, self.completion_tokens
        return {
            "input_tokens": self.input_tokens if asked is None else asked,
            "output_tokens": self.output_tokens if given is None else given,
            "observed_cached_tokens": into.cached_tokens,
            "observed_reasoning_tokens": out.reasoning_tokens,
        }


class _Message(msgspec.Struct, omit_defaults=True):
    role: str
    content: Any = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    name: str | None = None
    tool_call_id: str | None = None


class Answer(msgspec.Struct):
    """A response of the API: chat completions, completions, responses or embeddings."""

    object: str | None = None
    model: str | None = None
    created: int | float | str | None = None
    usage: Usage | None = None
    choices: list[dict[str, Any]] | None = None
    output: list[Any] | str | None = None
    error: Any = None

    @property
    def text(self) -> str | None:
        """All that was generated, tool calls included."""
        if isinstance(self.output, str):
            return self.output
        generated = [choice.get("message", choice) for choice in self.choices or ()]
        plain = [c["text"] for c in self.choices or () if isinstance(c.get("text"), str)]
        return "\n".join(plain or texts_of(generated + (self.output or []))) or None


class _Record(msgspec.Struct):
    messages: list[_Message]
    model: str | None = None
    user: str | None = None
    usage: Usage | None = None
    response: Answer | str | None = None
    created: int | float | str | None = None
    timestamp: int | float | str | None = None
    error: Any = None


def sniff(head: bytes) -> bool:
    """Recognise messages with roles, and no field beside them that the API does not have."""
    fields = {path.removeprefix("[].") for path in peek.paths(head)}
    names = {path.partition(".")[0].removesuffix("[]") for path in fields} - {"", "messages"}
    return (
        "messages[].role" in fields
        and names <= {*_LOG, *_PARAMETERS}
        and not (len(head) >= HEAD_BYTES and b"\n" not in head)  # more fields may follow
    )


def read(source: Source) -> Trace:
    """Read chats. A record is one call if it logs a request: usage, a response or an error is
    there, or the last word is not the model's. Else it is a conversation, and every answer in it
    is a call whose prompt is what came before.
    """
    stamps = Stamps("", source.options.unit)
    timed = logs = talks_with_time = from_created = headless = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal timed, logs, talks_with_time, from_created, headless
        for row, record in entries(source, _Record):
            spoken = _spoken(source, row, record)
            if spoken is None:
                continue
            key, when = _when(record)
            stamp = None if when is None else stamps.one(when)
            if when is not None and stamp is None:
                source.reject(
                    row,
                    f"'{key}' is {when!r}, not a time.",
                    "Write a number or a date and time, or leave it out.",
                    reason=f"{key} is no time",
                )
                continue
            timed += stamp is not None
            from_created += key == "created"
            if _is_log(record, spoken):
                logs += 1
                call = {"call_id": str(row), **_logged(record, spoken)}
                yield {"source_row": row, "stamp_ns": stamp, **call}
                continue
            headless += spoken[0].role == "assistant"
            talks_with_time += stamp is not None and sum(m.role == "assistant" for m in spoken) > 1
            for call in _answers(record, spoken, str(row)):
                yield {"source_row": row, "stamp_ns": None if call["turn"] else stamp, **call}

    trace = gather(
        source,
        tabulate(source, rows(), *_COLUMNS),
        format="openai_messages",
        t0=stamps.t0,
    )
    if not logs:
        silent = {*GROUPS["outcome"], *GROUPS["observed"]}
        kept = [name for name in trace.columns if name not in silent]
        trace = replace(trace, frame=trace.frame.select(kept))
    doubts = stamps.doubts if timed else [NO_TIMES]
    if timed:
        zero_ns = trace.provenance.t0_ns or 0
        trace = trace.known(units=stamps.units, clock=stamps.clock(zero_ns))
    if from_created:
        doubts.append(CREATED)
    if talks_with_time:
        doubts.append(FIRST_ALONE)
    if headless:
        doubts.append(f"{headless} conversations begin with an answer, which is no call.")
    return trace.doubting(*doubts)


def _spoken(source: Source, row: int, record: _Record) -> list[_Message] | None:
    if record.messages:
        return record.messages
    source.reject(
        row,
        "it has no messages.",
        "A call has a prompt; mend the record.",
        reason="no messages",
        shown=msgspec.json.encode(record),
    )
    return None


def _when(record: _Record) -> tuple[str, int | float | str | None]:
    """Return what the record says of its time, and the field that says so."""
    if record.timestamp is not None:
        return "timestamp", record.timestamp
    created = record.created
    if created is None and isinstance(record.response, Answer):
        created = record.response.created
    return ("", None) if created is None else ("created", created)


def _is_log(record: _Record, spoken: list[_Message]) -> bool:
    recorded = record.usage or record.response or record.error
    return recorded is not None or spoken[-1].role != "assistant"


def _logged(record: _Record, spoken: list[_Message]) -> dict[str, Any]:
    answer = record.response if isinstance(record.response, Answer) else Answer()
    text = record.response if isinstance(record.response, str) else answer.text
    if record.response is None and len(spoken) > 1 and spoken[-1].role == "assistant":
        *spoken, last = spoken
        text = _text(last)
    error = record.error if record.error is not None else answer.error
    usage = record.usage or answer.usage
    done = text is not None or usage is not None
    return {
        "client_id": record.user,
        "model": record.model or answer.model,
        **(usage.columns if usage else {}),
        "status": FAILED if error is not None else OK if done else None,
        "error": said(error),
        "input_messages": _chat(spoken),
        "output_text": text,
    }


def _answers(record: _Record, spoken: list[_Message], name: str) -> Iterator[dict[str, Any]]:
    before, turn = None, 0
    for place, message in enumerate(spoken):
        if message.role != "assistant" or not place:
            continue
        call_id = f"{name}, {turn}"
        yield {
            "call_id": call_id,
            "program_id": name,
            "turn": turn,
            "parents": [before] if before else [],
            "delay_kind": _whose(spoken[place - 1]) if before else None,
            "client_id": record.user,
            "model": record.model,
            "input_messages": _chat(spoken[:place]),
            "output_text": _text(message),
        }
        before, turn = call_id, turn + 1


def _whose(last: _Message) -> str:
    return {"user": "user", "tool": "tool", "function": "tool"}.get(last.role, "unknown")


def _chat(spoken: list[_Message]) -> str:
    return msgspec.json.encode(spoken).decode()


def _text(message: _Message) -> str | None:
    return "\n".join(texts_of([msgspec.to_builtins(message)])) or None


def said(error: Any) -> str | None:
    """Return what an error says, in whatever shape it is."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    if isinstance(error, dict):
        words = [str(error[key]) for key in ("code", "message") if error.get(key)]
        return ": ".join(words) or msgspec.json.encode(error).decode()
    return None if error is None else str(error)


FORMAT = Format(
    sniff,
    read,
    "OpenAI chats: training examples (every answer is a call) or logged requests",
    "the field messages with roles, beside fields of the OpenAI API alone",
)
