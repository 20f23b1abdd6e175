"""A server that computes nothing: streams tokens at planned moments and remembers the truth.

`servescope calibrate` measures this machine's client against it. Run as a process of its own,
`python -m servescope.loadgen.null_server --ttft 0.05 --tbt 0.01`; it prints the port it listens on.
It speaks as much HTTP and OpenAI completions as our client needs, on loopback alone.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import msgspec

from servescope.loadgen.alarm import Alarm
from servescope.loadgen.loops import loop_factory

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
_STREAM = _OK % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n"
_CHOICE = b'"choices":[{"index":0,"text":" a","logprobs":null,"finish_reason":%s}]'


_COMMAND = [sys.executable, "-m", "servescope.loadgen.null_server"]


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Ask(msgspec.Struct):
    prompt: list[int] | str = ""
    max_tokens: int = 16
    stream_options: _Options | None = None


class Served(msgspec.Struct):
    """The truth of one request, in seconds of `time.monotonic()`.

    `name` is the id in its answer, `arrived_s` when it had come whole, `sent_s` when each token was
    written.
    """

    name: str
    arrived_s: float
    sent_s: list[float]


class _Answer:
    """A stream on its way."""

    __slots__ = ("connection", "end", "last", "left", "served", "token")

    def __init__(self, connection: Connection, served: Served, ask: _Ask) -> None:
        head = b'data: {"id":"%s","object":"text_completion","created":0,"model":"null",'
        head %= served.name.encode()
        self.connection = connection
        self.served = served
        self.left = max(1, ask.max_tokens)
        self.token = _chunk(head + _CHOICE % b"null" + b"}\n\n")
        self.last = _chunk(head + _CHOICE % b'"length"' + b"}\n\n")
        prompt = len(ask.prompt) if isinstance(ask.prompt, list) else len(ask.prompt.split())
        usage = b'"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n'
        self.end = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        if ask.stream_options and ask.stream_options.include_usage:
            self.end = _chunk(head + usage % (prompt, self.left)) + self.end


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class NullServer:
    """The streams on their way, in order of their next token; absolute deadlines throughout."""

    def __init__(self, ttft_s: float, tbt_s: float) -> None:
        self._ttft_s, self._tbt_s = ttft_s, tbt_s
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._ring)
        self._due: list[tuple[float, int, _Answer]] = []
        self._pushed = 0
        self._count = 0
        self.served: list[Served] = []

    def begin(self, connection: Connection, ask: _Ask, arrived_s: float) -> None:
        """Begin to answer a request."""
        served = Served(f"null-{self._count}", arrived_s, [])
        self._count += 1
        self.served.append(served)
        self._push(arrived_s + self._ttft_s, _Answer(connection, served, ask))
        self._wait()

    def _push(self, due_s: float, answer: _Answer) -> None:
        heapq.heappush(self._due, (due_s, self._pushed, answer))
        self._pushed += 1

    def _wait(self) -> None:
        if self._due:
            self._alarm.set(self._due[0][0])

    def _ring(self) -> None:
        """Write every token that is due; without a pace, a whole answer at once."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due_s, _, answer = heapq.heappop(self._due)
            transport = answer.connection.transport
            if transport is None or transport.is_closing():
                continue
            count = 1 if self._tbt_s > 0 else answer.left
            answer.left -= count
            answer.served.sent_s += [time.monotonic()] * count
            if answer.left:
                transport.write(answer.token)
                self._push(due_s + self._tbt_s, answer)
            else:
                transport.write(answer.token * (count - 1) + answer.last + answer.end)
        self._wait()


class Connection(asyncio.Protocol):
    """One client's connection, kept alive."""

    def __init__(self, server: NullServer) -> None:
        self._server = server
        self._rest = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the transport."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Take requests, each a head and as much body as it says."""
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end]
            size = _length(head)
            if len(self._rest) < end + 4 + size:
                return
            body = self._rest[end + 4 : end + 4 + size]
            self._rest = self._rest[end + 4 + size :]
            self._answer(head.split(b"\r\n", 1)[0].split(b" "), body)

    def _answer(self, request: list[bytes], body: bytes) -> None:
        assert self.transport is not None
        match request[:2]:
            case [b"POST", b"/v1/completions"]:
                arrived_s = time.monotonic()
                try:
                    ask = msgspec.json.decode(body, type=_Ask)
                except msgspec.DecodeError as error:
                    self._whole(400, str(error).encode())
                    return
                self.transport.write(_STREAM)
                self._server.begin(self, ask, arrived_s)
            case [b"GET", b"/v1/models"]:
                self._whole(200, b'{"object":"list","data":[{"id":"null"}]}')
            case [b"GET", b"/truth"]:
                self._whole(200, msgspec.json.encode(self._server.served))
                self._server.served.clear()
            case _:
                self._whole(404, b"there is nothing else here")

    def _whole(self, status: int, body: bytes) -> None:
        assert self.transport is not None
        said = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(said % (status, len(body)) + body)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(ttft_s: float, tbt_s: float) -> None:
    """Serve on a free port of loopback until whoever started it goes away."""
    loop = asyncio.get_running_loop()
    server = NullServer(ttft_s, tbt_s)
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gone = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), gone.set)
    await gone.wait()
    listening.close()


@contextmanager
def serving(ttft_s: float, tbt_s: float) -> Iterator[str]:
    """Run a null server in a process of its own; yields its base URL."""
    process = subprocess.Popen(
        [*_COMMAND, "--ttft", str(ttft_s), "--tbt", str(tbt_s)],
        stdin=subprocess.PIPE,  # which closes with this process, however it ends
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ttft", type=float, default=0.0, help="seconds to the first token")
    parser.add_argument("--tbt", type=float, default=0.0, help="seconds between tokens")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(options.ttft, options.tbt))


if __name__ == "__main__":
    main()
