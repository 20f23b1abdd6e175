"""A worker: a process that sends the programs it is given, on time, and hands back raw bytes.

Run by the conductor as `python -m servescope.loadgen.worker FD`, FD being its end of a socket pair.
It imports no table library, decodes no answer that nothing waits for, and writes nothing but the
log of what it sent.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from servescope.loadgen import answer as answers
from servescope.loadgen.alarm import Alarm
from servescope.loadgen.client import Client, Exchange
from servescope.loadgen.loops import loop_factory
from servescope.loadgen.messages import (
    Beat,
    Ended,
    Fault,
    Finished,
    Go,
    Ready,
    Setup,
    Stop,
    Unpacker,
    packed,
)
from servescope.loadgen.program import read_programs
from servescope.loadgen.replay import Due, Replay
from servescope.loadgen.requests import Requests
from servescope.traces import sent_log
from servescope.traces.status import NOT_SENT, OK

BEAT_S = 0.02
FLUSH_S = 0.1
AHEAD = 64  # requests made before they are due
PREPARED_BYTES = 64 << 20
QUIET_S = 0.003  # a request is made ahead only if nothing is due for that long
STALE_TRIES = 3


class Worker:
    """The state of one worker: what is due, in flight, waiting for a slot, and not yet told."""

    def __init__(
        self, setup: Setup, client: Client, tell: Callable[[bytes], None], sent_log: int
    ) -> None:
        self._setup = setup
        self._client = client
        self._tell = tell
        self._log = sent_log
        self._requests = Requests(setup)
        self._replay = Replay(
            read_programs(Path(setup.programs)),
            users=setup.users,
            apart_s=setup.apart_s,
            until_s=setup.until_s,
            from_s=setup.from_s,
        )
        self._slots = setup.max_concurrency
        self._waiting: deque[Due] = deque()
        self._flying: set[asyncio.Task[None]] = set()
        self._bodies: dict[str, tuple[bytes, dict[str, str] | None]] = {}
        self._prepared_bytes = 0
        self._outbox: list[bytes] = []
        self._wake = asyncio.Event()
        self._stopped = False
        self._fault: Exception | None = None
        self._zero_s = self._cpu_s = 0.0
        self._sent = 0
        self._reconnects = 0
        self._lag_s = 0.0
        self._late_s: list[float] = []

    def prepare(self) -> None:
        """Make the requests that are due first, before the clock starts."""
        while self._prepare_one():
            pass

    def stop(self, *, now: bool) -> None:
        """Send nothing more; `now` also gives up what is in flight, which stays a row."""
        self._stopped = True
        self._waiting.clear()
        if now:
            for task in self._flying:
                task.cancel()
        self._wake.set()

    async def run(self, zero_s: float) -> None:
        """Replay until every call has ended, or until nothing is in flight after a stop.

        Raises what went wrong on our own side, once nothing is in flight.
        """
        self._zero_s = zero_s
        self._cpu_s = time.process_time()
        loop = asyncio.get_running_loop()
        alarm = Alarm(loop, self._wake.set)
        watchers = [loop.create_task(self._beat()), loop.create_task(self._flush_now_and_then())]
        try:
            while not self._fault and (self._flying or not (self._stopped or self._replay.done)):
                if not self._stopped:
                    for due in self._replay.take(self._now()):
                        self._admit(due)
                await self._until_something_happens(alarm)
        finally:
            alarm.close()
            for task in (*self._flying, *watchers):
                task.cancel()
            await asyncio.gather(*self._flying, *watchers, return_exceptions=True)
            self._say_beat()
            self._flush()
        if self._fault:
            raise self._fault

    def _now(self) -> float:
        return time.monotonic() - self._zero_s

    async def _until_something_happens(self, alarm: Alarm) -> None:
        due_s = None if self._stopped else self._replay.next_due_s()
        left_s = None if due_s is None else due_s - self._now()
        if (left_s is None or left_s > QUIET_S) and not self._stopped and self._prepare_one():
            await asyncio.sleep(0)
            return
        if left_s is None or left_s > 0:
            if due_s is not None:
                alarm.set(self._zero_s + due_s)
            await self._wake.wait()
        self._wake.clear()

    def _prepare_one(self) -> bool:
        """Make one request ahead of its time; False if there is none to make."""
        if self._prepared_bytes > PREPARED_BYTES or self._requests.late:
            return False
        for call in self._replay.upcoming(AHEAD):
            if call.id not in self._bodies:
                made = self._bodies[call.id] = self._requests.made(
                    call, self._replay.program_of(call), 0.0
                )
                self._prepared_bytes += len(made[0])
                return True
        return False

    def _admit(self, due: Due) -> None:
        """Send a call that is due, or let it wait for one of the slots."""
        if self._slots is None or len(self._flying) < self._slots:
            # until it is sent it waited for nothing
            self._launch(due, due.due_s)
        else:
            self._waiting.append(due)

    def _launch(self, due: Due, admitted_s: float) -> None:
        task = asyncio.get_running_loop().create_task(self._one(due, admitted_s))
        self._flying.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        if self._waiting and not self._stopped:
            self._launch(self._waiting.popleft(), self._now())
        self._wake.set()

    async def _one(self, due: Due, admitted_s: float) -> None:
        try:
            await self._send(due, admitted_s)
        except Exception as fault:  # a call cannot fail here, so this is ours: end the replay
            self._fault = self._fault or fault

    async def _send(self, due: Due, admitted_s: float) -> None:
        call = due.call
        made = self._bodies.pop(call.id, None)
        if made is None:
            made = self._requests.made(call, self._replay.program_of(call), self._now())
        else:
            self._prepared_bytes -= len(made[0])
        replica = self._requests.pick(call)
        dispatched_s = self._now()
        os.write(self._log, sent_log.ENTRY.pack(call.number, dispatched_s))
        self._sent += 1
        self._lag_s = dispatched_s - admitted_s
        url = self._setup.urls[replica]
        retries = stale = 0
        while True:
            exchange = await self._client.send(url, *made)
            if exchange.stale and stale < STALE_TRIES:
                stale += 1
                self._reconnects += 1
            elif self._worth_another(exchange, retries):
                await asyncio.sleep(exchange.retry_after_s or 0.1 * 2**retries)
                retries += 1
            else:
                break
        self._requests.landed(call, replica)
        self._end(due, exchange, admitted_s, dispatched_s, replica, retries)

    def _worth_another(self, exchange: Exchange, retries: int) -> bool:
        """Whether to send a call again that failed before its answer began, as the user asked."""
        if self._stopped or retries >= self._setup.retries or exchange.status is None:
            return False
        status = exchange.status
        began = exchange.stream is not None and bool(exchange.stream.stamps)
        if status.startswith("http_"):
            return status in ("http_408", "http_429") or status >= "http_500"
        return not began and status in ("refused", "reset", "connection", "dns")

    def _end(
        self,
        due: Due,
        exchange: Exchange,
        admitted_s: float,
        dispatched_s: float,
        replica: int,
        retries: int,
    ) -> None:
        call = due.call
        ended = ended_of(due, exchange, self._zero_s)
        ended.admitted_s = admitted_s
        ended.dispatched_s = dispatched_s
        ended.replica = replica
        ended.retries = retries
        ok = exchange.status is None
        if ok and not call.last:
            stream = exchange.stream
            assert stream is not None
            answer = answers.read(
                self._requests.dialect, stream.blocks, stream.stamps, done=self._setup.done
            )
            ok = answer.status == OK
            self._requests.answered(call, answer.text)
        self._say(ended)
        assert ended.end_s is not None
        program = self._replay.program_of(call)
        for lost in self._replay.ended(call, ended.end_s, ok=ok):
            self._say(Ended(lost.number, NOT_SENT, None, ended.end_s, ended.end_s))
        if program is not None and self._replay.program_of(call) is None:
            self._requests.forget(program)

    def _say(self, message: object) -> None:
        self._outbox.append(packed(message))

    def _flush(self) -> None:
        if self._outbox:
            self._tell(b"".join(self._outbox))
            self._outbox.clear()

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._say_beat()
            self._flush()
            self._client.sweep()

    def _say_beat(self) -> None:
        self._say(
            Beat(
                sent=self._sent,
                in_flight=len(self._flying),
                waiting=len(self._waiting),
                lag_s=self._lag_s,
                late_s=self._late_s,
                cpu_s=time.process_time() - self._cpu_s,
                wall_s=self._now(),
                rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                reconnects=self._reconnects,
                inexact=self._requests.inexact,
            )
        )
        self._late_s = []

    async def _beat(self) -> None:
        """Notice how late the loop comes to a timer: as late as that it stamps a chunk."""
        rang = asyncio.Event()
        alarm = Alarm(asyncio.get_running_loop(), rang.set)
        due_s = time.monotonic()
        try:
            while True:
                due_s += BEAT_S
                alarm.set(due_s)
                await rang.wait()
                rang.clear()
                now_s = time.monotonic()
                self._late_s.append(max(0.0, now_s - due_s))
                due_s = max(due_s, now_s - BEAT_S)  # beats that were missed are not made up
        finally:
            alarm.close()


def ended_of(due: Due, exchange: Exchange, zero_s: float) -> Ended:
    """Return what the conductor is told of a call; `zero_s` is the run's second 0."""
    ended = Ended(
        number=due.call.number,
        status=exchange.status,
        error=exchange.error,
        due_s=due.due_s,
        ready_s=due.ready_s,
        end_s=exchange.end_s - zero_s,
    )
    stream = exchange.stream
    if stream is not None:
        ended.sent_s = stream.sent_s - zero_s
        ended.earlier = stream.earlier
        if stream.first_byte_s is not None:
            ended.first_byte_s = stream.first_byte_s - zero_s
        # of another status than 200, the body stands in `error`
        if stream.stamps and not (exchange.status or "").startswith("http_"):
            blocks = stream.blocks
            ended.body = b"".join(blocks)
            ended.stamps = array("d", [s - zero_s for s in stream.stamps]).tobytes()
            ended.ends = ends_of(blocks)
    return ended


