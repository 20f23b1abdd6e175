"""What came back: one row a call, written down the moment it ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from servescope.loadgen.program import Call
from servescope.loadgen.replay import Due
from servescope.traces.errors import OutputFailed
from servescope.traces.status import NOT_SENT


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The row of a call in a run, in canonical columns; what is not known stays out of it.

    `input_tokens` and `output_tokens` are what the server counted, or else what was planned to be
    sent and what was seen to come.
    """

    call_id: str
    program_id: str
    turn: int
    status: str
    arrival_s: float
    due_s: float
    ready_s: float | None = None
    parents: list[str] | None = None
    delay_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    dispatched_s: float | None = None
    sent_s: float | None = None
    first_byte_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    chunk_s: list[float] | None = None
    chunk_tokens: list[int] | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, due: Due, status: str) -> Record:
        """Begin the row of a call that is due."""
        call = due.call
        return cls(
            call_id=call.id,
            program_id=call.program_id,
            turn=call.turn,
            status=status,
            arrival_s=due.due_s,
            due_s=due.due_s,
            ready_s=due.ready_s,
            parents=list(call.parents),
            delay_s=call.delay_s if call.parents else None,
            input_tokens=call.input_tokens,
        )

    @classmethod
    def given_up(cls, call: Call, now_s: float) -> Record:
        """Make the row of a call that is never sent because a parent failed at `now_s`."""
        record = cls.of(Due(call, now_s + call.delay_s, now_s), NOT_SENT)
        record.error = "not sent: a call it waits for failed"
        record.end_s = now_s  # not after the pause that never was: a run does not last that long
        return record


class Journal:
    """An append-only file of records, a JSON line each, flushed line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoder = msgspec.json.Encoder()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    def append(self, record: Record) -> None:
        """Write one line in one system call, so that a kill tears at most this line.

        Raises OutputFailed if the disk does not take it whole.
        """
        assert self._file is not None
        line = self._encoder.encode(record) + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise OutputFailed.of(self._path, error) from None
        if written != len(line):
            raise OutputFailed.of(self._path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
