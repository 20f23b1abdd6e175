"""A proxy on loopback that stands before a real streaming server and plants faults.

It speaks HTTP to its client byte by byte, so that every way in which a response can go wrong can be
made to happen; what it does not spoil is the server's own answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
AFTER = 2  # events that pass before a fault in the middle of a stream
Plan = Callable[[bytes], str | None]


@dataclass
class FaultProxy:
    """`plan` says which fault meets a request, by its body; `met` counts what was planted."""

    target: str
    plan: Plan
    url: str = ""
    requests: int = 0
    met: Counter[str | None] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests, until a fault or the client ends it."""
        if task := asyncio.current_task():
            self.tasks.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                if head.startswith(b"GET"):
                    await self._get(head.split(b" ")[1].decode(), writer)
                    continue
                self.requests += 1
                fault = self.plan(body)
                self.met[fault] += 1
                if not await self._answer(fault, body, writer):
                    break
        writer.close()

    async def _get(self, path: str, writer: asyncio.StreamWriter) -> None:
        async with aiohttp.ClientSession() as session, session.get(self.target + path) as answer:
            said = await answer.read()
        _whole(writer, 200, said)

    async def _answer(self, fault: str | None, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; False if the connection ends with it."""
        match fault:
            case "http_400" | "http_500" | "http_503":
                _whole(writer, int(fault[5:]), b'{"error":{"message":"planted"}}')
                return True
            case "http_429":
                _whole(writer, 429, b"slow down", b"Retry-After: 0\r\n")
                return True
            case "reset before":
                _reset(writer)
                return False
            case "unstreamed":
                _whole(writer, 200, b'{"choices":[{"text":"all of it"}]}')
                return True
            case "silent":
                writer.write(STREAM)
                await asyncio.sleep(30)
                return False
        return await self._stream(fault, body, writer)

    async def _stream(self, fault: str | None, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(STREAM)
        async with aclosing(self._events(body)) as events:
            return await self._relay(fault, events, writer)

    async def _relay(
        self, fault: str | None, events: AsyncIterator[bytes], writer: asyncio.StreamWriter
    ) -> bool:
        passed = 0
        async for event in events:
            done, finishes = b"[DONE]" in event, b'"finish_reason":"' in event
            if fault == "trickle":
                await asyncio.sleep(0.4)
            if passed == AFTER:
                match fault:
                    case "reset in the stream":
                        await writer.drain()
                        await asyncio.sleep(0.02)  # so that what came before is read before it
                        _reset(writer)
                        return False
                    case "stalled":
                        await asyncio.sleep(30)
                    case "malformed":
                        writer.write(_chunk(b'data: {"choices":[{"te\n\n'))
                    case "server":
                        writer.write(_chunk(b'data: {"error":{"message":"engine died"}}\n\n'))
                    case "comments":
                        writer.write(_chunk(b": keep-alive\n\n"))
            if fault == "truncated" and (done or finishes or passed >= AFTER):
                break
            if fault == "no [DONE]" and done:
                break
            if fault and fault.startswith("usage") and b'"usage"' in event:
                event = _USAGE % _COUNT[fault]
            writer.write(_chunk(event))
            passed += 1
        writer.write(b"0\r\n\r\n")
        if fault == "close after":  # and a client that was told nothing uses it again
            await writer.drain()
            return False
        return True

    async def _events(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """Return the events of the server's own answer, as they come."""
        rest = b""
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.target}/v1/completions", data=body, headers=headers) as answer,
        ):
            async for data in answer.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    yield event + b"\n\n"


_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%b}}\n\n'
_COUNT = {"usage too small": b"1", "usage negative": b"-4", "usage no number": b'"many"'}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(writer: asyncio.StreamWriter, status: int, body: bytes, headers: bytes = b"") -> None:
    head = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    writer.write(head % (status, headers, len(body)) + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST instead of FIN."""
    link: socket.socket = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


@asynccontextmanager
async def fault_proxy(target: str, plan: Plan) -> AsyncIterator[FaultProxy]:
    """Listen on a free port of loopback as long as the context lasts."""
    proxy = FaultProxy(target, plan)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in proxy.tasks:
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
