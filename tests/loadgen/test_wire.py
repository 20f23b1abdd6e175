"""What is stamped, and when, against servers of raw bytes: every piece of HTTP is chosen here."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from servescope.loadgen import wire
from servescope.loadgen.wire import Stream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a task that is cancelled here would be logged as an error by asyncio's streams
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await script(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.close()


async def request_of(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)


async def posted(session: aiohttp.ClientSession, url: str) -> Stream:
    streams: list[Stream] = []
    wire.on_stream.set(streams.append)
    async with session.post(url, data=b"{}") as response:
        if fault := response.content.exception():
            raise fault
        await response.content.wait_eof()
    return streams[-1]


async def test_each_piece_has_the_moment_of_its_arrival() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for data in (b"one", b"two"):
            await asyncio.sleep(0.15)
            writer.write(chunk(data))
        writer.write(chunk(b"three") + b"0\r\n\r\n")

    async with raw_server(script) as url, wire.open_session({}) as session:
        stream = await posted(session, url)
    assert stream.blocks == [b"one", b"two", b"three"]
    assert len(stream.stamps) == 3
    assert stream.first_byte_s is not None
    assert stream.sent_s <= stream.first_byte_s <= stream.stamps[0]
    assert stream.stamps[0] - stream.first_byte_s >= 0.14
    assert stream.stamps[1] - stream.stamps[0] >= 0.14


async def test_a_body_without_a_length_that_ends_with_the_connection_is_whole() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"Connection: close\r\n\r\nall of it")
        writer.close()

    async with raw_server(script) as url, wire.open_session({}) as session:
        stream = await posted(session, url)
    assert b"".join(stream.blocks) == b"all of it"
    assert len(stream.blocks) == len(stream.stamps)


@pytest.mark.parametrize("end", [b"", b"Connection: close\r\n"])
async def test_a_response_in_one_packet_is_stamped_though_its_connection_is_let_go(
    end: bytes,
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(HEAD + end + b"Content-Length: 5\r\n\r\nwhole")

    async with raw_server(script) as url, wire.open_session({}) as session:
        first, second = await posted(session, url), await posted(session, url)
    for stream in (first, second):
        assert stream.blocks == [b"whole"]
        assert len(stream.stamps) == 1
    assert (first.earlier, second.earlier) == (0, 0 if end else 1)
    assert first.stamps[0] < second.sent_s


async def test_without_reuse_every_request_has_a_connection_of_its_own() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request_of(reader)
        writer.write(HEAD + b"Content-Length: 1\r\n\r\nx")
        await reader.read()

    async with raw_server(script) as url, wire.open_session({}, reuse=False) as session:
        streams = [await posted(session, url) for _ in range(3)]
    assert connections == 3
    assert [stream.earlier for stream in streams] == [0, 0, 0]


async def test_a_stamp_is_taken_where_the_bytes_arrive_and_not_where_a_task_reads_them() -> None:
    """A loop that is busy after the arrival delays the reader, and must not delay the stamp."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"Content-Length: 5\r\n\r\nwhole")

    async with raw_server(script) as url, wire.open_session({}) as session:
        streams: list[Stream] = []

        def busy() -> None:
            if streams and streams[0].stamps:
                time.sleep(0.2)  # stands for work of other tasks on this loop
            else:
                asyncio.get_running_loop().call_soon(busy)

        wire.on_stream.set(streams.append)
        asyncio.get_running_loop().call_soon(busy)
        async with session.post(url, data=b"{}") as response:
            await response.content.wait_eof()
        read_s = time.monotonic()
    assert read_s - streams[0].stamps[0] >= 0.15


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ssl.SSLError(1, "certificate verify failed"), "tls"),
        (ConnectionRefusedError(111, "no"), "refused"),
        (ConnectionResetError(104, "gone"), "reset"),
        (BrokenPipeError(32, "gone"), "reset"),
        (aiohttp.ServerDisconnectedError(), "reset"),
        (aiohttp.ClientPayloadError("not completed"), "reset"),
        (OSError(113, "no route"), "connection"),
        (aiohttp.InvalidURL("x"), "connection"),
    ],
)
def test_every_fault_of_a_connection_has_a_status(error: Exception, status: str) -> None:
    assert wire.fault_of(error)[0] == status
    assert wire.fault_of(error)[1]
