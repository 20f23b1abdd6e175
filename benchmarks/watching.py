"""What it costs a load generator to be watched: pairs of replays, one alone and one watched.

    python benchmarks/watching.py [pairs] [seconds] [calls a second]
    python benchmarks/watching.py parts [seconds] [calls a second]

Alone, a replay says nothing of itself. Watched, it writes live.json and counts what comes back, its
metrics are scraped every second, and another process reads its folder every second as a dashboard
does. The load is made-up calls of 50 tokens against the null server. The client is pinned to one
core, all else to another; which of a pair comes first alternates. CPU is that of the conductor and
its worker while calls were to be sent. A pair is measured again, and said to be, if programs that
are not ours took more than a twentieth of the client's core in either of its runs.

`parts` replays once and gives the rows of each second to what watches, by itself: CPU milliseconds
of this process that each second of a run takes more. A busy machine blurs them far less.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
from load_generator import CLIENT_CORE, SERVER_CORE, between, measured, ticks
from prometheus_client import CollectorRegistry, generate_latest
from scipy import stats

from servescope.analysis.metrics import METRICS, of_call
from servescope.analysis.progress import Progress
from servescope.loadgen import null_server, runner
from servescope.loadgen import watch as watches
from servescope.loadgen.conductor import Conductor
from servescope.loadgen.counts import Counts
from servescope.loadgen.endpoints import named
from servescope.loadgen.experiment import (
    ArrivalSpec,
    EndpointSpec,
    Experiment,
    SyntheticSpec,
    WorkloadSpec,
)
from servescope.loadgen.exporter import Exporter, Page
from servescope.loadgen.health import HostClock
from servescope.loadgen.messages import Beat
from servescope.loadgen.records import Journal
from servescope.loadgen.watch import Watch
from servescope.traces import Run
from servescope.traces.errors import NotARun

TOKENS, TTFT_S, TBT_S = 50, 0.05, 0.01
WAYS = ("alone", "watched")
OTHERS, MOST_TRIES = 0.05, 40
NAMES = {"cpu": "CPU s", "lag": "lag p99 ms"}


class Blind:
    """Stands for the watch of a run that says nothing of itself."""

    def __init__(self, *_: object, **__: object) -> None: ...

    async def keep_telling(self) -> None:
        await asyncio.Event().wait()

    def tell(self, **_: object) -> None: ...

    def seal(self, *_: object) -> None: ...


def replay(way: str, url: str, out: str, port: str, duration_s: str, rate: str) -> None:
    """Be the load generator."""
    experiment = Experiment(
        name=way,
        workload=WorkloadSpec(
            synthetic=SyntheticSpec(input_tokens=16, output_tokens=TOKENS),
            arrivals=ArrivalSpec(rate_rps=float(rate)),
            duration_s=float(duration_s),
        ),
        endpoint=EndpointSpec(base_url=url, workers=1, scrape_s=0.0),
    )
    if way == "alone":
        module: Any = runner
        module.Watch, module.Counts = Blind, lambda plan: None
        runner.replay(experiment, Path(out), step_back=True)
        return
    with Exporter.listening("127.0.0.1", int(port)) as exporter:
        runner.replay(experiment, Path(out), step_back=True, exporter=exporter)


def watch(out: str, port: str) -> None:
    """Scrape and read once a second, until the run is sealed."""
    progress, scrapes, took = None, 0, []
    due_s = time.monotonic()
    while progress is None or not progress.sealed:
        due_s += 1.0
        time.sleep(max(0.0, due_s - time.monotonic()))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                scrapes += len(page.read()) > 0
        except (urllib.error.URLError, OSError):
            pass  # not there yet, or no more
        try:
            progress = progress or Progress(Path(out))
        except NotARun:
            continue
        begun_s = time.perf_counter()
        progress.update()
        progress.seconds.height  # noqa: B018  what a page would draw
        took.append(time.perf_counter() - begun_s)
    used = ticks([os.getpid()])
    print(f"{scrapes} scrapes, {statistics.median(took) * 1e3:.0f} ms to read, {used:.1f} CPU s")


def busy_s() -> float:
    """Return the seconds that the client's core has been busy since the host started."""
    (line,) = (
        line.split()
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith(f"cpu{CLIENT_CORE} ")
    )
    spent = [int(field) for field in line[1:9]]
    return (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")


def once(way: str, work: Path, duration_s: str, rate: str) -> dict[str, float]:
    """Replay one way; returns CPU seconds, the p99 of lag (ms), and what others took of the core.

    That is a share of its time, and a little too much: the client's last moments are in it.
    """
    out = work / f"{way}-{time.monotonic_ns()}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    me = [sys.executable, str(Path(__file__))]
    with null_server.serving(TTFT_S, TBT_S) as url:
        watching = None
        if way == "watched":
            watching = subprocess.Popen(
                [*me, "watch", str(out), port], stdout=subprocess.PIPE, text=True
            )
        begun_s, before_s = time.monotonic(), busy_s()
        samples = measured([*me, "replay", way, url, str(out), port, duration_s, rate])
        took_s = time.monotonic() - begun_s
        others_s = busy_s() - before_s - max(used for _, used in samples)
        if watching is not None:
            print(f"  watched by: {watching.communicate(timeout=60)[0].strip()}", flush=True)
    info = Run.open(out).info
    zero_s = info.zero_monotonic_s or 0.0
    return {
        "cpu": between(samples, zero_s, zero_s + float(duration_s)),
        "lag": info.client["lag_p99_s"] * 1e3,
        "others": max(0.0, others_s) / took_s,
    }


def parts(duration_s: str = "20", rate: str = "100") -> None:
    """Print what each part of watching takes of a second."""
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    used: dict[str, list[float]] = {"count": [], "live.json": [], "page": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with null_server.serving(TTFT_S, TBT_S) as url:
            replay("alone", url, str(out), "0", duration_s, rate)
        run = Run.open(out)
        conductor = Conductor(
            Journal(run), named("openai"), [""], run.plan.height, done=True, counts=Counts(run.plan)
        )
        assert conductor.counts is not None
        watches.EARLY_S = 0.0  # from then on it is judged, too
        watch = Watch(run, conductor, conductor.counts, [""], host=HostClock())
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Page(watch))
        rows = run.rows.collect()
        for (_,), second in rows.sort("end_s").group_by(
            pl.col("end_s").floor(), maintain_order=True
        ):
            made = second.select(of_call(METRICS["ttft"]), of_call(METRICS["tpot"])).drop_nulls()
            conductor.tally.ttft_s.extend(made["ttft"])
            conductor.tally.tpot_s.extend(made["tpot"])
            conductor.hear(0, Beat(0, 0, 0, 0.0, [0.001] * 50, 0.2, time.monotonic(), 0, 0))
            for name, act in (
                ("count", lambda second=second: conductor.counts.take(second)),
                ("live.json", watch.tell),
                ("page", lambda: generate_latest(registry)),
            ):
                begun_s = time.process_time()
                act()
                used[name].append((time.process_time() - begun_s) * 1e3)
    for name, values in used.items():
        print(
            f"{name:10} {statistics.median(values):.2f} ms [{min(values):.2f} to {max(values):.2f}]"
        )
    print(f"together   {sum(map(statistics.median, used.values())):.2f} ms")


def told(differences: list[float], digits: int) -> str:
    """Return mean, its 95 % interval by Student's t, median and range."""
    mean = statistics.mean(differences)
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return (
        f"{mean:+.{digits}f} (95 % {mean - half:+.{digits}f} to {mean + half:+.{digits}f}),"
        f" median {statistics.median(differences):+.{digits}f},"
        f" {min(differences):+.{digits}f} to {max(differences):+.{digits}f}"
    )


def main(pairs: int = 8, duration_s: str = "20", rate: str = "100") -> None:
    os.sched_setaffinity(0, {int(SERVER_CORE)})  # and so what it starts, but for the client
    rows: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(MOST_TRIES):
            order = WAYS if len(rows) % 2 == 0 else WAYS[::-1]
            pair = {way: once(way, Path(folder), duration_s, rate) for way in order}
            quiet = all(row["others"] <= OTHERS for row in pair.values())
            told_of = "; ".join(
                f"{way} {row['cpu']:.2f} CPU s, lag p99 {row['lag']:.3f} ms, others"
                f" {row['others']:.0%}"
                for way, row in pair.items()
            )
            print(f"pair {turn + 1}: {told_of}" + ("" if quiet else " (again)"), flush=True)
            rows += [pair] if quiet else []
            if len(rows) == pairs:
                break
    if len(rows) < 2:
        raise SystemExit("The machine was never quiet.")
    for key, name in NAMES.items():
        for way in WAYS:
            values = [row[way][key] for row in rows]
            low, high = min(values), max(values)
            print(f"{name:11} {way:8} {statistics.median(values):.3f} [{low:.3f} to {high:.3f}]")
        differences = [row["watched"][key] - row["alone"][key] for row in rows]
        print(f"{name:11} watched - alone: {told(differences, 3)}")
    shares = [100 * (row["watched"]["cpu"] / row["alone"]["cpu"] - 1) for row in rows]
    print(f"CPU %       watched / alone - 1: {told(shares, 1)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["replay", *rest]:
            replay(*rest)
        case ["watch", *rest]:
            watch(*rest)
        case ["parts", *rest]:
            parts(*rest)
        case [pairs, *rest]:
            main(int(pairs), *rest)
        case _:
            main()
