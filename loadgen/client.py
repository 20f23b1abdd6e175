"""The HTTP edge: sends one request and keeps what came back, bytes and stamps, undecoded."""

from __future__ import annotations

import asyncio
import io
import time
from types import TracebackType

import aiohttp

from servescope.loadgen import wire
from servescope.loadgen.wire import Stream
from servescope.traces.status import CANCELLED, RESET, STALLED, TIMEOUT

_BIG_BODY = 1 << 20
_SAID = 2000  # characters of an error's body that are kept


class Exchange:
    """One request and what came back. `status` is None for a whole response of HTTP 200.

    Moments are seconds of `time.monotonic()`. `retry_after_s` is what the server asked for.
    """

    __slots__ = ("_answering", "_task", "end_s", "error", "retry_after_s", "status", "stream")

    def __init__(self) -> None:
        self.status: str | None = None
        self.error: str | None = None
        self.stream: Stream | None = None
        self.end_s = 0.0
        self.retry_after_s: float | None = None
        self._task = asyncio.current_task()
        self._answering = False

    def _opened(self, stream: Stream) -> None:
        self.stream = stream

    @property
    def body(self) -> bytes:
        """What came of the response's body."""
        return b"".join(self.stream.blocks) if self.stream else b""

    @property
    def stale(self) -> bool:
        """Whether a connection that was used before died under the request, before any byte.

        The server had closed it already, some without having said so; the request was not seen.
        """
        stream = self.stream
        return (
            self.status == RESET
            and stream is not None
            and stream.earlier > 0
            and stream.first_byte_s is None
        )


class Client:
    """Connections to one or several replicas of an endpoint, all asked the same way."""

    def __init__(
        self,
        *,
        headers: dict[str, str],
        timeout_s: float,
        idle_s: float,
        reuse: bool = True,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._headers = {"Content-Type": "application/json", **headers}
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._reuse = reuse
        self._secrets = secrets
        self._open: set[Exchange] = set()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        self._session = wire.open_session(self._headers, reuse=self._reuse)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session; only inside `async with`."""
        assert self._session is not None
        return self._session

    async def send(self, url: str, body: bytes, headers: dict[str, str] | None = None) -> Exchange:
        """POST a body and wait for the whole response. A failure is a status, never an exception.

        What the server said is kept without any secret, should it repeat one. No redirect is
        followed.
        """
        exchange = Exchange()
        wire.on_stream.set(exchange._opened)
        self._open.add(exchange)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(exchange, url, body, headers)
        except TimeoutError:
            exchange.status = TIMEOUT
            exchange.error = f"no end after {self._timeout_s:g} s"
        except asyncio.CancelledError:
            if exchange.status != STALLED:
                exchange.status, exchange.error = CANCELLED, "interrupted"
            elif task := asyncio.current_task():
                task.uncancel()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            exchange.status, exchange.error = wire.fault_of(error)
        finally:
            self._open.discard(exchange)
            exchange.end_s = time.monotonic()
        if exchange.error:
            for secret in self._secrets:
                exchange.error = exchange.error.replace(secret, "***")
        return exchange

    async def _exchange(
        self, exchange: Exchange, url: str, body: bytes, headers: dict[str, str] | None
    ) -> None:
        async with self.session.post(
            url,
            # aiohttp warns of large plain bytes; a file object is written piece by piece
            data=body if len(body) < _BIG_BODY else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
        ) as response:
            exchange._answering = True
            if fault := response.content.exception():
                raise fault
            await response.content.wait_eof()
            if response.status != 200:
                exchange.status = f"http_{response.status}"
                exchange.error = exchange.body[:_SAID].decode(errors="replace")
                if asked := response.headers.get("Retry-After"):
                    exchange.error = f"{exchange.error} (Retry-After: {asked[:40]})"
                    exchange.retry_after_s = _seconds(asked)

    def sweep(self) -> None:
        """End every response of which nothing was heard for the idle time; call it now and then."""
        before_s = time.monotonic() - self._idle_s
        for exchange in tuple(self._open):
            stream = exchange.stream
            if not exchange._answering or stream is None or exchange.status:
                continue
            heard_s = stream.stamps[-1] if stream.stamps else stream.first_byte_s
            if heard_s is not None and heard_s < before_s and exchange._task:
                exchange.status = STALLED
                exchange.error = f"no byte for {self._idle_s:g} s"
                exchange._task.cancel()

    async def get(self, url: str) -> tuple[int, bytes]:
        """Return status and body of a GET; raises aiohttp.ClientError, OSError or TimeoutError."""
        exchange = Exchange()
        wire.on_stream.set(exchange._opened)
        async with asyncio.timeout(10), self.session.get(url) as response:
            if fault := response.content.exception():
                raise fault
            await response.content.wait_eof()
            return response.status, exchange.body


def _seconds(text: str) -> float | None:
    """Read a Retry-After of seconds; a date there is passed over."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return None
