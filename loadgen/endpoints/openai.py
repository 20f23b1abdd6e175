"""The dialect of OpenAI's completions and chat, as vLLM, SGLang, llama.cpp and others speak it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from servescope.loadgen.endpoints.dialect import Ask, Dialect, Piece

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    id: str | None = None


_NO_COUNTS = (None,) * 5
_new = tuple.__new__  # half the time of Piece(...), and there is one for every token
_decode = msgspec.json.Decoder(list[_Event]).decode


def read(events: list[bytes]) -> list[Piece]:
    """Read the events of an answer. Raises msgspec.DecodeError if one is no JSON."""
    decoded = _decode(b"[" + b",".join(events) + b"]")
    if len(decoded) != len(events):
        raise msgspec.DecodeError("an event is not one JSON object")
    return [_plain(event) or _piece(event) for event in decoded]


def _plain(event: _Event) -> Piece | None:
    """Return the piece of an event that brings text of one completion and nothing else."""
    choices = event.choices
    if event.usage is not None or event.error is not None or len(choices) != 1:
        return None
    choice = choices[0]
    if choice.delta is not None:
        return None
    return _new(
        Piece, (choice.text or "", "", False, choice.finish_reason, *_NO_COUNTS, event.id, None)
    )


def _piece(event: _Event) -> Piece:
    text, reasoning, tool, finish = "", "", False, None
    for choice in event.choices:
        delta = choice.delta
        if choice.text:
            text += choice.text
        if delta is not None:
            text += delta.content or ""
            reasoning += delta.reasoning_content or delta.reasoning or ""
            tool = tool or bool(delta.tool_calls)
        finish = finish or choice.finish_reason
    usage = event.usage
    if usage is None and event.error is None:
        return Piece(text, reasoning, tool, finish, id=event.id)
    prompt = usage.prompt_tokens_details if usage else None
    answer = usage.completion_tokens_details if usage else None
    return Piece(
        text,
        reasoning,
        tool,
        finish,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        cached_tokens=prompt.cached_tokens if prompt else None,
        reasoning_tokens=answer.reasoning_tokens if answer else None,
        error=None if event.error is None else _message(event.error),
        id=event.id,
    )


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _common(ask: Ask) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": ask.model,
        "max_tokens": ask.call.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if ask.usage_each:
        fields["stream_options"]["continuous_usage_stats"] = True
    if ask.ignore_eos:
        fields["ignore_eos"] = True
    if ask.min_tokens:
        fields["min_tokens"] = ask.call.output_tokens
    if ask.call.priority is not None:
        fields["priority"] = ask.call.priority
    return {name: value for name, value in fields.items() if name not in ask.refused}


def _completions(ask: Ask) -> dict[str, Any]:
    return {"prompt": ask.prompt, **_common(ask)}


def _chat(ask: Ask) -> dict[str, Any]:
    return {"messages": ask.messages, **_common(ask)}


COMPLETIONS = Dialect(
    "/v1/completions", "prompt", _completions, read, "prompts as token ids, exact"
)
CHAT = Dialect("/v1/chat/completions", "messages", _chat, read, "prompts as chat messages")
