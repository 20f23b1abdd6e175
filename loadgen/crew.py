"""The workers of a run, as processes: started early, told what to do, listened to, ended by id."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

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

Listener = Callable[[int, Ended | Beat], None]
START_S = 30.0
SILENT_S = 20.0  # a worker says something ten times a second
LOOK_S = 1.0
END_S = 2.0


class WorkerFailed(Exception):
    """A worker died or could not go on: a fault of servescope or of this machine."""


class Crew:
    """Workers from their start to their end. Start them first: they load while the plan is made.

    It is left by `async with`, and where there is no loop yet by `with`.
    """

    def __init__(self, count: int) -> None:
        self._members: list[_Member] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        """Start more workers, until there are `count`."""
        while self.size < count:
            self._members.append(_Member.start(self.size))

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hang_up()
        await asyncio.to_thread(self._end)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()
        self._end()

    def _hang_up(self) -> None:
        for member in self._members:
            member.hang_up()

    def _end(self) -> None:
        while self._members:
            self._members.pop().end()

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._members)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [member.process.pid for member in self._members]

    async def prepare(self, setups: Sequence[Setup], listener: Listener) -> None:
        """Give each worker its setup and wait until all can begin; raises WorkerFailed."""
        for member, setup in zip(self._members, setups, strict=True):
            await member.connect(listener)
            member.tell(setup)
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*(member.ready for member in self._members))
        except TimeoutError:
            raise WorkerFailed(f"A worker was not ready within {START_S:g} s.") from None

    def go(self, zero_s: float) -> None:
        """Let all begin; `zero_s` of `time.monotonic()` is the run's second 0."""
        for member in self._members:
            member.tell(Go(zero_s))

    def stop(self, *, now: bool = False) -> None:
        """Let all send nothing more; `now` also gives up what is in flight."""
        for member in self._members:
            member.tell(Stop(now))

    async def finished(self) -> list[str]:
        """Wait until all have finished, and return how some failed, if any did.

        One that fails, or says nothing for `SILENT_S`, stops the others in good order: what they
        have in flight may end.
        """
        failures: list[str] = []
        waiting = {member.finished: member for member in self._members}
        while waiting:
            done, _ = await asyncio.wait(
                waiting, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                for member in waiting.values():
                    member.look()
            for future in done:
                del waiting[future]
                if error := future.exception():
                    failures.append(str(error))
                    self.stop()
        return failures


class _Member(asyncio.Protocol):
    """The conductor's end of one worker."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        self.number = number
        self.process = process
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._unpacker = Unpacker(Ended | Beat | Ready | Finished | Fault)
        self._hung_up = False
        self._silent = 0  # looks in a row at which it had said nothing since the last

    @classmethod
    def start(cls, number: int) -> _Member:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-m", "servescope.loadgen.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # Ctrl-C in the terminal reaches the conductor alone
        )
        theirs.close()
        return cls(number, process, ours)

    async def connect(self, listener: Listener) -> None:
        self._listener = listener
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._transport, _ = await loop.create_connection(lambda: self, sock=self._link)

    def tell(self, message: object) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(packed(message))

    def look(self) -> None:
        """Give the worker up that has been silent for too many looks.

        Looks are counted and not seconds: those in which this process itself slept do not count.
        """
        self._silent += 1
        if self._silent * LOOK_S > SILENT_S:
            self._fail(f"it has said nothing for {SILENT_S:g} s")
            self.process.kill()

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        for message in self._unpacker.feed(data):
            self._hear(message)

    def _hear(self, message: Any) -> None:
        assert self._listener
        match message:
            case Ended() | Beat():
                self._listener(self.number, message)
            case Ready():
                _settle(self.ready)
            case Finished():
                _settle(self.ready)
                _settle(self.finished)
            case Fault():
                self._fail(f"{message.what}\n{message.where}")

    def connection_lost(self, error: Exception | None) -> None:
        if not self._hung_up:
            self._fail("its process ended")

    def _fail(self, how: str) -> None:
        failure = WorkerFailed(f"Worker {self.number} failed: {how}")
        for future in (self.ready, self.finished):
            if not future.done():
                future.set_exception(failure)
                future.exception()  # seen: whoever waits still gets it

    def hang_up(self) -> None:
        self._hung_up = True
        if self._transport:
            self._transport.abort()
        else:
            self._link.close()

    def end(self) -> None:
        """Wait for the process, which ends when it is hung up on, and end it if it does not."""
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
