"""What the load generator sees, for Prometheus: `GET /metrics`, from the conductor's process.

The page is made of numbers that are there anyway, by the process that writes records and never by
one that sends calls. Its labels are few, whatever a server says: statuses are those of
`traces.status`, those of HTTP by their first digit.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from servescope.analysis.buckets import BOUNDS_S, Buckets
from servescope.analysis.metrics import METRICS
from servescope.loadgen.watch import Watch
from servescope.traces import status as statuses
from servescope.traces.errors import InputError

LAST_S = 0.1  # what is asked while the run is sealed is answered after it
END_S = 1.0
STATUSES = tuple(
    value for name, value in vars(statuses).items() if name.isupper() and isinstance(value, str)
)
HTTP_STATUSES = tuple(f"http_{digit}xx" for digit in range(2, 6))
VALIDITIES = ("valid", "suspect", "invalid")
_EVERY = 6  # of the bounds: each is 14.5 % above the one before


class Shown(NamedTuple):
    """A histogram of the page: which metric, and between which bounds (s) its buckets are."""

    metric: str
    lowest_s: float = 1e-3
    highest_s: float = 600.0

    @property
    def places(self) -> slice:
        """Where its bounds stand in `BOUNDS_S`; the last is not below `highest_s`."""
        first = int(np.searchsorted(BOUNDS_S, self.lowest_s))
        last = int(np.searchsorted(BOUNDS_S, self.highest_s))
        return slice(first, last + _EVERY, _EVERY)


HISTOGRAMS: Mapping[str, Shown] = {
    "servescope_ttft_seconds": Shown("ttft"),
    "servescope_ttft_due_seconds": Shown("ttft_due"),
    "servescope_tbt_seconds": Shown("tbt"),
    "servescope_tpot_seconds": Shown("tpot"),
    "servescope_e2e_seconds": Shown("e2e"),
    "servescope_jct_seconds": Shown("jct"),
    "servescope_lag_seconds": Shown("lag", 1e-4, 10.0),
}


def folded(status: str) -> str:
    """Return a status as it stands on the page: one of `STATUSES` or `HTTP_STATUSES`."""
    if status in STATUSES:
        return status
    by_digit = f"{status[:6]}xx"
    return by_digit if by_digit in HTTP_STATUSES else statuses.FAILED


class Page(Collector):
    """The numbers of a watched run, as they are when they are asked for."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._labels = {
            name: [{"le": f"{bound:g}"} for bound in BOUNDS_S[shown.places]] + [{"le": "+Inf"}]
            for name, shown in HISTOGRAMS.items()
        }

    def collect(self) -> Iterator[Metric]:
        """Yield every family of the page."""
        watch, latest = self._watch, self._watch.latest
        tally, counts, info = watch.conductor.tally, watch.counts, watch.info
        told = GaugeMetricFamily(
            "servescope_run_info", "The run.", labels=("run", "system", "version")
        )
        told.add_metric((watch.folder.name, info.system, info.version), 1)
        yield told
        yield _gauge("run_seconds", "Seconds of the run.", tally.now_s)
        yield _gauge("calls_planned", "Calls that this process has to send.", tally.planned)
        yield _counter("calls_sent", "Calls that were sent.", tally.sent)
        yield _gauge("calls_in_flight", "Calls that were sent and have not ended.", tally.in_flight)
        yield _gauge(
            "calls_waiting", "Calls that wait for a slot of --max-concurrency.", tally.waiting
        )
        finished = CounterMetricFamily(
            "servescope_calls_finished", "Calls that have ended, by how.", labels=("status",)
        )
        ended = dict.fromkeys((*STATUSES, *HTTP_STATUSES), 0)
        for status, count in counts.statuses.items():
            ended[folded(status)] += count
        for status, count in ended.items():
            finished.add_metric((status,), count)
        yield finished
        yield _counter(
            "input_tokens", "Tokens of the prompts of answered calls.", counts.input_tokens
        )
        yield _counter("output_tokens", "Tokens of answers.", counts.output_tokens)
        for name, shown in HISTOGRAMS.items():
            yield self._histogram(name, shown.metric, counts.times[shown.metric])
        yield _counter("slo_judged", "Ended calls that the SLO was asked of.", tally.judged)
        yield _counter("slo_met", "Ended calls that met the SLO.", tally.met)
        yield _gauge(
            "client_cpu_ratio", "The busiest worker's part of a core.", latest.cpu_share or 0.0
        )
        yield _gauge(
            "stamp_lateness_seconds",
            "How late the workers' loops come to a timer, p99 of the last seconds.",
            latest.late_p99_s or 0.0,
        )
        validity = GaugeMetricFamily(
            "servescope_run_validity", "1 at the validity of the run so far.", labels=("validity",)
        )
        for each in VALIDITIES:
            validity.add_metric((each,), float(each == latest.validity))
        yield validity

    def _histogram(self, name: str, metric: str, durations: Buckets) -> Metric:
        up_to = np.cumsum(durations.counts)
        shown = Metric(name, METRICS[metric].says, "histogram")
        counts = (*up_to[HISTOGRAMS[name].places].tolist(), int(up_to[-1]))
        # what HistogramMetricFamily does, without making the same labels again at every scrape
        shown.samples = [
            *(
                Sample(f"{name}_bucket", *each)
                for each in zip(self._labels[name], counts, strict=True)
            ),
            Sample(f"{name}_count", {}, counts[-1]),
            Sample(f"{name}_sum", {}, durations.sum_s),
        ]
        return shown


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(f"servescope_{name}", says, value)


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(f"servescope_{name}", says, value)


class Exporter:
    """A place that Prometheus asks; taken before anything is sent, it answers while a run lasts."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server: web.AppRunner | None = None

    @classmethod
    def listening(cls, host: str, port: int) -> Exporter:
        """Take a place; port 0 is any free one. Raises InputError if it cannot be had."""
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return cls(socket.create_server((host, port), family=family))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"Port {port} of {host} is taken by another program.",
                    "Give another --metrics-port, or 0 for any free one.",
                ) from None
            raise InputError(
                f"Metrics cannot be shown at {host}, port {port}: {error.strerror or error}.",
                "Give --metrics-host an address of this machine, and a port from 1024.",
            ) from None

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    async def start(self, watch: Watch) -> None:
        """Answer with the page of a run, in the loop that runs now."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Page(watch))

        async def answer(_: web.Request) -> web.Response:
            return web.Response(
                body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )

        app = web.Application()
        app.router.add_get("/metrics", answer)
        self._server = web.AppRunner(app, access_log=None, shutdown_timeout=END_S)
        await self._server.setup()
        await web.SockSite(self._server, self._listener).start()

    async def stop(self) -> None:
        """Answer who has asked meanwhile, and no more."""
        if self._server is not None:
            await asyncio.sleep(LAST_S)
            await self._server.cleanup()
            self._server = None
