"""llama.cpp's own `/completion`, which counts the tokens of every chunk."""

from __future__ import annotations

from typing import Any

import msgspec

from servescope.loadgen.endpoints.dialect import Ask, Count, Dialect, Piece, decoder, message_of
from servescope.loadgen.endpoints.openai import Timings

# The last event would else repeat the whole prompt.
_FIELDS = ["content", "stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings"]


class _Event(msgspec.Struct, gc=False):
    content: str | None = None
    stop: bool | None = None
    stop_type: str | None = None
    tokens_predicted: Count | None = None
    tokens_evaluated: Count | None = None
    timings: Timings | None = None
    error: Any = None


_decode = decoder(_Event)


def read(events: list[bytes]) -> list[Piece]:
    """Read the events of an answer. Raises msgspec.DecodeError if one is no JSON."""
    return [
        Piece(
            text=event.content or "",
            finish=event.stop_type or "stop" if event.stop else None,
            prompt_tokens=event.tokens_evaluated,
            completion_tokens=event.tokens_predicted,
            cached_tokens=event.timings.cache_n if event.timings else None,
            error=None if event.error is None else message_of(event.error),
        )
        for event in _decode(events)
    ]


def _completion(ask: Ask) -> dict[str, Any]:
    body = {
        "prompt": ask.prompt,
        "n_predict": ask.call.output_tokens,
        "temperature": 0,
        "stream": True,
        "cache_prompt": True,
        "response_fields": _FIELDS,
    }
    return body | {"ignore_eos": True} if "ignore_eos" in ask.extras() else body


COMPLETION = Dialect(
    "/completion", "prompt", _completion, read, "llama.cpp's own, prompts as token ids"
)
