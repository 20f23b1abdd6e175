"""The HTTP edge: sends one call and stamps what comes back."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from servescope.loadgen import endpoints
from servescope.loadgen import experiment as experiments
from servescope.loadgen.endpoints import Dialect, EventSplitter, Piece
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Record
from servescope.traces.errors import InputError
from servescope.traces.status import (
    CANCELLED,
    CONNECTION,
    MALFORMED,
    OK,
    SERVER,
    TIMEOUT,
    TRUNCATED,
)

Clock = Callable[[], float]

# Shorter than the 5 s after which common servers close an idle connection under the client's hands.
IDLE_S = 2.0
_BIG_BODY = 1 << 20


class Client:
    """An endpoint and the connections to it.

    `reuse` says whether connections outlive a call; some servers close them without saying so.
    """

    def __init__(self, spec: EndpointSpec, *, reuse: bool = True) -> None:
        self.spec = spec
        self.base_url = _base_url(spec.base_url)
        self.dialect: Dialect = endpoints.named(spec.backend)
        self.url = self.base_url + _path(spec.path or self.dialect.path)
        self.reuse = reuse
        self.reused = 0  # calls that went over a connection of an earlier call
        self.uncounted = 0  # answers without usage, whose chunks were counted instead
        self._key = os.environ.get(spec.api_key_env, "").strip()
        experiments.refuse_unwritable(spec.extra_body)
        self._session: aiohttp.ClientSession | None = None
        self._encode = msgspec.json.Encoder().encode

    async def __aenter__(self) -> Client:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connector = (
            aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)
            if self.reuse
            else aiohttp.TCPConnector(limit=0, force_close=True)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 18,  # the default of 64 KiB slows long streams down
            trace_configs=[self._connection_stamps()],
            auto_decompress=False,
        )
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

    def body(self, call: Call, prompts: Prompts, model: str) -> bytes:
        """Return the bytes of a call's request."""
        fields: dict[str, Any] = {
            "model": model,
            **self.dialect.body(call, prompts),
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.spec.ignore_eos:
            fields["ignore_eos"] = True
        return self._encode(fields | self.spec.extra_body)

    async def send(self, record: Record, body: bytes, clock: Clock) -> None:
        """Send a call and fill in its row. A failure is a status in the row, never an exception.

        Statuses besides ok: http_503 and the like (no redirect is followed), connection, timeout,
        truncated, malformed, server, cancelled: `servescope.traces.schema` explains them.
        What the server said is kept without the key, should it repeat it.
        """
        stamp: dict[str, float] = {}
        try:
            async with (
                asyncio.timeout(self.spec.timeout_s),
                self.session.post(
                    self.url,
                    # aiohttp warns of large plain bytes; a file object is written piece by piece
                    data=body if len(body) < _BIG_BODY else io.BytesIO(body),
                    trace_request_ctx=(stamp, clock),
                    allow_redirects=False,
                ) as response,
            ):
                record.first_byte_s = clock()
                if response.status == 200:
                    answer = await _read_stream(response, self.dialect, record, clock)
                    self.uncounted += record.status == OK and not answer.counted
                else:
                    said = (await response.content.read(2000)).decode(errors="replace")
                    record.status, record.error = f"http_{response.status}", said
        except TimeoutError:
            record.status = TIMEOUT
            record.error = f"no end after {self.spec.timeout_s:g} s"
        except asyncio.CancelledError:
            record.status, record.error = CANCELLED, "interrupted"
        except (aiohttp.ClientError, OSError) as error:
            record.status, record.error = CONNECTION, told(error)
        if self._key and record.error:
            record.error = record.error.replace(self._key, "***")
        record.sent_s = stamp.get("sent_s")
        record.end_s = clock()

    def _connection_stamps(self) -> aiohttp.TraceConfig:
        """Stamp the moment at which a request has a connection to be written to."""

        async def created(_session: object, context: Any, _params: object) -> None:
            if context.trace_request_ctx:
                stamp, clock = context.trace_request_ctx
                stamp["sent_s"] = clock()

        async def reused(session: object, context: Any, params: object) -> None:
            self.reused += 1
            await created(session, context, params)

        hooks = aiohttp.TraceConfig()
        hooks.on_connection_create_end.append(created)
        hooks.on_connection_reuseconn.append(reused)
        return hooks

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET; raises aiohttp.ClientError or OSError."""
        async with asyncio.timeout(10), self.session.get(self.base_url + path) as response:
            return response.status, await response.read()


def told(error: BaseException) -> str:
    """Return what went wrong with a connection, in the operating system's words if it has any."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror or str(cause)
    return str(cause) or type(cause).__name__


async def _read_stream(
    response: aiohttp.ClientResponse, dialect: Dialect, record: Record, clock: Clock
) -> _Answer:
    answer, split = _Answer(dialect), EventSplitter()
    try:
        async for data in response.content.iter_any():
            now = clock()
            answer.take(split.feed(data), now)
        answer.take(split.close(), clock())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        record.status, record.error = MALFORMED, str(error)
    else:
        if answer.error is not None:
            record.status, record.error = SERVER, answer.error
        elif answer.finish is None and not split.done:
            record.status = TRUNCATED
            record.error = "the stream ended with neither a finish_reason nor [DONE]"
        else:
            record.status = OK
    finally:
        answer.fill(record)
    return answer


class _Answer:
    """What a stream has said so far: when its chunks came, its token counts, how it ended."""

    __slots__ = ("_read", "_totals", "_usage", "chunk_s", "error", "finish")

    def __init__(self, dialect: Dialect) -> None:
        self._read = dialect.read
        self._totals: list[int] = []  # tokens so far after each chunk, where the server says so
        self._usage: Piece | None = None
        self.chunk_s: list[float] = []
        self.finish: str | None = None
        self.error: str | None = None

    @property
    def counted(self) -> bool:
        """Whether the server said how many tokens it made."""
        return self._usage is not None

    def take(self, events: list[bytes], now: float) -> None:
        """Read events that arrived together."""
        for event in events:
            piece = self._read(event)
            if piece.has_text:
                self.chunk_s.append(now)
            if piece.completion_tokens is not None:
                self._usage = piece
                if piece.has_text:
                    self._totals.append(piece.completion_tokens)
            if piece.finish is not None:
                self.finish = piece.finish
            if piece.error is not None:
                self.error = piece.error

    def fill(self, record: Record) -> None:
        """Write down what is known, also of an answer that broke off."""
        if self.chunk_s:
            record.first_token_s, record.last_token_s = self.chunk_s[0], self.chunk_s[-1]
        record.chunk_s = self.chunk_s
        record.output_tokens = len(self.chunk_s)
        if self._usage:
            record.output_tokens = self._usage.completion_tokens
            record.cached_tokens = self._usage.cached_tokens
            record.reasoning_tokens = self._usage.reasoning_tokens
            if self._usage.prompt_tokens is not None:
                record.input_tokens = self._usage.prompt_tokens
        if len(self._totals) == len(self.chunk_s) > 0:
            before = [0, *self._totals]
            record.chunk_tokens = [b - a for a, b in zip(before, self._totals, strict=False)]


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise InputError(f"'{path}' is not a path of an endpoint.", f"Write it like /{path}.")
    if experiments.SECRET.search(path):
        raise _secret_in("path")
    return path


def _secret_in(what: str) -> InputError:
    return InputError(
        f"The {what} holds what looks like a key or password, which would be written into the run.",
        "Put the key into an environment variable and name it with --api-key-env.",
    )


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(
            f"'{url}' is not a URL of a server.", "Write it like http://127.0.0.1:8000."
        )
    if parts.username or parts.password or experiments.SECRET.search(parts.query):
        raise _secret_in("URL")
    if parts.query or parts.fragment:
        raise InputError(
            f"'{url}' has more than a host and a path.", "Leave out what follows '?' or '#'."
        )
    return url.rstrip("/").removesuffix("/v1")
