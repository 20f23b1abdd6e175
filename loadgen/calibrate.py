"""What this machine's client can do, measured against a server whose truth is known."""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from servescope.loadgen import runner
from servescope.loadgen.calibration import Calibration, Step, host
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.null_server import Served, serving
from servescope.traces.run import Run

TTFT_S, TBT_S, TOKENS = 0.05, 0.01, 128
RATES = (25.0, 50.0, 100.0, 200.0, 400.0, 800.0)
HOPELESS = 0.5
_UNPACED = 2000, 64, 64  # calls, tokens, at a time


def calibrate(
    workers: int = 1,
    seconds: float = 6.0,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Calibration:
    """Measure the client of this machine, rate after rate, until its tails are hopeless."""
    with tempfile.TemporaryDirectory(prefix="servescope-calibrate-") as folder:
        work = Path(folder)
        rps = _unpaced(work)
        steps = []
        for step in _steps(work, workers, seconds):
            steps.append(step)
            on_step(step)
    return Calibration(
        host=host(),
        version=version("servescope"),
        workers=workers,
        unpaced_rps=rps,
        unpaced_token_rate=rps * _UNPACED[1],
        steps=tuple(steps),
    )


def _unpaced(work: Path) -> float:
    """Return the calls a second of one worker, whose answers come whole."""
    calls, tokens, at_once = _UNPACED
    with serving(0.0, 0.0) as url:
        spec = EndpointSpec(base_url=url, workers=1, max_concurrency=at_once, scrape_s=0)
        run = _replayed(work / "unpaced", [0.0] * calls, tokens, spec)
    rps: float = run.info.client["calls_per_s"]
    return rps


def _steps(work: Path, workers: int, seconds: float) -> Iterator[Step]:
    for number, rate in enumerate(RATES):
        rng = np.random.default_rng(number)
        arrivals = np.cumsum(rng.exponential(1 / rate, max(50, round(rate * seconds)))).tolist()
        with serving(TTFT_S, TBT_S) as url:
            spec = EndpointSpec(base_url=url, workers=workers, scrape_s=0)
            run = _replayed(work / f"rate-{rate:g}", arrivals, TOKENS, spec)
            truth = _truth(url)
        step = step_of(run, truth, rate)
        yield step
        if step.error > HOPELESS:
            return


def _replayed(out: Path, arrivals: list[float], tokens: int, spec: EndpointSpec) -> Run:
    trace = out.with_suffix(".csv")
    rows = "\n".join(f"{at_s:.9f},32,{tokens}" for at_s in arrivals)
    trace.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")
    workload = WorkloadSpec(trace=str(trace), sessions="none")
    return runner.replay(Experiment(name=out.name, workload=workload, endpoint=spec), out)


def _truth(url: str) -> dict[str, Served]:
    with urllib.request.urlopen(f"{url}/truth") as answer:
        served = msgspec.json.decode(answer.read(), type=list[Served])
    return {one.name: one for one in served}


def step_of(run: Run, truth: dict[str, Served], rate: float) -> Step:
    """Compare what a run says with what the server did, call by call and token by token."""
    calls = run.trace.collect().filter(pl.col("status") == "ok")
    zero_s = run.info.zero_monotonic_s or 0.0
    said_ttft, true_ttft, said_gaps, true_gaps, stamps, arrived = [], [], [], [], [], []
    for name, sent_s, chunk_s in calls.select("response_id", "sent_s", "chunk_s").iter_rows():
        served = truth[name]
        said, true = np.array(chunk_s) + zero_s, np.array(served.sent_s)
        said_ttft.append(said[0] - sent_s - zero_s)
        true_ttft.append(true[0] - served.arrived_s)
        said_gaps.append(np.diff(said))
        true_gaps.append(np.diff(true))
        stamps.append(said - true)
        arrived.append(served.arrived_s)
    due = calls["due_s"].sort()
    wanted = float(due[-1] - due[0])
    return Step(
        rate_rps=rate,
        token_rate=rate * TOKENS,
        delivered=wanted / (max(arrived) - min(arrived)),
        ttft_p50_error_s=_at(said_ttft, 0.5) - _at(true_ttft, 0.5),
        ttft_p99_error=_at(said_ttft, 0.99) / _at(true_ttft, 0.99) - 1,
        gap_p99_error=_at(np.concatenate(said_gaps), 0.99) / _at(np.concatenate(true_gaps), 0.99)
        - 1,
        stamp_p99_s=_at(np.concatenate(stamps), 0.99),
        lag_p99_s=_at((calls["dispatched_s"] - calls["admitted_s"]).to_numpy(), 0.99),
        cpu_share=run.info.client["cpu_share"],
        validity=run.info.validity,
    )


def _at(values: object, share: float) -> float:
    return float(np.quantile(np.asarray(values, dtype=float), share))
