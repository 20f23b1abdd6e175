"""What it takes to speak to an endpoint: how to ask, and what the events of an answer mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from servescope.loadgen.program import Call

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """What a dialect turns into a request: a call, and its prompt or its chat.

    `min_tokens` asks for at least the planned answer too, `usage_each` for usage in every chunk.
    `refused` names fields that this server is known to refuse, by the names that vLLM has for them.
    `before` is the call of the program that came before this one.
    """

    call: Call
    model: str
    prompt: list[int] | msgspec.Raw | str | None = None
    messages: list[dict[str, Any]] | None = None
    ignore_eos: bool = True
    min_tokens: bool = True
    usage_each: bool = False
    refused: frozenset[str] = frozenset()
    before: Call | None = None

    def extras(self) -> dict[str, Any]:
        """Return what not every server takes and this one does not refuse, by vLLM's names."""
        fields: dict[str, Any] = {}
        if self.ignore_eos:
            fields["ignore_eos"] = True
        if self.min_tokens:
            fields["min_tokens"] = self.call.output_tokens
        if self.call.priority is not None:
            fields["priority"] = self.call.priority
        return {name: value for name, value in fields.items() if name not in self.refused}


class Piece(NamedTuple):
    """What one event of a stream says; counts are totals so far, as the server gives them.

    `tokens` are those of this very event, where the server says so. `id` is what the server calls
    the answer. `choice` says whether the event holds one of the choices of OpenAI's dialects, even
    if it brings nothing.
    """

    text: str = ""
    reasoning: str = ""
    tool: bool = False
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    error: str | None = None
    id: str | None = None
    tokens: int | None = None
    choice: bool = False

    @property
    def has_text(self) -> bool:
        """Whether the event is a chunk: it brings answer, reasoning, or part of a tool call."""
        return bool(self.text or self.reasoning or self.tool)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an endpoint is asked and read.

    `takes` says whether it is asked with a prompt (token ids, or the trace's text), with a text, or
    with chat messages; `lines` whether its stream is of server-sent events or of JSON lines. `body`
    returns the whole body of a request; `read` takes all events of an answer in order, one Piece an
    event, and raises msgspec.DecodeError if one is no JSON.
    """

    path: str
    takes: Literal["prompt", "text", "messages"]
    body: Callable[[Ask], dict[str, Any]]
    read: Callable[[list[bytes]], list[Piece]]
    says: str
    headers: Callable[[Ask], dict[str, str]] | None = None
    lines: Literal["sse", "json"] = "sse"


def decoder(kind: type[T]) -> Callable[[list[bytes]], list[T]]:
    """Return a function that decodes all events of an answer at once, each into a `kind`.

    It raises msgspec.DecodeError if an event is not one JSON value that fits.
    """
    decode = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type]

    def decoded(events: list[bytes]) -> list[T]:
        # a raw line end cannot stand in a string, so none can begin in one event and end in another
        try:
            found = decode(b"[" + b",\n".join(events) + b"]")
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(f"an event is not UTF-8: {error}") from None
        if len(found) != len(events):
            raise msgspec.DecodeError("an event is not one JSON value")
        return found

    return decoded


def message_of(error: Any) -> str:
    """Return what an error says: its message, or all of it where it has none."""
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
