"""What came back: one row a call, written down in batches that a kill cannot tear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from servescope.loadgen.answer import Answer, read
from servescope.loadgen.endpoints import Dialect
from servescope.loadgen.messages import Ended
from servescope.traces.run import RUN_COLUMNS, Run
from servescope.traces.schema import SCHEMA
from servescope.traces.status import NOT_SENT, OK

# What the plan says of a call and a run repeats.
_PLANNED = (
    "call_id", "program_id", "turn", "client_id", "call_class", "parents", "delay_s", "deadline_s",
)  # fmt: skip


class Record(msgspec.Struct, kw_only=True, gc=False):
    """What a run adds to a call of the plan, in canonical columns; `number` is its row there.

    `input_tokens` and `output_tokens` are what the server counted, or else what was planned to be
    sent and what was seen to come.
    """

    number: int
    status: str
    due_s: float
    error: str | None = None
    ready_s: float | None = None
    admitted_s: float | None = None
    dispatched_s: float | None = None
    sent_s: float | None = None
    first_byte_s: float | None = None
    first_token_s: float | None = None
    first_answer_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    chunk_s: list[float] | None = None
    chunk_tokens: list[int] | None = None
    empty_s: list[float] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    replica: str | None = None
    worker: int | None = None
    connection_calls: int | None = None
    retries: int | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    observed_queue_s: float | None = None

    @classmethod
    def given_up(cls, number: int, now_s: float) -> Record:
        """Make the row of a call that is never sent because a parent failed at `now_s`."""
        # not after the pause that never was: a run does not last that long
        return cls(
            number=number,
            status=NOT_SENT,
            error="not sent: a call it waits for failed",
            due_s=now_s,
            ready_s=now_s,
            end_s=now_s,
        )


def record_of(
    ended: Ended,
    dialect: Dialect,
    worker: int,
    replicas: Sequence[str],
    *,
    done: bool,
    secrets: Sequence[str] = (),
) -> tuple[Record, Answer | None]:
    """Read what a worker hands back, and return the call's row and its answer, if one began.

    `done` says that the server is known to end its streams with `[DONE]`. What the server says is
    kept without any secret, should it repeat one.
    """
    if ended.status == NOT_SENT:
        return Record.given_up(ended.number, ended.due_s), None
    record = Record(
        number=ended.number,
        status=ended.status or OK,
        due_s=ended.due_s,
        error=ended.error,
        ready_s=ended.ready_s,
        end_s=ended.end_s,
        worker=worker,
    )
    record.admitted_s = ended.admitted_s
    record.dispatched_s = ended.dispatched_s
    record.sent_s = ended.sent_s
    record.first_byte_s = ended.first_byte_s
    record.replica = replicas[ended.replica]
    record.connection_calls = ended.earlier if ended.sent_s is not None else None
    record.retries = ended.retries
    if ended.status is not None and not ended.stamps:
        return record, None
    ends = memoryview(ended.ends).cast("I").tolist() if ended.ends else []
    blocks = [ended.body[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    stamps = memoryview(ended.stamps).cast("d").tolist() if ended.stamps else []
    answer = read(dialect, blocks, stamps, done=done)
    if ended.status is None:
        record.status, record.error = answer.status, answer.error
    if answer.chunk_s:
        record.first_token_s, record.last_token_s = answer.chunk_s[0], answer.chunk_s[-1]
    record.first_answer_s = answer.first_answer_s
    record.chunk_s = answer.chunk_s
    record.chunk_tokens = answer.chunk_tokens
    record.empty_s = answer.empty_s
    record.input_tokens = answer.prompt_tokens
    record.output_tokens = answer.output_tokens
    record.cached_tokens = answer.cached_tokens
    record.reasoning_tokens = answer.reasoning_tokens
    record.response_id = answer.id
    record.finish_reason = answer.finish
    for name in ("error", "response_id", "finish_reason"):  # all that a server puts into words
        for secret in secrets:
            said = getattr(record, name)
            setattr(record, name, said and said.replace(secret, "***"))
    return record, answer


class Journal:
    """Rows of a run on their way to its directory; `flush` writes those that came since the last.

    Raises OutputFailed if the disk does not take them.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        plan = run.plan
        self._planned = plan.select(
            *(name for name in _PLANNED if name in plan.columns), planned_tokens="input_tokens"
        )
        self._rows: list[Record] = []

    def append(self, record: Record) -> None:
        """Take a row."""
        self._rows.append(record)

    def flush(self) -> pl.DataFrame | None:
        """Write the rows that came since the last flush, and return them; None if none came."""
        if not self._rows:
            return None
        table = self.frame(self._rows)
        self._run.append(table)
        self._rows = []
        return table

    def frame(self, rows: Sequence[Record]) -> pl.DataFrame:
        """Return rows as the canonical table of a run."""
        came = pl.DataFrame(
            {name: _column(name, [getattr(row, name) for row in rows]) for name in _CAME}
        )
        planned = self._planned[[row.number for row in rows]]
        table = pl.concat([planned, came], how="horizontal").with_columns(
            arrival_s=pl.col("due_s"),
            input_tokens=pl.coalesce("input_tokens", "planned_tokens"),
        )
        missing = [name for name in RUN_COLUMNS if name not in table.columns]
        return table.with_columns(
            pl.lit(None, SCHEMA[name]).alias(name) for name in missing
        ).select(RUN_COLUMNS)


_CAME = tuple(name for name in Record.__struct_fields__ if name != "number")


def _column(name: str, values: list[Any]) -> pl.Series:
    return pl.Series(name, values, dtype=SCHEMA[name])
