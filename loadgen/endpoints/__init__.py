"""The endpoint dialects: all of them in this table.

Another package adds one by an entry point of the group `servescope.endpoints`, a `Dialect`.
"""

from servescope.loadgen.endpoints import (
    continuum,
    llamacpp,
    llumnix,
    openai,
    sglang,
    tgi,
    transformers,
)
from servescope.loadgen.endpoints.dialect import Ask, Dialect, Piece, decoder, message_of
from servescope.traces.errors import InputError
from servescope.traces.plugins import installed

__all__ = ["BUILT_IN", "Ask", "Dialect", "Piece", "decoder", "message_of", "named"]

BUILT_IN = {
    "openai": openai.COMPLETIONS,
    "openai-chat": openai.CHAT,
    "vllm": openai.COMPLETIONS,
    "vllm-chat": openai.CHAT,
    "sglang": sglang.GENERATE,
    "tgi": tgi.GENERATE,
    "llamacpp": llamacpp.COMPLETION,
    "transformers": transformers.CHAT,
    "continuum": continuum.COMPLETIONS,
    "llumnix": llumnix.COMPLETIONS,
}


def named(name: str) -> Dialect:
    """Return the dialect called `name`; raises InputError if there is none."""
    known = installed("servescope.endpoints", BUILT_IN)
    if name not in known:
        raise InputError(f"There is no backend '{name}'.", f"Known: {', '.join(known)}.")
    return known[name]
