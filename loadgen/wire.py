"""The wire: connections that stamp bytes at the moment they arrive, and nothing else.

A stamp is taken where the event loop hands over what the socket had, before any parsing, and not
where a coroutine gets round to reading it: on a busy loop the difference is the client's own queue.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from servescope.traces.status import CONNECTION, DNS, REFUSED, RESET, TLS

# Shorter than the 5 s after which common servers close an idle connection under the client's hands.
IDLE_S = 2.0
# A client that stops reading slows its server down, so nothing is ever too much to take.
READ_BUFFER = 1 << 30
_BROKEN = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN}


class Stream:
    """The bytes of one response's body as they came, and when (seconds of `time.monotonic()`).

    `sent_s` is just before the request is written, `first_byte_s` when anything came back;
    `earlier` counts the requests that the connection had carried before. `stamps` has one moment
    for each of `blocks`.
    """

    __slots__ = ("body", "earlier", "first_byte_s", "sent_s", "stamps")

    def __init__(self, sent_s: float, earlier: int) -> None:
        self.sent_s = sent_s
        self.earlier = earlier
        self.first_byte_s: float | None = None
        self.body: aiohttp.StreamReader | None = None
        self.stamps: list[float] = []

    @property
    def blocks(self) -> list[bytes]:
        """The body's bytes, as many pieces as there are stamps."""
        return [] if self.body is None else list(self.body._buffer)


# Told of the stream of each request that the current task makes, before the request is written.
on_stream: ContextVar[Callable[[Stream], None] | None] = ContextVar("on_stream", default=None)


class StampingHandler(ResponseHandler):
    """aiohttp's end of a connection, with a stamp on everything that arrives.

    Bodies stay where aiohttp's parser puts them: reading each piece would wake a coroutine a token.
    """

    _stream: Stream | None = None
    _carried = 0

    def set_response_params(self, **params: Any) -> None:
        """Begin a new request: aiohttp calls this once it has a connection, before it writes."""
        self._stream = Stream(time.monotonic(), self._carried)
        self._carried += 1
        if told := on_stream.get():
            told(self._stream)
        super().set_response_params(**params)

    def feed_data(self, data: tuple[Any, aiohttp.StreamReader], size: int = 0) -> None:
        """Take the head of a response and the body that is to come; aiohttp's parser calls this."""
        if self._stream is not None and isinstance(data[1], aiohttp.StreamReader):
            self._stream.body = data[1]
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Let aiohttp take the HTTP apart, and give what it found the moment of its arrival."""
        now = time.monotonic()
        super().data_received(data)
        stream = self._stream
        if stream is None:
            return
        if stream.first_byte_s is None:
            stream.first_byte_s = now
        if stream.body is not None:
            stamps = stream.stamps
            while len(stamps) < len(stream.body._buffer):
                stamps.append(now)


def open_session(headers: dict[str, str], *, reuse: bool = True) -> aiohttp.ClientSession:
    """Return a session of stamping connections, without limits or time-outs of its own.

    `reuse` says whether connections outlive a call. Certificates are verified; neither netrc nor
    proxy settings of the environment are looked at.
    """
    loop = asyncio.get_running_loop()
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S, ttl_dns_cache=None)
        if reuse
        else aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=None)
    )
    # aiohttp has no public place for this; test_wire.py fails should it ever stop working
    connector._factory = functools.partial(StampingHandler, loop=loop)  # type: ignore[assignment]
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        read_bufsize=READ_BUFFER,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def fault_of(error: BaseException) -> tuple[str, str]:
    """Return the status and the words of what went wrong with a connection."""
    words = _told(error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return TLS, words
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return DNS, words
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    if number == errno.ECONNREFUSED:
        return REFUSED, words
    broken = aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | aiohttp.ClientOSError
    if number in _BROKEN or (
        isinstance(error, broken) and not isinstance(error, aiohttp.ClientConnectorError)
    ):
        return RESET, words
    return CONNECTION, words


def _told(error: BaseException) -> str:
    """Return what went wrong, in the words of TLS or of the operating system if they have any."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _told(error.certificate_error)
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):  # whose errno is none of the operating system's
        return (getattr(cause, "reason", None) or str(cause)).replace("_", " ").lower()
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror or str(cause)
    return str(cause) or type(cause).__name__
