"""SGLang's own `/generate`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec

from servescope.loadgen.endpoints.dialect import Ask, Count, Dialect, Piece, decoder, message_of

# What is asked beyond the core, by SGLang's names.
_NAMES = {"ignore_eos": "ignore_eos", "min_tokens": "min_new_tokens"}


class _Finish(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _Meta(msgspec.Struct, gc=False):
    id: str | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    finish_reason: _Finish | None = None


class _Event(msgspec.Struct, gc=False):
    text: str | None = None
    meta_info: _Meta | None = None
    error: Any = None


_decode = decoder(_Event)
_UNSAID = _Meta()


def read(events: list[bytes]) -> list[Piece]:
    """Read the events of an answer. Raises msgspec.DecodeError if one is no JSON."""
    decoded = _decode(events)
    texts = _new_texts([event.text or "" for event in decoded])
    return [_piece(event, text) for event, text in zip(decoded, texts, strict=True)]


def _new_texts(texts: list[str]) -> list[str]:
    """Return what each event adds, whether the server sends all the text so far or the new part.

    It is all the text so far if each continues the one before it, or is cut short as by a stop
    word at the end. A model that repeats one token looks like that too, but does not grow.
    """
    said = list(pairwise(text for text in texts if text))
    grows = len(said) < 2 or any(len(b) > len(a) for a, b in said)
    if not grows or not all(b.startswith(a) or a.startswith(b) for a, b in said):
        return texts
    new, length = [], 0
    for text in texts:
        new.append(text[length:])
        length = max(length, len(text))
    return new


def _piece(event: _Event, text: str) -> Piece:
    meta = event.meta_info or _UNSAID
    finish = meta.finish_reason
    error = None if event.error is None else message_of(event.error)
    if finish and finish.type == "abort":
        error = finish.message or "the server aborted the request"
    return Piece(
        text=text,
        finish=finish.type if finish else None,
        prompt_tokens=meta.prompt_tokens,
        completion_tokens=meta.completion_tokens,
        cached_tokens=meta.cached_tokens,
        error=error,
        id=meta.id,
    )


def _generate(ask: Ask) -> dict[str, Any]:
    extras = ask.extras()
    sampling = {"max_new_tokens": ask.call.output_tokens, "temperature": 0}
    sampling |= {name: extras[key] for key, name in _NAMES.items() if key in extras}
    body = {
        "text" if isinstance(ask.prompt, str) else "input_ids": ask.prompt,
        "sampling_params": sampling,
        "stream": True,
    }
    return body | {"priority": extras["priority"]} if "priority" in extras else body


GENERATE = Dialect("/generate", "prompt", _generate, read, "SGLang's own, prompts as token ids")
