"""From an experiment to a sealed run directory: the table of contents of a replay."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from servescope.loadgen import experiment as experiments
from servescope.loadgen import run_info
from servescope.loadgen.client import Client
from servescope.loadgen.experiment import EndpointSpec, Experiment
from servescope.loadgen.live import LiveReplay, Progress
from servescope.loadgen.probe import probe
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Journal
from servescope.loadgen.replay import Replay
from servescope.loadgen.validity import Health, judge
from servescope.loadgen.workload import Workload, workload_of
from servescope.traces.errors import InputError
from servescope.traces.run import Run, refuse_taken


def replay(experiment: Experiment, out: Path, on_progress: Progress | None = None) -> Run:
    """Replay an experiment against its endpoint in real time and seal the run.

    SIGINT stops it early: what has ended is kept, what is in flight is recorded as cancelled, and
    the run says that it was interrupted. Raises EndpointError before anything is written if the
    endpoint cannot serve, OutputExists if `out` is taken, and OutputFailed if it cannot be written.
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
    info = run_info.begun(
        experiment, workload, plan, clock="real", system=experiment.name, model=probed.model
    )
    info = msgspec.structs.replace(
        info, endpoint=endpoint.base_url, probe=msgspec.to_builtins(probed)
    )
    run = Run.create(out, experiments.to_toml(experiment), plan, info)
    prompts = Prompts(experiment.seed, workload.block_tokens)
    async with Client(endpoint, reuse=probed.reuse) as client:
        with Journal(run.journal) as journal:
            live = LiveReplay(Replay(workload), client, prompts, probed.model, journal)
            live.prepare(_in_order(workload))
            with _stopping(live) as stopped, _rare_collection():
                cpu_s, wall_s = time.process_time(), time.monotonic()
                await live.run(on_progress)
                cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
    calls = run.trace.collect()
    health = Health.of(calls, cpu_share, live.heartbeat.late_s, client.uncounted)
    validity, doubts = judge(calls, run.plan, health, interrupted=bool(stopped))
    run.seal(
        msgspec.structs.replace(
            run_info.ended(info, calls),
            interrupted=bool(stopped),
            client=health.as_dict(),
            validity=validity,
            doubts=(*info.doubts, *probed.doubts, *doubts),
        )
    )
    return run


def _in_order(workload: Workload) -> list[Call]:
    """Return the calls roughly as they will be due, so that the first ones are prepared first."""
    starts = {program.id: program.start_s for program in workload.programs}
    return sorted(workload.calls(), key=lambda call: starts[call.program_id] + call.offset_s)


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
    except (ValueError, RuntimeError, NotImplementedError):  # another thread, or no signals here
        yield stopped
        return
    try:
        yield stopped
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Keep the garbage collector from pausing the loop: it looks at what is new, and rarely.

    An answered call leaves no cycles; one whose connection failed leaves a few.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
