"""From an experiment to a sealed run directory: the table of contents of a replay."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from servescope.loadgen import experiment as experiments
from servescope.loadgen.client import Client
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.live import LiveReplay, Tally
from servescope.loadgen.probe import Probe, probe
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Journal
from servescope.loadgen.replay import Replay
from servescope.loadgen.validity import Health, judge
from servescope.loadgen.workload import Workload, digest
from servescope.traces.catalog import load
from servescope.traces.errors import InputError
from servescope.traces.run import Run, RunInfo, refuse_taken
from servescope.traces.sessions import forget_sessions, infer_sessions
from servescope.traces.trace import Trace

Progress = Callable[[Tally], None]
PROGRESS_S = 0.2


def workload_of(spec: WorkloadSpec) -> Workload:
    """Read the trace, cut and stretch it as asked, and make its workload."""
    trace = load(spec.trace, format=spec.format)
    end_s = None if spec.duration_s is None else spec.start_s + spec.duration_s
    if spec.start_s or end_s is not None:
        trace = trace.window(spec.start_s, end_s)
    if spec.calls is not None:
        trace = trace.head(spec.calls)
    if spec.sessions == "none":
        trace = forget_sessions(trace)
    elif _has_only_prefixes(trace):
        trace = infer_sessions(trace)
    if spec.time_scale != 1.0:
        trace = trace.scale_rate(1 / spec.time_scale)
    return Workload.of(trace)


def replay(experiment: Experiment, out: Path, on_progress: Progress | None = None) -> Run:
    """Replay an experiment against its endpoint in real time and seal the run.

    SIGINT stops it early: what has ended is kept, what is in flight is recorded as cancelled, and
    the run says that it was interrupted. Raises EndpointError before anything is written if the
    endpoint cannot serve, and OutputExists if `out` is taken.
    """
    endpoint = experiment.endpoint
    if endpoint is None:
        raise InputError(
            f"The experiment '{experiment.name}' has no [endpoint] to replay against.",
            "Add one, or simulate it.",
        )
    refuse_taken(out)
    workload = workload_of(experiment.workload)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_replay(experiment, endpoint, workload, out, on_progress))


async def _replay(
    experiment: Experiment,
    endpoint: EndpointSpec,
    workload: Workload,
    out: Path,
    on_progress: Progress | None,
) -> Run:
    probed = await probe(endpoint)
    plan = workload.plan()
    info = begin_info(experiment, workload, plan, clock="real", system=experiment.name)
    info = msgspec.structs.replace(
        info, model=probed.model, endpoint=endpoint.base_url, probe=msgspec.to_builtins(probed)
    )
    run = Run.create(out, experiments.to_toml(experiment), plan, info)
    prompts = Prompts(experiment.seed, workload.block_tokens)
    async with Client(endpoint, reuse=probed.reuse) as client:
        with Journal(run.journal) as journal:
            live = LiveReplay(Replay(workload), client, prompts, probed.model, journal)
            live.prepare(_by_due(workload, plan))
            with _stopping(live) as stopped, _no_collection():
                cpu_s, wall_s = time.process_time(), time.monotonic()
                async with asyncio.TaskGroup() as group:
                    reporter = group.create_task(_report(live.tally, on_progress))
                    await live.run()
                    reporter.cancel()
                cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
    return seal(run, info, probed, cpu_share, interrupted=bool(stopped))


def begin_info(
    experiment: Experiment, workload: Workload, plan: pl.DataFrame, *, clock: Any, system: str
) -> RunInfo:
    """Return what is known of a run before its first call."""
    return RunInfo(
        name=experiment.name,
        system=system,
        clock=clock,
        version=version("servescope"),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=experiment.seed,
        slo=experiment.slo,
        plan_sha256=digest(plan, experiment.seed),
        planned_calls=plan.height,
        host=_host(),
        workload={
            "programs": len(workload.programs),
            "multi_turn_programs": sum(len(p.calls) > 1 for p in workload.programs),
            "left_out": workload.left_out,
        },
        doubts=workload.doubts,
    )


def seal(run: Run, info: RunInfo, probed: Probe, cpu_share: float, *, interrupted: bool) -> Run:
    """Turn the journal of a live run into its table and write down whether it can be believed."""
    calls = run.trace.collect()
    health = Health.of(calls, cpu_share)
    validity, doubts = judge(calls, run.plan, health, interrupted=interrupted)
    run.seal(
        msgspec.structs.replace(
            finish_info(info, calls),
            interrupted=interrupted,
            client=health.as_dict(),
            validity=validity,
            doubts=(*info.doubts, *probed.doubts, *doubts),
        )
    )
    return Run.open(run.path)


def finish_info(info: RunInfo, calls: pl.DataFrame) -> RunInfo:
    """Return the info with when the run ended and how long its calls took."""
    return msgspec.structs.replace(
        info,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        duration_s=calls["end_s"].max(),
    )


def _has_only_prefixes(trace: Trace) -> bool:
    names = trace.columns
    return "prefix_blocks" in names and "parents" not in names


def _by_due(workload: Workload, plan: pl.DataFrame) -> list[Any]:
    calls = {call.id: call for call in workload.calls()}
    return [calls[name] for name in plan.sort("due_s", nulls_last=True)["call_id"]]


async def _report(tally: Tally, on_progress: Progress | None) -> None:
    while on_progress:
        on_progress(tally)
        await asyncio.sleep(PROGRESS_S)


@contextmanager
def _stopping(live: LiveReplay) -> Iterator[list[bool]]:
    """Let the first SIGINT stop the replay in good order; a second one ends the program."""
    stopped: list[bool] = []
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopped.append(True)
        live.stop()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread
        yield stopped
        return
    try:
        yield stopped
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from pausing the loop: a replay makes no cycles worth a pause."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _host() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_1m": load,
    }
