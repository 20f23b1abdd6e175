"""What the conductor and its workers say to each other, as length-prefixed MessagePack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

_LENGTH = struct.Struct("<I")


class Setup(msgspec.Struct, kw_only=True):
    """What a worker needs before it can begin; `headers` may hold a key and is never written down.

    `board`, `programs` and `sent` are paths: what all workers have in flight, what to send, and
    the log of what was sent.
    `max_concurrency` and `users` are this worker's part of them.
    """

    worker: int
    workers: int
    urls: list[str]
    backend: str
    model: str
    headers: dict[str, str]
    secrets: tuple[str, ...]
    seed: int
    block_tokens: int | None
    tokenizer: str | None
    history: Literal["planned", "generated"]
    ignore_eos: bool
    min_tokens: bool
    usage_each: bool
    refused: tuple[str, ...]
    extra_body: dict[str, Any]
    timeout_s: float
    idle_s: float
    retries: int
    reuse: bool
    done: bool
    max_concurrency: int | None
    users: int | None
    apart_s: float = 0.0
    until_s: float | None = None
    from_s: float = 0.0
    dispatch: str
    dispatch_params: dict[str, str]
    priority: str
    priority_params: dict[str, str]
    board: str
    programs: str
    sent: str


class Go(msgspec.Struct, tag=True, array_like=True):
    """Begin: `zero_s` is the run's second 0 on the monotonic clock of all processes."""

    zero_s: float


class Stop(msgspec.Struct, tag=True, array_like=True):
    """Send nothing more; `now` also gives up what is in flight."""

    now: bool = False


class Ready(msgspec.Struct, tag=True, array_like=True):
    """The worker can begin."""


class Ended(msgspec.Struct, tag=True, array_like=True, gc=False):
    """A call that has ended, or is given up. Moments are seconds of the run.

    `status` is None for a whole response of HTTP 200, whose `body` is still to be read: `ends` and
    `stamps` are arrays of where its pieces end (uint32) and when they came (float64).
    """

    number: int
    status: str | None
    error: str | None
    due_s: float
    ready_s: float
    admitted_s: float | None = None
    dispatched_s: float | None = None
    sent_s: float | None = None
    first_byte_s: float | None = None
    end_s: float | None = None
    replica: int = 0
    earlier: int = 0
    retries: int = 0
    body: bytes = b""
    ends: bytes = b""
    stamps: bytes = b""


class Beat(msgspec.Struct, tag=True, array_like=True):
    """How a worker does: calls sent and in flight and waiting for a slot, its lag, its loop.

    `late_s` is how much too late its heart beat, once a beat; `cpu_s` and `wall_s` count from Go.
    `inexact` prompts could not be made as long as planned.
    """

    sent: int
    in_flight: int
    waiting: int
    lag_s: float
    late_s: list[float]
    cpu_s: float
    wall_s: float
    rss_bytes: int
    reconnects: int
    inexact: int = 0


class Finished(msgspec.Struct, tag=True, array_like=True):
    """Nothing is left to send and nothing in flight."""


class Fault(msgspec.Struct, tag=True, array_like=True):
    """The worker itself failed: `what` says how, `where` is its traceback."""

    what: str
    where: str


_encode = msgspec.msgpack.Encoder().encode


def packed(message: object) -> bytes:
    """Return a message as bytes, its length before it."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Cuts a stream of bytes into messages of the given types."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Return every message that `data` completes."""
        self._rest += data
        place = 0
        while len(self._rest) - place >= 4:
            (size,) = _LENGTH.unpack_from(self._rest, place)
            if len(self._rest) - place - 4 < size:
                break
            with memoryview(self._rest) as view:
                message = self._decode(view[place + 4 : place + 4 + size])
            place += 4 + size
            yield message
        del self._rest[:place]
