"""The real clock: the same engine, with every step ending at its absolute deadline.

A late wake-up never moves the schedule: the next step starts where the last one ended on the
engine's clock, not where the host woke, so errors do not add up. How late the host was is
counted in `behind`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import suppress

from servescope.engine.blame import blaming
from servescope.engine.cluster import Cluster, stuck
from servescope.engine.engine import Engine, Refused
from servescope.engine.metrics import BEHIND_S, Histogram, Latencies
from servescope.engine.request import Request
from servescope.traces.errors import ServescopeError


class EngineDead(ServescopeError):
    """The engine failed, and serves nobody any more."""

    @classmethod
    def of(cls, error: Exception) -> EngineDead:
        """Say of what it died."""
        if isinstance(error, ServescopeError):
            return cls(f"The engine died: {error.wrong}", f"{error.mend} Then start anew.")
        said = f"{type(error).__name__}: {error}"
        return cls(f"The engine died: {said}", "Mend its system, and start anew.")


SPIN_S = 0.001  # an event loop's timer is a millisecond coarse; the rest is waited out awake


class Stream:
    """The tokens of one request, as they come."""

    __slots__ = ("_arrived", "_error", "_fresh", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self._error: Exception | None = None
        self._fresh = 0
        self._arrived = asyncio.Event()

    def put(self) -> None:
        """Say that one more token is out."""
        self._fresh += 1
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """Say that no more will come."""
        self._error = error
        self._arrived.set()

    async def take(self) -> int:
        """Wait for tokens and return how many are new: more than one when the reader is slow.

        Raises EngineDead when no more will come.
        """
        await self._arrived.wait()
        if self._fresh == 0 and self._error is not None:
            raise EngineDead.of(self._error)
        if self._error is None:
            self._arrived.clear()
        fresh, self._fresh = self._fresh, 0
        return fresh


class Realtime:
    """A cluster on the wall clock, shared by the tasks of one event loop.

    `behind` holds how late (s) the host woke for what ended.
    """

    def __init__(self, served: Cluster | Engine) -> None:
        self.cluster = served if isinstance(served, Cluster) else Cluster.of(served)
        self.cluster.on_step = self._emit
        self.latencies = Latencies()
        self.behind = Histogram(BEHIND_S)
        self.error: Exception | None = None
        self._start = time.monotonic()
        self._inbox: deque[Request] = deque()
        self._streams: dict[str, Stream] = {}
        self._arrived = asyncio.Event()

    def now(self) -> float:
        """Return the seconds since this clock was made."""
        return time.monotonic() - self._start

    @property
    def engine(self) -> Engine:
        """The engine of the first replica."""
        return self.cluster.replicas[0].engine

    @property
    def inbox(self) -> int:
        """How many requests have arrived since the step on its way began."""
        return len(self._inbox)

    def submit(self, request: Request) -> Stream:
        """Send a request; raise Refused when it can never be served, EngineDead when none is.

        It joins the queue at its `arrival_s` on this clock: now, or later. Send in that order.
        """
        if self.error is not None:
            raise EngineDead.of(self.error)
        self.cluster.require_fit(request)
        if request.id in self._streams:  # still in the inbox: no engine knows it yet
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
        else:
            self.cluster.abort(request_id)

    async def run(self) -> None:
        """Serve until cancelled, or until a part of the system fails, which is raised.

        Then every stream is told, and nothing more is taken.
        """
        try:
            with blaming():
                while True:
                    while not self._inbox:  # who woke us may have gone again
                        self._arrived.clear()
                        await self._arrived.wait()
                    await self._busy_period(self._inbox[0].arrival_s)
        except Exception as error:
            self.error = error
            for stream in self._streams.values():
                stream.fail(error)
            self._streams.clear()
            self._inbox.clear()
            raise

    async def _busy_period(self, now: float) -> None:
        """Let everything happen at its own moment, from an arrival at `now` until all is idle."""
        cluster, inbox = self.cluster, self._inbox
        while True:
            cluster.begin(now, until=now)  # one step at a time: readers wait for each token
            self._arrived.clear()
            arrives_s = inbox[0].arrival_s if inbox else math.inf
            ends_s = cluster.next_s(expecting=False)
            if arrives_s < ends_s:
                await self._sleep_until(arrives_s)
                if inbox:  # not aborted meanwhile
                    now = max(now, inbox[0].arrival_s)
                    cluster.submit(inbox.popleft(), now)
            elif ends_s < math.inf:
                await self._sleep_until(ends_s)
                came_before = inbox and inbox[0].arrival_s < ends_s  # even if the host woke late
                if came_before or self.now() < ends_s:
                    continue
                self.behind.observe(self.now() - ends_s)
                now = max(now, ends_s)
                cluster.end(ends_s)
            elif cluster.idle:
                return
            else:
                raise stuck()

    def _emit(self, emitted: list[Request]) -> None:
        self.latencies.observe(emitted)
        for request in emitted:
            self._streams[request.id].put()
            if request.done:
                del self._streams[request.id]

    async def _sleep_until(self, deadline_s: float) -> None:
        """Sleep to a moment; only to the next arrival if that could begin at once."""
        early = deadline_s - self.now() - SPIN_S
        if early > 0 and self.cluster.ready:
            with suppress(TimeoutError):
                async with asyncio.timeout(early):
                    await self._arrived.wait()
                    return
        elif early > 0:
            await asyncio.sleep(early)
        await asyncio.sleep(0)  # a late engine still lets the others work
        while self.now() < deadline_s:
            await asyncio.sleep(0)
