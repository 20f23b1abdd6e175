"""What each server says on /metrics, once a second on the run's own clock.

A page is mostly the same as the one before, so only its lines that changed are parsed, and only
those samples are written down.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp

from servescope.loadgen import wire
from servescope.loadgen.gpu import Sampler
from servescope.loadgen.metrics_page import MOST_SERIES, Page, Told, changes, read_page
from servescope.traces import server
from servescope.traces.errors import OutputFailed
from servescope.traces.server import HOST, Journal, Sample
from servescope.traces.status import DNS, REFUSED, RESET, TLS

MOST_BYTES = 8 << 20
FLUSH_S = 0.5
REST_S, REST_AFTER = 10.0, 3  # a server without the page is asked less often
LASTING = {*range(400, 500), 501}  # llama.cpp says 501 where its metrics are off
HOLES = 0.05  # share of scrapes that may fail before it is said

_FAULTS = {
    REFUSED: "refuses connections",
    DNS: "has no address",
    TLS: "has no valid certificate",
    RESET: "breaks connections off",
}


class _NoPage(Exception):
    """Why a scrape failed; `lasting` if the next one will most likely fail too."""

    def __init__(self, said: str, *, lasting: bool = False) -> None:
        super().__init__(said)
        self.said = said
        self.lasting = lasting


@dataclass
class _Endpoint:
    url: str
    asked: str  # where its page is, perhaps after a redirect
    page: Page = field(default_factory=Page)
    tried: int = 0
    failed: int = 0
    lasting: int = 0  # failures in a row that will most likely go on
    fault: str = ""
    cut: int = 0
    strange: int = 0
    known: bool = False

    @property
    def doubt(self) -> str | None:
        page = _page_url(self.url)
        if not self.tried:
            return None
        if self.failed == self.tried:
            return (
                f"{page} {self.fault}, so the queue and KV use of that server are not recorded;"
                " start it with its metrics on (SGLang: --enable-metrics, llama.cpp: --metrics)."
            )
        if self.failed > max(1, HOLES * self.tried):
            return (
                f"{self.failed} of {self.tried} scrapes of {page} failed (the last: it"
                f" {self.fault}), so what is recorded of that server has holes."
            )
        if not self.known:
            return (
                f"{page} says nothing of queue and KV use under a name that is known here; what it"
                f" says is in {server.TABLE}."
            )
        if self.cut:
            return f"{page} says {self.cut} series more than {MOST_SERIES}; they are left out."
        if self.strange:
            return f"{page} has {self.strange} lines that are no samples; they are left out."
        return None


class Scraper:
    """Asks every replica for its metrics, at once and then at each multiple of `every_s`.

    `clock` gives seconds of the run. `latest` has what each replica that answered its last scrape
    says, by its number: `running`, `waiting`, `kv_usage` (0 to 1) and the totals of
    `traces.server.KNOWN`; `hear` is told the same of each as it comes, nothing where it did not
    answer. A server that is slow or dead is never an error and holds up no other.
    """

    def __init__(
        self,
        urls: Sequence[str],
        folder: Path,
        clock: Callable[[], float],
        *,
        every_s: float = 1.0,
        headers: Mapping[str, str] | None = None,
        gpu: Sampler | None = None,
        hear: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self.latest: dict[int, dict[str, float]] = {}
        self._endpoints = [_Endpoint(url, _page_url(url)) for url in urls]
        self._journal: Journal | None = Journal(folder)
        self._unwritten: str | None = None
        self._clock = clock
        self._every_s = every_s
        self._headers = dict(headers or {})
        self._gpu = gpu
        self._hear = hear

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the run does not know of its servers, and why."""
        said = [endpoint.doubt for endpoint in self._endpoints]
        return tuple(text for text in (*said, self._unwritten) if text)

    async def run(self) -> None:
        """Scrape until cancelled; what came before that is written."""
        try:
            async with self._session() as session, asyncio.TaskGroup() as group:
                for number in range(len(self._endpoints)):
                    group.create_task(self._keep_scraping(session, number))
                if self._gpu is not None and self._gpu.reason is None:
                    group.create_task(self._on_every_tick(self._sample_gpu))
                group.create_task(self._keep_writing())
        finally:
            self._flush()

    async def finish(self, within_s: float = 0.3) -> None:
        """Scrape everything once more for the totals at the end, and write; `run` has ended."""
        limit = min(within_s, self._timeout_s)
        async with self._session() as session:
            await asyncio.gather(
                *(self._scrape(session, n, limit) for n in range(len(self._endpoints))),
                self._sample_gpu(),
            )
        self._flush()

    @property
    def _timeout_s(self) -> float:
        return 0.8 * self._every_s

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=wire.IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _on_every_tick(self, act: Callable[[], Awaitable[float]]) -> None:
        """Act now and at each tick that is not over yet; what it returns are seconds of rest."""
        rest_s = await act()
        tick = math.floor(self._clock() / self._every_s)
        while True:
            passed = math.floor(self._clock() / self._every_s)
            tick = max(tick, passed) + max(1, round(rest_s / self._every_s))
            while (left_s := tick * self._every_s - self._clock()) > 0:
                await asyncio.sleep(left_s)
            rest_s = await act()

    async def _keep_scraping(self, session: aiohttp.ClientSession, number: int) -> None:
        async def act() -> float:
            await self._scrape(session, number, self._timeout_s)
            return REST_S if self._endpoints[number].lasting >= REST_AFTER else 0.0

        await self._on_every_tick(act)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._flush()

    async def _scrape(self, session: aiohttp.ClientSession, number: int, limit_s: float) -> None:
        endpoint = self._endpoints[number]
        began_s = self._clock()
        told: list[Told] = []
        try:
            async with asyncio.timeout(limit_s):
                text = await _fetch(session, endpoint)
            took_s = self._clock() - began_s
            told = self._read(number, text)
        except _NoPage as error:
            fault, lasting = error.said, error.lasting
        except TimeoutError:
            fault, lasting = f"does not answer within {limit_s:.3g} s", False
        except (aiohttp.ClientError, OSError) as error:
            status = wire.fault_of(error)[0]
            fault, lasting = _FAULTS.get(status, "cannot be reached"), status == REFUSED
        except Exception as error:  # a look at a server must never end the measurement of it
            fault, lasting = f"cannot be read ({type(error).__name__})", False
        else:
            endpoint.lasting, fault = 0, ""
        endpoint.tried += 1
        if fault:
            took_s = self._clock() - began_s
            endpoint.failed += 1
            endpoint.fault = fault
            endpoint.lasting = endpoint.lasting + 1 if lasting else 0
            self.latest.pop(number, None)
        if self._hear:
            self._hear(number, self.latest.get(number, {}))
        told += (("up", "", 0.0 if fault else 1.0), ("scrape_duration_seconds", "", took_s))
        self._keep(began_s + took_s / 2, endpoint.url, told)

    def _read(self, number: int, text: str) -> list[Told]:
        endpoint = self._endpoints[number]
        page = read_page(text, endpoint.page)
        if page.strange and not page.series:
            raise _NoPage("answers with something else than Prometheus text", lasting=True)
        changed = changes(endpoint.page, page)
        endpoint.page = page
        endpoint.cut = max(endpoint.cut, page.cut)
        endpoint.strange = max(endpoint.strange, page.strange)
        self.latest[number] = server.live(page.series)
        endpoint.known = endpoint.known or bool(self.latest[number])
        return changed

    async def _sample_gpu(self) -> float:
        if self._gpu is None:
            return 0.0
        began_s = self._clock()
        told = await asyncio.to_thread(self._gpu.sample)
        self._keep((began_s + self._clock()) / 2, HOST, told)
        return 0.0

    def _keep(self, t_s: float, replica: str, told: Iterable[Told]) -> None:
        if self._journal is not None:
            self._journal.append(Sample(t_s, replica, *each) for each in told)

    def _flush(self) -> None:
        try:
            if self._journal is not None:
                self._journal.flush()
        except OutputFailed as error:
            self._journal = None
            self._unwritten = f"What the servers said of themselves is not recorded: {error.wrong}"


def _page_url(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1") + "/metrics"


async def _fetch(session: aiohttp.ClientSession, endpoint: _Endpoint) -> str:
    """Return the text of a page, after one redirect on the same server at most."""
    for _ in range(2):
        async with session.get(endpoint.asked, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                # such servers add a slash; anywhere else the headers, keys among them, must not go
                there = urljoin(endpoint.asked, response.headers.get("Location", ""))
                if urlsplit(there)[:2] == urlsplit(endpoint.asked)[:2]:
                    endpoint.asked = there
                    continue
            if response.status != 200:
                raise _NoPage(f"answers {response.status}", lasting=response.status in LASTING)
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise _NoPage(f"answers more than {MOST_BYTES >> 20} MB", lasting=True)
            return body.decode("utf-8", errors="replace")
    raise _NoPage("redirects to itself", lasting=True)
