"""What this machine's client can do, measured against a server whose truth is known."""

from __future__ import annotations

import os
import platform
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.null_server import Served, serving
from servescope.traces.errors import InputError, OutputFailed
from servescope.traces.run import Run

TTFT_S, TBT_S, TOKENS = 0.05, 0.01, 128
RATES = (25.0, 50.0, 100.0, 200.0, 400.0, 800.0)
GOOD = 0.1  # error of a tail up to which a rate counts as sustained
HOPELESS = 0.5
_UNPACED = 2000, 64, 64  # calls, tokens, at a time


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rate, and how far the client's numbers were from the server's truth.

    Errors of tails are relative, with the sign of what the client says too much. `stamp_p99_s` is
    how long after a token was written it was stamped; `lag_p99_s` how late calls were sent.
    """

    rate_rps: float
    token_rate: float
    delivered: float
    ttft_p50_error_s: float
    ttft_p99_error: float
    gap_p99_error: float
    stamp_p99_s: float
    lag_p99_s: float
    cpu_share: float
    validity: str

    @property
    def error(self) -> float:
        """The greater error of the two tails."""
        return max(abs(self.ttft_p99_error), abs(self.gap_p99_error))


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine's client can do: one worker unpaced, and `workers` at each rate in turn."""

    host: dict[str, str]
    version: str
    workers: int
    unpaced_rps: float
    unpaced_token_rate: float
    steps: tuple[Step, ...]

    @property
    def sustained(self) -> Step | None:
        """The last step up to which every error of a tail is at most 10 %; None if none is."""
        good = None
        for step in self.steps:
            if step.error > GOOD:
                break
            good = step
        return good

    def error_at(self, token_rate: float) -> float:
        """Return the error of tails at a rate of tokens, between the measured ones by line."""
        rates = [step.token_rate for step in self.steps]
        return float(np.interp(token_rate, rates, [step.error for step in self.steps]))


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
    """Return the calls a second of one worker, from the first one sent to the last one's end."""
    calls, tokens, at_once = _UNPACED
    with serving(0.0, 0.0) as url:
        spec = EndpointSpec(base_url=url, workers=1, max_concurrency=at_once)
        run = _replayed(work / "unpaced", [0.0] * calls, tokens, spec)
    ended = run.trace.collect()
    return calls / float(ended["end_s"].max() - ended["sent_s"].min())  # type: ignore[operator]


def _steps(work: Path, workers: int, seconds: float) -> Iterator[Step]:
    for number, rate in enumerate(RATES):
        rng = np.random.default_rng(number)
        arrivals = np.cumsum(rng.exponential(1 / rate, max(50, round(rate * seconds)))).tolist()
        with serving(TTFT_S, TBT_S) as url:
            spec = EndpointSpec(base_url=url, workers=workers)
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


def host() -> dict[str, str]:
    """Return what a calibration belongs to: the processor, its number, and Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": str(cores), "python": platform.python_version()}


def place() -> Path:
    """Return the file in which this machine's calibration is kept."""
    home = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(home) if home else Path.home() / ".cache") / "servescope" / "calibration.json"


def keep(calibration: Calibration, path: Path) -> None:
    """Write a calibration; raises OutputFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2))
    except OSError as error:
        raise OutputFailed.of(path, error) from None


def kept(path: Path) -> Calibration | None:
    """Return this machine's calibration, or None if there is none or it is another machine's.

    Raises InputError for a file that is no calibration.
    """
    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError:
        return None
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} is no calibration: {error}.", "Remove it, and calibrate again."
        ) from None
    return calibration if calibration.host == host() else None
