"""The streams of Text Generation Inference.

It takes texts alone, and nothing there asks for an answer of a given length: `ignore_eos_token` is
known to its inner protocol and not over HTTP (huggingface/text-generation-inference#1944).
"""

from __future__ import annotations

from typing import Any

import msgspec

from servescope.loadgen.endpoints.dialect import Ask, Count, Dialect, Piece, decoder, message_of


class _Token(msgspec.Struct, gc=False):
    text: str | None = None
    special: bool | None = None


class _Details(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    generated_tokens: Count | None = None
    input_length: Count | None = None


class _Event(msgspec.Struct, gc=False):
    token: _Token | None = None
    details: _Details | None = None
    error: Any = None


_decode = decoder(_Event)
_NO_TOKEN, _UNSAID = _Token(), _Details()


def read(events: list[bytes]) -> list[Piece]:
    """Read the events of an answer, one token each. Raises msgspec.DecodeError for no JSON."""
    pieces, made = [], 0
    for event in _decode(events):
        token, details = event.token or _NO_TOKEN, event.details or _UNSAID
        made += token is not _NO_TOKEN
        counted = details.generated_tokens
        pieces.append(
            Piece(
                text="" if token.special else token.text or "",
                finish=details.finish_reason,
                prompt_tokens=details.input_length,
                completion_tokens=made if counted is None else counted,
                error=None if event.error is None else message_of(event.error),
            )
        )
    return pieces


def _generate(ask: Ask) -> dict[str, Any]:
    parameters = {"max_new_tokens": ask.call.output_tokens, "do_sample": False, "details": True}
    return {"inputs": ask.prompt, "parameters": parameters}


GENERATE = Dialect(
    "/generate_stream", "text", _generate, read, "Text Generation Inference's own, prompts as text"
)
