"""The endpoint dialects: all of them in this table, by the names that vLLM's benchmark gives them.

Another package adds one by an entry point of the group `servescope.endpoints`, a `Dialect`.
"""

from importlib.metadata import entry_points

from servescope.loadgen.endpoints import openai
from servescope.loadgen.endpoints.dialect import Dialect, EventSplitter, Piece
from servescope.traces.errors import InputError

__all__ = ["BUILT_IN", "Dialect", "EventSplitter", "Piece", "named"]

BUILT_IN = {
    "openai": openai.COMPLETIONS,
    "vllm": openai.COMPLETIONS,
    "openai-chat": openai.CHAT,
}


def named(name: str) -> Dialect:
    """Return the dialect called `name`; raises InputError if there is none."""
    strangers = entry_points(group="servescope.endpoints")
    known: dict[str, Dialect] = {**{each.name: each.load() for each in strangers}, **BUILT_IN}
    if name not in known:
        raise InputError(f"There is no backend '{name}'.", f"Known: {', '.join(known)}.")
    return known[name]
