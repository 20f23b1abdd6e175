"""The page for Prometheus, asked over HTTP while a run goes on, against the run that it left."""

import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from background import Background
from prometheus_client.parser import text_string_to_metric_families

from servescope.analysis import SLO, Measured
from servescope.analysis.attainment import attained
from servescope.analysis.buckets import BOUNDS_S, Buckets
from servescope.engine import http
from servescope.engine.faults import Fault, Faults
from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.exporter import (
    HISTOGRAMS,
    HTTP_STATUSES,
    STATUSES,
    VALIDITIES,
    Exporter,
    folded,
)
from servescope.loadgen.simulate import cluster_of
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.live import Live

ENGINE = EngineSpec(system="sarathi", model="Llama-3.2-1B", tp=2, params={"chunk_tokens": "2048"})
SLO_TEXT = "ttft<50ms, tpot<5ms"
Page = dict[tuple[str, str], float]


@asynccontextmanager
async def failing_engine() -> AsyncIterator[str]:
    faults = Faults((Fault.parse("error-503:0.05"), Fault.parse("reset:0.05")), 3)
    served = web.AppRunner(
        http.make_app(cluster_of(ENGINE), ENGINE.model, faults=faults),
        handler_cancellation=True,
        access_log=None,
    )
    await served.setup()
    await web.TCPSite(served, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{served.addresses[0][1]}"
    await served.cleanup()


def asked(url: str, timeout_s: float = 30.0) -> str:
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        text: str = answer.read().decode()
        return text


def read(text: str) -> Page:
    """The samples by name and the value of their one label, if they have one."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    """A run with failures of several kinds, and every page while it went on."""
    pages: list[str] = []
    out = tmp_path_factory.mktemp("exporter") / "run"

    def keep_asking(url: str) -> None:
        try:
            while True:
                pages.append(asked(url))
        except (urllib.error.URLError, OSError):  # it went with the run
            return

    with Background(failing_engine()) as engine, Exporter.listening("127.0.0.1", 0) as exporter:
        asking = threading.Thread(target=keep_asking, args=(exporter.url,), daemon=True)
        asking.start()
        run = runner.replay(
            Experiment(
                name="live",
                workload=WorkloadSpec(trace="mooncake:sample", duration_s=20.0, time_scale=0.2),
                endpoint=EndpointSpec(base_url=engine),
                slo=SLO_TEXT,
            ),
            out,
            exporter=exporter,
        )
        asking.join(10)
    assert not asking.is_alive()
    return run, pages


def test_the_last_page_has_what_the_sealed_run_has(told: tuple[Run, list[str]]) -> None:
    run, pages = told
    page, calls, measured = read(pages[-1]), run.trace.collect(), Measured.of(run)
    by_status: dict[str, int] = {}
    for status, count in calls["status"].value_counts().iter_rows():
        by_status[folded(status)] = by_status.get(folded(status), 0) + count
    assert len(by_status) > 2  # the faults befell some
    for status in (*STATUSES, *HTTP_STATUSES):
        assert page["servescope_calls_finished_total", status] == by_status.get(status, 0)
    answered = calls.filter(calls["status"] == "ok")
    for name in ("input_tokens", "output_tokens"):
        assert page[f"servescope_{name}_total", ""] == answered[name].sum()
    assert page["servescope_calls_planned", ""] == run.plan.height
    sent = calls["dispatched_s"].count()
    assert page["servescope_calls_sent_total", ""] == sent
    assert page["servescope_calls_in_flight", ""] == page["servescope_calls_waiting", ""] == 0
    attainment = attained(measured, SLO.parse(SLO_TEXT))
    assert page["servescope_slo_judged_total", ""] == attainment.asked
    assert page["servescope_slo_met_total", ""] == attainment.met
    assert page["servescope_run_info", "run"] == 1
    for validity in VALIDITIES:
        assert page["servescope_run_validity", validity] == (validity == run.info.validity)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_every_histogram_counts_the_values_of_the_sealed_run_exactly(
    told: tuple[Run, list[str]], name: str
) -> None:
    run, pages = told
    page, sample = read(pages[-1]), Measured.of(run).sample(HISTOGRAMS[name].metric)
    values = np.repeat(sample.values, sample.weights)
    assert len(values) > 10
    assert page[f"{name}_count", ""] == len(values)
    assert page[f"{name}_sum", ""] == pytest.approx(values.sum(), rel=1e-9)
    bounds = [bound for key, bound in page if key == f"{name}_bucket"]
    assert len(bounds) > 80
    for bound in bounds:
        assert page[f"{name}_bucket", bound] == (values <= float(bound)).sum(), bound


def test_every_metric_and_field_has_its_line_in_the_reference(
    told: tuple[Run, list[str]],
) -> None:
    manual = Path(__file__).parents[2] / "docs" / "reference" / "client-metrics.md"
    listed = set(re.findall(r"`([a-z_0-9]+)`", manual.read_text()))
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name, _ in read(told[1][-1])}
    assert shown | set(Live.__struct_fields__) <= listed
    assert {name for name in listed if name.startswith("servescope_")} <= shown


def test_counters_only_grow_while_the_run_goes_on(told: tuple[Run, list[str]]) -> None:
    pages = [read(text) for text in told[1]]
    assert len(pages) > 5
    for before, after in pairwise(pages):
        assert before.keys() == after.keys()
        for key, value in before.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                assert after[key] >= value
        assert sum(after["servescope_run_validity", each] for each in VALIDITIES) == 1


def test_labels_are_few_whatever_a_server_says() -> None:
    assert folded("ok") == "ok"
    assert folded("timeout") == "timeout"
    assert folded("http_503") == folded("http_599") == "http_5xx"
    assert folded("http_429") == "http_4xx"
    for strange in ("http_999", "http_", "https_500", "OutOfMemory at 0x7f", ""):
        assert folded(strange) == "error"


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_bounds_are_close_enough_for_a_p99_within_fifteen_percent(name: str) -> None:
    shown = HISTOGRAMS[name]
    bounds = BOUNDS_S[shown.places]
    assert bounds[0] == shown.lowest_s <= 0.001
    assert bounds[-1] >= shown.highest_s >= 10.0
    assert (bounds[1:] / bounds[:-1]).max() <= 1.15
    for seed in range(5):
        values = np.random.default_rng(seed).lognormal(-2, 1, 2000).clip(0.001, shown.highest_s)
        durations = Buckets()
        durations.add(values)
        up_to = np.cumsum(durations.counts)[shown.places]
        exact = np.quantile(values, 0.99, method="inverted_cdf")
        assert interpolated(bounds, up_to, len(values), 0.99) == pytest.approx(exact, rel=0.15)


def interpolated(bounds: np.ndarray, up_to: np.ndarray, count: int, share: float) -> float:
    """What Prometheus' histogram_quantile makes of cumulative counts."""
    rank = share * count
    place = int(np.searchsorted(up_to, rank))
    low, before = (bounds[place - 1], up_to[place - 1]) if place else (0.0, 0)
    return float(low + (bounds[place] - low) * (rank - before) / (up_to[place] - before))


def test_a_place_that_is_taken_is_a_sentence_with_its_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"Port {port} of 127\.0\.0\.1 is taken .* or 0 for any"
        ):
            Exporter.listening("127.0.0.1", port)
    with pytest.raises(InputError, match=r"Metrics cannot be shown at 203\.0\.113\.7, port 0"):
        Exporter.listening("203.0.113.7", 0)


def test_an_address_of_version_six_stands_in_brackets() -> None:
    try:
        exporter = Exporter.listening("::1", 0)
    except InputError:
        pytest.skip("this host has no IPv6")
    with exporter:
        assert exporter.url.startswith("http://[::1]:")
