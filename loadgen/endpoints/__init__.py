"""The endpoint dialects: all of them in this table, by the names that vLLM's benchmark gives them.

Another package adds one by an entry point of the group `servescope.endpoints`, a `Dialect`.
"""

from servescope.loadgen.endpoints import openai
from servescope.loadgen.endpoints.dialect import Ask, Dialect, Piece
from servescope.traces.errors import InputError
from servescope.traces.plugins import installed

__all__ = ["BUILT_IN", "Ask", "Dialect", "Piece", "named"]

BUILT_IN = {
    "openai": openai.COMPLETIONS,
    "vllm": openai.COMPLETIONS,
    "openai-chat": openai.CHAT,
}


def named(name: str) -> Dialect:
    """Return the dialect called `name`; raises InputError if there is none."""
    known = installed("servescope.endpoints", BUILT_IN)
    if name not in known:
        raise InputError(f"There is no backend '{name}'.", f"Known: {', '.join(known)}.")
    return known[name]
