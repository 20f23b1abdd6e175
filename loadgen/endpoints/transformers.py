"""The chat of Hugging Face's `transformers serve`, which refuses every field that it does not use.

Among them are `stream_options`, `ignore_eos` and `min_tokens`. It sends usage unasked.
"""

from __future__ import annotations

from typing import Any

from servescope.loadgen.endpoints import openai
from servescope.loadgen.endpoints.dialect import Ask, Dialect


def _chat(ask: Ask) -> dict[str, Any]:
    return {
        "model": ask.model,
        "messages": ask.messages,
        "max_tokens": ask.call.output_tokens,
        "temperature": 0,
        "stream": True,
    }


CHAT = Dialect(
    "/v1/chat/completions", "messages", _chat, openai.read, "the chat of `transformers serve`"
)
