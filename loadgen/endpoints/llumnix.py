"""Llumnix: OpenAI's completions, traced through its scheduler (arXiv 2406.03243).

This is the gateway of v1. The servers of v0 answer `/generate` in JSON that ends in NUL, and
`/generate_benchmark` not as a stream: neither is spoken here.
"""

from __future__ import annotations

from servescope.loadgen.endpoints import openai
from servescope.loadgen.endpoints.dialect import Ask, Dialect


def _headers(ask: Ask) -> dict[str, str]:
    return {"X-Llumnix-Trace": "true"}


COMPLETIONS = Dialect(
    "/v1/completions",
    "prompt",
    openai.completions,
    openai.read,
    "OpenAI's completions, with the header that traces a request",
    headers=_headers,
)
