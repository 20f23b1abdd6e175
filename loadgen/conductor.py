"""The conductor's ear: takes what workers hand back, reads it, and has it written down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import polars as pl

from servescope.analysis.attainment import judged
from servescope.analysis.measured import Measured
from servescope.analysis.slo import SLO
from servescope.loadgen.counts import Counts
from servescope.loadgen.endpoints import Dialect
from servescope.loadgen.messages import Beat, Ended
from servescope.loadgen.records import Journal, Record, record_of
from servescope.traces.status import OK

FLUSH_S = 0.5  # with the workers' own 0.1 s, less than a second is lost to a kill
PROGRESS_S = 0.25
PAUSE_S = 0.002
JUDGE_EVERY, COUNT_EVERY = 4, 2  # flushes
_RECENT = 2000


@dataclass(slots=True)
class Tally:
    """How far a replay is: `now_s` from its start; `lag_s`, how late the last call was sent.

    `waiting` calls are due and wait for one of the slots of --max-concurrency. TTFT and TPOT are
    those of recent answers; of `judged` calls that ended, `met` were within the SLO.
    """

    planned: int
    sent: int = 0
    in_flight: int = 0
    waiting: int = 0
    done: int = 0
    failed: int = 0
    now_s: float = 0.0
    lag_s: float = 0.0
    ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    tpot_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    judged: int = 0
    met: int = 0

    @staticmethod
    def spread(values: Sequence[float]) -> tuple[float, float] | None:
        """Return p50 and p99 of recent values, or None for too few."""
        if len(values) < 2:
            return None
        p50, p99 = np.quantile(np.fromiter(values, np.float64), (0.5, 0.99))
        return float(p50), float(p99)


Progress = Callable[[Tally], None]


class Conductor:
    """Listens to the workers of a run; `beats` holds the last word of each."""

    def __init__(
        self,
        journal: Journal,
        dialect: Dialect,
        replicas: Sequence[str],
        planned: int,
        *,
        done: bool,
        secrets: Sequence[str] = (),
        slo: SLO | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.tally = Tally(planned)
        self.counts = counts
        self.beats: dict[int, Beat] = {}
        self.late_s: dict[int, list[float]] = {}
        self.zero_s = 0.0  # the run's second 0 on the monotonic clock
        self.uncounted = 0  # answers without usage, whose chunks were counted instead
        self._heard: deque[tuple[int, Ended]] = deque()
        self._news = asyncio.Event()
        self._journal = journal
        self._dialect = dialect
        self._replicas = replicas
        self._done = done
        self._secrets = secrets
        self._slo = slo if slo and slo.per == "calls" else None  # programs end too late to show
        self._unjudged: list[pl.DataFrame] = []
        self._uncounted: list[pl.DataFrame] = []

    def hear(self, worker: int, message: Ended | Beat) -> None:
        """Take what a worker says."""
        if isinstance(message, Beat):
            self._hear_beat(worker, message)
        else:
            self._heard.append((worker, message))
            self._news.set()

    async def keep_reading(self) -> None:
        """Read what was handed back, a little at a time, until cancelled.

        On a machine with few cores a long stretch of work here would make a worker late.
        """
        while True:
            if not self._heard:
                self._news.clear()
                await self._news.wait()
            await asyncio.sleep(PAUSE_S)
            for _ in range(1 + len(self._heard) // 8):
                if self._heard:
                    self._read(*self._heard.popleft())

    def _read(self, worker: int, message: Ended) -> None:
        record, answer = record_of(
            message,
            self._dialect,
            worker,
            self._replicas,
            done=self._done,
            secrets=self._secrets,
        )
        self._journal.append(record)
        ok = record.status == OK
        self.tally.done += 1
        self.tally.failed += not ok
        if ok and answer is not None:
            self.uncounted += answer.completion_tokens is None
            self._remember(record)

    async def keep_writing(self) -> None:
        """Flush the journal now and then, until cancelled."""
        for turn in count(1):
            await asyncio.sleep(FLUSH_S)
            self._write()
            if turn % JUDGE_EVERY == 0:
                self._judge()
            if turn % COUNT_EVERY == 0:
                self._count()

    def _write(self) -> None:
        rows = self._journal.flush()
        if rows is None:
            return
        if self._slo:
            self._unjudged.append(rows)
        if self.counts is not None:
            self._uncounted.append(rows)

    def _judge(self) -> None:
        """See which of the calls that were written last met the SLO."""
        if self._slo is None or not self._unjudged:
            return
        with suppress(Exception):  # as a display that fails
            table = judged(Measured(pl.concat(self._unjudged).lazy()), self._slo)
            self.tally.judged += table.height
            self.tally.met += int(table["met"].sum())
        self._unjudged.clear()

    def _count(self) -> None:
        """Count the calls that were written last."""
        if self.counts is None or not self._uncounted:
            return
        with suppress(Exception):
            self.counts.take(pl.concat(self._uncounted))
        self._uncounted.clear()

    async def keep_showing(self, on_progress: Progress) -> None:
        """Show the tally now and then; a display that fails must not end a measurement."""
        with suppress(Exception):
            while True:
                on_progress(self.tally)
                await asyncio.sleep(PROGRESS_S)

    def close(self) -> None:
        """Read and write what is left."""
        while self._heard:
            self._read(*self._heard.popleft())
        self._write()
        self._judge()
        self._count()

    def _hear_beat(self, worker: int, beat: Beat) -> None:
        self.late_s.setdefault(worker, []).extend(beat.late_s)
        self.beats[worker] = beat
        beats = self.beats.values()
        tally = self.tally
        tally.sent = sum(b.sent for b in beats)
        tally.in_flight = sum(b.in_flight for b in beats)
        tally.waiting = sum(b.waiting for b in beats)
        tally.lag_s = max(b.lag_s for b in beats)
        tally.now_s = max(b.wall_s for b in beats)

    def _remember(self, record: Record) -> None:
        chunks = record.chunk_s
        if record.first_token_s is not None and record.sent_s is not None:
            self.tally.ttft_s.append(record.first_token_s - record.sent_s)
        if chunks and len(chunks) > 1:
            self.tally.tpot_s.append((chunks[-1] - chunks[0]) / (len(chunks) - 1))
