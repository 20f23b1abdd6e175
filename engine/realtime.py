"""The real clock: the same engine, with every step ending at its absolute deadline.

A late wake-up never moves the schedule: the next step starts where the last one ended on the
engine's clock, not where the host woke, so errors do not add up. How late the host was is
counted in `behind`.
"""

import asyncio
import time
from collections import deque

from servescope.engine.engine import Engine, Refused, Step
from servescope.engine.metrics import BEHIND_S, Histogram, Latencies
from servescope.engine.request import Request

SPIN_S = 0.001  # an event loop's timer is a millisecond coarse; the rest is waited out awake


class Stream:
    """The tokens of one request, as they come."""

    __slots__ = ("_arrived", "_fresh", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self._fresh = 0
        self._arrived = asyncio.Event()

    def put(self) -> None:
        """Say that one more token is out."""
        self._fresh += 1
        self._arrived.set()

    async def take(self) -> int:
        """Wait for tokens and return how many are new: more than one when the reader is slow."""
        await self._arrived.wait()
        self._arrived.clear()
        fresh, self._fresh = self._fresh, 0
        return fresh


class Realtime:
    """An engine on the wall clock, shared by the tasks of one event loop.

    `behind` holds how late (s) the host woke for the end of each step.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.latencies = Latencies()
        self.behind = Histogram(BEHIND_S)
        self._start = time.monotonic()
        self._inbox: deque[Request] = deque()
        self._streams: dict[str, Stream] = {}
        self._arrived = asyncio.Event()

    def now(self) -> float:
        """Return the seconds since this clock was made."""
        return time.monotonic() - self._start

    @property
    def waiting(self) -> int:
        """How many requests wait: in the queue, or for the step on its way to end."""
        return self.engine.waiting + len(self._inbox)

    def submit(self, request: Request) -> Stream:
        """Send a request; raise Refused when it can never be served.

        It joins the queue at its `arrival_s` on this clock: now, or later. Send in that order.
        """
        self.engine.require_fit(request)
        if request.id in self._streams:  # still in the inbox: the engine does not know it yet
            raise Refused(
                f"A request with the id {request.id!r} is being served.", "Give each its own id."
            )
        stream = Stream(request)
        self._streams[request.id] = stream
        self._inbox.append(request)
        self._arrived.set()
        return stream

    def abort(self, request_id: str) -> None:
        """Drop a request, wherever it is, and free its blocks."""
        stream = self._streams.pop(request_id, None)
        if stream is None:
            return
        if stream.request in self._inbox:
            self._inbox.remove(stream.request)
        self.engine.abort(request_id)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            while not self._inbox:  # who woke us may have gone again
                self._arrived.clear()
                await self._arrived.wait()
            await self._busy_period(self._inbox[0].arrival_s)

    async def _busy_period(self, now: float) -> None:
        """Run step after step, from an arrival at `now` until the engine is idle."""
        while step := self._next_step(now):
            await self._sleep_until(step.ends_s)
            now = step.ends_s
            decoded = self.engine.decoding(step)
            emitted = [*decoded, *self.engine.finish(step).prompted]
            self.latencies.observe(emitted)
            for request in emitted:
                self._streams[request.id].put()
                if request.done:
                    del self._streams[request.id]

    def _next_step(self, now: float) -> Step | None:
        # Who arrived after `now` waits for the step after, even when the host woke late.
        while self._inbox and self._inbox[0].arrival_s <= now:
            self.engine.submit(self._inbox.popleft(), now)
        return self.engine.begin(now, until=now)  # one at a time: readers wait for each token

    async def _sleep_until(self, deadline_s: float) -> None:
        early = deadline_s - self.now() - SPIN_S
        if early > 0:
            await asyncio.sleep(early)
        await asyncio.sleep(0)  # a late engine still lets the others work
        while (late := self.now() - deadline_s) < 0:
            await asyncio.sleep(0)
        self.behind.observe(late)