def ends_of(blocks: list[bytes]) -> bytes:
    """Return where each block ends in the body they make, as an array of uint32."""
    ends, place = array("I"), 0
    for block in blocks:
        place += len(block)
        ends.append(place)
    return ends.tobytes()


class _Link(asyncio.Protocol):
    """The worker's end of the socket to the conductor."""

    def __init__(self) -> None:
        self._unpacker = Unpacker(Go | Stop)
        self.transport: asyncio.Transport | None = None
        self.go: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.worker: Worker | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            if isinstance(message, Go):
                self.go.set_result(message.zero_s)
            elif self.worker:
                self.worker.stop(now=message.now)
            if isinstance(message, Stop) and not self.go.done():
                self.go.cancel()

    def connection_lost(self, error: Exception | None) -> None:
        """Without a conductor nobody writes down what comes back: end at once."""
        os._exit(1)

    def tell(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


async def work(setup: Setup, link_socket: socket.socket) -> None:
    """Be a worker: make ready, wait for Go, replay, and say how it ended."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(_Link, sock=link_socket)
    log = os.open(setup.sent, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    client = Client(
        headers=setup.headers,
        timeout_s=setup.timeout_s,
        idle_s=setup.idle_s,
        reuse=setup.reuse,
        secrets=setup.secrets,
    )
    try:
        async with client:
            worker = link.worker = Worker(setup, client, link.tell, log)
            worker.prepare()
            _rare_collection()
            link.tell(packed(Ready()))
            await worker.run(await link.go)
        link.tell(packed(Finished()))
    except asyncio.CancelledError:  # stopped before it began
        link.tell(packed(Finished()))
    except Exception as fault:
        where = "".join(traceback.format_exception(fault))
        link.tell(packed(Fault(f"{type(fault).__name__}: {fault}", where)))
    finally:
        os.close(log)
    await _drained(link)


async def _drained(link: _Link) -> None:
    """Wait until the conductor has taken everything, and then until it hangs up."""
    while True:
        await asyncio.sleep(0.5)


def _rare_collection() -> None:
    """Keep the garbage collector from pausing the loop: it looks at what is new, and rarely.

    An answered call leaves no cycles; one whose connection failed leaves a few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def main(descriptor: int) -> None:
    """Read the setup from the socket and work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the conductor decides what Ctrl-C means
    link = socket.socket(fileno=descriptor)
    link.setblocking(True)
    (size,) = struct.unpack("<I", _exactly(link, 4))
    setup = msgspec.msgpack.decode(_exactly(link, size), type=Setup)
    link.setblocking(False)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(setup, link))


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            os._exit(1)
        data += more
    return data


if __name__ == "__main__":
    main(int(sys.argv[1]))
