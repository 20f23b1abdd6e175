"""The dialect of OpenAI's completions and chat, as vLLM, SGLang, llama.cpp and others speak it."""

from __future__ import annotations

from typing import Any

import msgspec

from servescope.loadgen.endpoints.dialect import Ask, Count, Dialect, Piece, decoder, message_of


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class Timings(msgspec.Struct, gc=False):
    """What llama.cpp says of the tokens it computed; `prompt_n` leaves out the cached ones."""

    prompt_n: Count | None = None
    cache_n: Count | None = None
    predicted_n: Count | None = None

    def counts(self) -> tuple[int | None, int | None, int | None]:
        """Return the tokens of the prompt, of the answer so far, and the cached ones."""
        read = self.prompt_n
        return (
            None if read is None else read + (self.cache_n or 0),
            self.predicted_n,
            self.cache_n,
        )


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    token_ids: list[Any] | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: Timings | None = None
    error: Any = None
    id: str | None = None


_NO_COUNTS = (None,) * 5
_ABORTED = "abort"  # what vLLM and SGLang say of an answer that they gave up
_new = tuple.__new__  # half the time of Piece(...), and there is one for every token
_decode = decoder(_Event)


def read(events: list[bytes]) -> list[Piece]:
    """Read the events of an answer. Raises msgspec.DecodeError if one is no JSON."""
    return [_plain(event) or _piece(event) for event in _decode(events)]


def _plain(event: _Event) -> Piece | None:
    """Return the piece of an event that brings text of one completion and nothing else."""
    choices = event.choices
    if event.usage or event.timings or event.error is not None or not choices or choices[1:]:
        return None
    choice = choices[0]
    if choice.delta or choice.token_ids or choice.finish_reason == _ABORTED:
        return None
    return _new(
        Piece,
        (choice.text or "", "", False, choice.finish_reason, *_NO_COUNTS, event.id, None, True),
    )


def _piece(event: _Event) -> Piece:
    text, reasoning, tool, finish, tokens = "", "", False, None, None
    for choice in event.choices or ():
        text += choice.text or ""
        finish = finish or choice.finish_reason
        if choice.token_ids:
            tokens = (tokens or 0) + len(choice.token_ids)
        if delta := choice.delta:
            text += delta.content or ""
            reasoning += delta.reasoning_content or delta.reasoning or ""
            tool = tool or bool(delta.tool_calls)
    prompt = made = cached = thought = None
    if usage := event.usage:
        prompt, made = usage.prompt_tokens, usage.completion_tokens
        if usage.prompt_tokens_details:
            cached = usage.prompt_tokens_details.cached_tokens
        if usage.completion_tokens_details:
            thought = usage.completion_tokens_details.reasoning_tokens
    elif event.timings:
        prompt, made, cached = event.timings.counts()
    error = None if event.error is None else message_of(event.error)
    if finish == _ABORTED and error is None:
        error = "the server aborted the request"
    return _new(
        Piece,
        (
            text, reasoning, tool, finish, prompt, made, cached, thought, error, event.id, tokens,
            bool(event.choices),
        ),
    )  # fmt: skip


def completions(ask: Ask) -> dict[str, Any]:
    """Return the body of a completion."""
    return {"prompt": ask.prompt, **_common(ask)}


def chat(ask: Ask) -> dict[str, Any]:
    """Return the body of a chat completion."""
    return {"messages": ask.messages, **_common(ask)}


def _common(ask: Ask) -> dict[str, Any]:
    usage = {"include_usage": True}
    if ask.usage_each:
        usage["continuous_usage_stats"] = True
    fields = {
        "model": ask.model,
        "max_tokens": ask.call.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": usage,
        **ask.extras(),
    }
    return {name: value for name, value in fields.items() if name not in ask.refused}


COMPLETIONS = Dialect(
    "/v1/completions", "prompt", completions, read, "OpenAI's completions, prompts as token ids"
)
CHAT = Dialect("/v1/chat/completions", "messages", chat, read, "OpenAI's chat completions")
