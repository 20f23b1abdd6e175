"""The real clock: sends every call at its absolute deadline and writes down what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from servescope.loadgen.client import Client, Clock
from servescope.loadgen.heartbeat import Heartbeat
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Journal, Record
from servescope.loadgen.replay import Due, Replay
from servescope.traces.status import OK, UNKNOWN

# Bodies are made before the start up to this many bytes, and later ones a few calls ahead, when
# nothing is due for at least QUIET_S.
PREPARED_BYTES = 256 << 20
AHEAD = 16
QUIET_S = 0.01
LEAD_S = 0.25  # from now to the replay's second 0, so that the first call is not late
PROGRESS_S = 0.2


@dataclass(slots=True)
class Tally:
    """How far a replay is: `now_s` from its start; `lag_s`, how late the last call was sent."""

    planned: int
    sent: int = 0
    done: int = 0
    failed: int = 0
    now_s: float = 0.0
    lag_s: float = 0.0

    @property
    def in_flight(self) -> int:
        """Calls that were sent and have not ended."""
        return self.sent - self.done


Progress = Callable[[Tally], None]


class LiveReplay:
    """A replay against an endpoint in real time.

    Times in the records are seconds since `started`, a moment of the monotonic clock.
    """

    def __init__(
        self, replay: Replay, client: Client, prompts: Prompts, model: str, journal: Journal
    ) -> None:
        self.tally = Tally(planned=replay.unended)
        self._replay = replay
        self._client = client
        self._prompts = prompts
        self._model = model
        self._journal = journal
        self.heartbeat = Heartbeat()
        self._bodies: dict[str, bytes] = {}
        self._fault: Exception | None = None
        self._wake = asyncio.Event()
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()

    def prepare(self, calls: list[Call]) -> None:
        """Make the bodies of the first calls before the clock starts."""
        size = 0
        for call in calls:
            if size > PREPARED_BYTES:
                break
            self._bodies[call.id] = body = self._client.body(call, self._prompts, self._model)
            size += len(body)

    def stop(self) -> None:
        """Send nothing more and cancel what is in flight; the cancelled calls stay rows."""
        self._stopped = True
        self._wake.set()

    async def run(self, on_progress: Progress | None = None) -> None:
        """Replay until every call has ended, or until `stop`.

        Raises what went wrong on our own side (a full disk, say), once nothing is in flight.
        """
        started = time.monotonic() + LEAD_S

        def clock() -> float:
            return time.monotonic() - started

        watchers = [asyncio.create_task(self.heartbeat.beat())]
        if on_progress:
            watchers.append(asyncio.create_task(_report(self.tally, on_progress)))
        try:
            while not (self._replay.done or self._stopped or self._fault):
                for due in self._replay.take(clock()):
                    task = asyncio.create_task(self._one(due, clock))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await self._until_something_happens(clock)
        finally:
            for task in (*self._tasks, *watchers):
                task.cancel()
            await asyncio.gather(*self._tasks, *watchers, return_exceptions=True)
            self.tally.now_s = clock()
        if self._fault:
            raise self._fault

    async def _until_something_happens(self, clock: Clock) -> None:
        due_s = self._replay.next_due_s()
        left_s = None if due_s is None else due_s - clock()
        if left_s is None or left_s > QUIET_S:
            ahead = self._replay.upcoming(AHEAD)
            call = next((call for call in ahead if call.id not in self._bodies), None)
            if call:
                self.prepare([call])
                await asyncio.sleep(0)
                return
        if left_s is None or left_s > 0:
            timer = None
            if left_s is not None:
                timer = asyncio.get_running_loop().call_later(left_s, self._wake.set)
            await self._wake.wait()
            if timer:
                timer.cancel()
        self._wake.clear()
        self.tally.now_s = clock()

    async def _one(self, due: Due, clock: Clock) -> None:
        try:
            body = self._bodies.pop(due.call.id, None)
            if body is None:
                body = self._client.body(due.call, self._prompts, self._model)
            record = Record.of(due, UNKNOWN)
            record.dispatched_s = clock()
            self.tally.sent += 1
            self.tally.lag_s = record.dispatched_s - due.due_s
            await self._client.send(record, body, clock)
            self._end(record)
        except Exception as fault:  # a call cannot fail here, so this is ours: end the replay
            self._fault = self._fault or fault
            self._wake.set()

    def _end(self, record: Record) -> None:
        ok = record.status == OK
        assert record.end_s is not None
        self._journal.append(record)
        lost = self._replay.ended(record.call_id, record.end_s, ok=ok)
        for call in lost:
            self._journal.append(Record.given_up(call, record.end_s))
        self.tally.done += 1 + len(lost)
        self.tally.sent += len(lost)
        self.tally.failed += (not ok) + len(lost)
        self._wake.set()


async def _report(tally: Tally, on_progress: Progress) -> None:
    """Show the tally now and then; a display that fails must not end a measurement."""
    with suppress(Exception):
        while True:
            on_progress(tally)
            await asyncio.sleep(PROGRESS_S)
