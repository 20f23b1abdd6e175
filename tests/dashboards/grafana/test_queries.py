"""Every query of every board, asked of a Prometheus that scrapes real targets while calls run."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import prometheus
import pytest
from llama import llama_server
from prometheus import Prometheus, free_port

from servescope.dashboards.grafana import BOARDS, write

pytestmark = [*prometheus.needed, pytest.mark.slow]

CLI = [sys.executable, "-m", "servescope.cli"]
LASTS_S = 60.0
QUERIES = sorted(
    {query.expr for board in BOARDS.values() for panel in board.panels for query in panel.queries}
)


@contextmanager
def engine() -> Iterator[str]:
    """The embedded engine as a user starts it; gives its URL."""
    command = [*CLI, "serve", "--system", "sarathi", "--prefix-cache", "--model", "Llama-3.2-1B"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--end-with-stdin"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextmanager
def load_generator(url: str, port: int, out: Path, *options: str) -> Iterator[None]:
    """A replay with its metrics on this port, which lasts longer than the test looks at it."""
    command = [*CLI, "replay", "--base-url", url, "--metrics-port", str(port), "--out", out]
    said = out.with_suffix(".log")
    with said.open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), "--duration", str(LASTS_S + 60), "--workers", "1", *options],
            stdout=log, stderr=log, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
    try:
        yield
        assert process.poll() is None, said.read_text()
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus by the file that we ship, on two servers and the two clients that load them."""
    folder = tmp_path_factory.mktemp("scraped")
    write(folder / "grafana")
    config = (folder / "grafana" / "prometheus.yml").read_text()
    clients = [free_port(), free_port()]
    random = ["--random-input-len", "64", "--random-output-len", "16", "--slo", "ttft<2s"]
    chats = ["--random-prefix-len", "200", "--turns", "2", "--think", "0.2", "--request-rate", "8"]
    with ExitStack() as stack:
        emulated, llama = stack.enter_context(engine()), stack.enter_context(llama_server())
        for theirs, ours in (
            ("127.0.0.1:8000", emulated.removeprefix("http://")),
            ("127.0.0.1:8080", llama.removeprefix("http://")),
            ('"127.0.0.1:9400"', ", ".join(f'"127.0.0.1:{port}"' for port in clients)),
        ):
            assert theirs in config
            config = config.replace(theirs, ours)
        stack.enter_context(
            load_generator(emulated, clients[0], folder / "engine", *random, *chats)
        )
        stack.enter_context(
            load_generator(
                llama, clients[1], folder / "llama", *random,
                *("--backend", "llamacpp", "--request-rate", "4"),
            )
        )  # fmt: skip
        yield stack.enter_context(prometheus.prometheus(config, folder))


def as_grafana_asks(expr: str, job: str = ".*", instance: str = ".*") -> str:
    """Put the variables in; a window of five scrapes."""
    for variable, value in (("__rate_interval", "5s"), ("job", job), ("instance", instance)):
        expr = expr.replace(f"${variable}", value.replace("\\", "\\\\"))
    assert "$" not in expr
    return expr


def metrics_of(expr: str) -> set[str]:
    return set(re.findall(r"([a-zA-Z_:][\w:]*)\{", expr))


def values(found: list[dict[str, Any]]) -> list[float]:
    return [float(each["value"][1]) for each in found]


def has_data(asked: Prometheus, expr: str) -> bool:
    """Tell whether it gives numbers; 0 / 0 passes where one of its metrics counts nothing yet."""
    found = values(asked.query(as_grafana_asks(expr)))
    if found and all(map(math.isnan, found)):
        return any(not any(values(asked.query(name))) for name in metrics_of(expr))
    return bool(found)


@pytest.fixture(scope="module")
def exported(scraped: Prometheus) -> set[str]:
    """What the targets say, once all four have had calls that are done."""
    done = (
        "vllm:e2e_request_latency_seconds_count > 0",
        "llamacpp:tokens_predicted_total > 0",
        "count(servescope_jct_seconds_count > 0) == 2",
    )
    until = time.monotonic() + LASTS_S
    while not all(map(scraped.query, done)):
        assert time.monotonic() < until, scraped.names()
        time.sleep(0.5)
    return scraped.names()


def test_a_query_whose_metrics_are_there_gives_data_and_any_other_is_understood(
    scraped: Prometheus, exported: set[str]
) -> None:
    """Which are there, the targets say themselves; what is not understood raises."""
    silent = {expr for expr in QUERIES if metrics_of(expr) <= exported}
    for expr in QUERIES:
        if expr not in silent:
            assert scraped.query(as_grafana_asks(expr)) == []
    until = time.monotonic() + LASTS_S
    while silent and time.monotonic() < until:
        silent = {expr for expr in silent if not has_data(scraped, expr)}
    assert silent == set()


def test_what_our_own_targets_say_is_all_that_their_boards_ask_for(exported: set[str]) -> None:
    """So none of the queries on these boards was only looked at for its syntax."""
    for name in ("load-generator", "llama-cpp"):
        for panel in BOARDS[name].panels:
            for query in panel.queries:
                assert metrics_of(query.expr) <= exported, panel.title


def test_a_fault_in_a_query_is_found(scraped: Prometheus) -> None:
    with pytest.raises(AssertionError, match="bad_data"):
        scraped.query("sum by (job (up)")
    assert not has_data(scraped, 'up{job="nobody"}')


def test_the_variables_find_systems_and_each_can_be_looked_at_alone(
    scraped: Prometheus, exported: set[str]
) -> None:
    for board in BOARDS.values():
        if board.anchor in exported:
            assert scraped.query(board.anchor)
    (sent,) = (
        query.expr
        for panel in BOARDS["load-generator"].panels
        for query in panel.queries
        if panel.title == "Calls so far" and query.legend.startswith("sent")
    )
    both = [each["metric"]["instance"] for each in scraped.query(as_grafana_asks(sent))]
    assert len(both) == 2
    for instance in both:
        chosen = as_grafana_asks(sent, "servescope", re.escape(instance))
        assert [each["metric"]["instance"] for each in scraped.query(chosen)] == [instance]
