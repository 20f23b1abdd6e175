"""The dialect of OpenAI's completions and chat, as vLLM, SGLang, llama.cpp and others speak it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from servescope.loadgen.endpoints.dialect import Dialect, Piece
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


def read(data: bytes) -> Piece:
    """Read the data of one server-sent event. Raises msgspec.DecodeError for what is not JSON."""
    event = _decode(data)
    text, finish = False, None
    for choice in event.choices:
        delta = choice.delta
        text = text or bool(
            choice.text or (delta and (delta.content or delta.reasoning_content or delta.reasoning))
        )
        finish = finish or choice.finish_reason
    usage = event.usage
    if usage is None and event.error is None:
        return Piece(text, finish)
    prompt = usage.prompt_tokens_details if usage else None
    answer = usage.completion_tokens_details if usage else None
    return Piece(
        has_text=text,
        finish=finish,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        cached_tokens=prompt.cached_tokens if prompt else None,
        reasoning_tokens=answer.reasoning_tokens if answer else None,
        error=None if event.error is None else _message(event.error),
    )


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _completions(call: Call, prompts: Prompts) -> dict[str, Any]:
    return {"prompt": prompts.token_ids(call).tolist(), "max_tokens": call.output_tokens}


def _chat(call: Call, prompts: Prompts) -> dict[str, Any]:
    message = {"role": "user", "content": prompts.text(call)}
    return {"messages": [message], "max_tokens": call.output_tokens}


COMPLETIONS = Dialect("/v1/completions", _completions, read, "prompts as token ids, exact")
CHAT = Dialect("/v1/chat/completions", _chat, read, "prompts as words, about as many as tokens")
