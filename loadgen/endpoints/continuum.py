"""Continuum: vLLM's completions, told which program a call belongs to (arXiv 2511.02230).

The server keeps a program's KV cache while a tool works, for as long as tools of that name take.
A trace says when a tool worked but not which, so all are one tool here.
"""

from __future__ import annotations

from typing import Any

from servescope.loadgen.endpoints import openai
from servescope.loadgen.endpoints.dialect import Ask, Dialect

TOOL = "tool"


def _completions(ask: Ask) -> dict[str, Any]:
    return {
        **openai.completions(ask),
        "job_id": ask.call.program_id,
        "is_last_step": ask.call.last,
        # the server refuses a name of what came before the first call that it sees of a program
        "last_func_call": TOOL if ask.before else None,
        "this_func_call": None if ask.call.last else TOOL,
    }


COMPLETIONS = Dialect(
    "/v1/completions", "prompt", _completions, openai.read, "vLLM's, with Continuum's program"
)
