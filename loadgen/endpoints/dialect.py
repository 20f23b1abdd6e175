"""What it takes to speak to an endpoint: how to ask, and what an event of the answer means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts


class Piece(NamedTuple):
    """What one event of a stream says; counts are totals so far, as the server gives them."""

    has_text: bool
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an endpoint is asked and read: its path, the body of a call, and its events."""

    path: str
    body: Callable[[Call, Prompts], dict[str, Any]]
    read: Callable[[bytes], Piece]
    says: str


class EventSplitter:
    """Cuts the bytes of a server-sent event stream into the data of its events.

    Comments and other fields are passed over; `[DONE]` sets `done` and is not returned.
    """

    __slots__ = ("_rest", "done")

    def __init__(self) -> None:
        self._rest = b""
        self.done = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of every event that `data` completes."""
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        return [event for line in lines if (event := self._data(line)) is not None]

    def close(self) -> list[bytes]:
        """Return what a last line without a line end holds."""
        event, self._rest = self._data(self._rest), b""
        return [] if event is None else [event]

    def _data(self, line: bytes) -> bytes | None:
        if not line.startswith(b"data:"):
            return None
        event = line[5:].strip()
        if event == b"[DONE]":
            self.done = True
            return None
        return event or None
