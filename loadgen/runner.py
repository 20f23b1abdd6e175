"""From an experiment to a sealed run directory: the table of contents of a replay."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

from servescope.analysis.slo import SLO
from servescope.loadgen import calibration, run_info
from servescope.loadgen import experiment as experiments
from servescope.loadgen import resume as resumption
from servescope.loadgen.board import Board
from servescope.loadgen.calibration import Calibration
from servescope.loadgen.conductor import Conductor, Progress
from servescope.loadgen.counts import FOLLOWED, Counts
from servescope.loadgen.crew import Crew
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.gpu import Sampler
from servescope.loadgen.health import Health, HostClock
from servescope.loadgen.loops import loop_factory
from servescope.loadgen.messages import Setup
from servescope.loadgen.probe import Probe, probe
from servescope.loadgen.program import Program, write_programs
from servescope.loadgen.records import Journal
from servescope.loadgen.scrape import Scraper
from servescope.loadgen.target import Target
from servescope.loadgen.validity import judge
from servescope.loadgen.watch import Watch
from servescope.loadgen.workload import Workload, workload_of
from servescope.traces import sent_log
from servescope.traces.errors import InputError
from servescope.traces.run import Run, RunInfo, refuse_taken

if TYPE_CHECKING:
    from servescope.loadgen.exporter import Exporter

# What a worker does with stamps right to some percent; more has been measured, and less right.
TOKENS_A_WORKER = 12_800.0  # a second, each of them a chunk
STREAMS_A_WORKER = 256  # at a time, where nobody knows how fast they are
UNSEEN_PRIORITY = (
    "The server takes priorities, and no client can see whether it heeds them: vLLM does only with"
    " --scheduling-policy priority."
)
BEHIND = 19  # niceness; where all cores are full, a seventieth of one is left to write down with
LEAD_S = 0.02  # from the word to the replay's second 0, so that the first call is not late


def replay(
    experiment: Experiment,
    out: Path,
    on_progress: Progress | None = None,
    crew: Crew | None = None,
    *,
    step_back: bool = False,
    exporter: Exporter | None = None,
) -> Run:
    """Replay an experiment against its endpoint in real time and seal the run.

    `crew` are workers that have been started already, while this module was loaded, say. With
    `step_back` this process lets them go first where they share a core, from their start on and
    for good: it is for a process that does nothing else. An `exporter` answers Prometheus while
    the replay lasts.
    A first SIGINT stops it in good order: nothing more is sent, and what is in flight may end. A
    second one gives up what is in flight, whose calls become rows that were cancelled. Raises
    EndpointError before anything is written if the endpoint cannot serve, OutputExists if `out` is
    taken, and OutputFailed if it cannot be written.
    """
    endpoint = experiment.endpoint
    if endpoint is None:
        raise InputError(
            f"The experiment '{experiment.name}' has no [endpoint] to replay against.",
            "Add one, or simulate it.",
        )
    refuse_taken(out)
    return _watched(
        _replay(experiment, endpoint, out, None, on_progress, crew, step_back, exporter), exporter
    )


def resume(
    path: Path,
    on_progress: Progress | None = None,
    *,
    step_back: bool = False,
    exporter: Exporter | None = None,
) -> Run:
    """Send what a run that was stopped or killed has not sent, and seal it again.

    Raises NotARun for what is no run, and InputError if nothing is left or the trace has changed.
    """
    run = Run.open(path)
    experiment = resumption.experiment_of(run)
    assert experiment.endpoint is not None
    return _watched(
        _replay(experiment, experiment.endpoint, path, run, on_progress, None, step_back, exporter),
        exporter,
    )


def _watched(replaying: Coroutine[Any, Any, Run], exporter: Exporter | None) -> Run:
    """Replay in a loop of its own, in which the exporter ends after it."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(replaying)
        finally:
            if exporter is not None:
                runner.run(exporter.stop())


async def _replay(
    experiment: Experiment,
    endpoint: EndpointSpec,
    out: Path,
    stopped_run: Run | None,
    on_progress: Progress | None,
    early: Crew | None = None,
    step_back: bool = False,
    exporter: Exporter | None = None,
) -> Run:
    target = Target.of(endpoint)
    calibrated = calibration.kept(calibration.place())
    async with early or Crew(endpoint.workers or 1) as crew:  # loading while the plan is made
        wanted, until_s = experiment.workload, None
        if endpoint.users and wanted.duration_s is not None:
            # in a closed loop the trace's own moments do not count: the replay lasts that long
            until_s = wanted.duration_s
            wanted = msgspec.structs.replace(wanted, duration_s=None)
        # the endpoint is probed while the trace is read
        probing = asyncio.ensure_future(probe(target))
        try:
            planned = await asyncio.to_thread(_plan, experiment, wanted, stopped_run)
        except BaseException:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            raise
        workload, plan, info = planned.workload, planned.plan, planned.info
        if not endpoint.workers:
            crew.grow(workers_for(endpoint, workload.token_rate, calibrated))
        probed = await probing
        info = msgspec.structs.replace(
            info,
            model=probed.model,
            endpoint=target.base_urls[0],
            probe=msgspec.to_builtins(probed),
            doubts=(
                *info.doubts,
                *probed.doubts,
                *([UNSEEN_PRIORITY] if endpoint.priority != "none" else []),
            ),
        )
        if stopped_run is None:
            run = Run.create(out, experiments.to_toml(experiment), plan, info)
        else:
            run = stopped_run
            run.unseal()
            run.write_info(info)
        counts = Counts(plan)
        if stopped_run is not None:
            counts.follow(run.rows.select(FOLLOWED).collect())
        conductor = Conductor(
            Journal(run),
            target.dialect,
            target.base_urls,
            sum(len(program.calls) - len(program.ended) for program in planned.programs),
            done=probed.done,
            secrets=target.secrets,
            slo=SLO.parse(experiment.slo) if experiment.slo else None,
            counts=counts,
        )
        setups = _setups(
            target,
            probed,
            experiment.seed,
            workload.block_tokens,
            run,
            crew.size,
            planned.from_s,
            until_s,
        )
        _share_out(planned.programs, setups)
        board = Path(setups[0].board)
        scraper = _scraper(target, run, conductor, Board.create(board, crew.size, len(target.urls)))
        host = HostClock()
        watch = Watch(
            run,
            conductor,
            counts,
            target.base_urls,
            scraper=scraper,
            calibration=calibrated,
            host=host,
        )
        if exporter is not None:
            await exporter.start(watch)
        interrupted, failures = await _conduct(
            crew, conductor, watch, scraper, setups, planned.from_s, on_progress, step_back
        )
        for path in (board, *(Path(setup.programs) for setup in setups)):
            path.unlink()
    calls = run.trace.collect()
    health = Health.of(
        calls, conductor.beats, conductor.late_s, conductor.uncounted, host.steal_share()
    )
    validity, doubts = judge(
        calls,
        run.plan,
        health,
        interrupted=interrupted,
        failures=failures,
        resumed=bool(info.resumed_s),
        block_tokens=workload.block_tokens,
        calibration=calibrated,
    )
    run.seal(
        msgspec.structs.replace(
            run_info.ended(info, calls),
            interrupted=interrupted,
            zero_monotonic_s=conductor.zero_s,
            zero_unix_s=conductor.zero_s + time.time() - time.monotonic(),
            client={**health.as_dict(), "failures": failures},
            validity=validity,
            doubts=(
                *info.doubts,
                *doubts,
                *_ran_out(calls, plan, until_s),
                *(scraper.doubts if scraper else ()),
            ),
        )
    )
    watch.seal(run.info.validity, run.info.doubts)
    return run


class _Planned(NamedTuple):
    """What is to be sent: all programs, or those that a stopped run has left, from `from_s` on."""

    workload: Workload
    plan: pl.DataFrame
    programs: Sequence[Program]
    from_s: float
    info: RunInfo


def _plan(experiment: Experiment, wanted: WorkloadSpec, stopped_run: Run | None) -> _Planned:
    closed = experiment.endpoint is not None and bool(experiment.endpoint.users)
    workload = workload_of(wanted, experiment.seed, closed=closed)
    plan = workload.plan()
    info = run_info.begun(experiment, workload, plan, clock="real", system=experiment.name)
    if stopped_run is None:
        return _Planned(workload, plan, workload.programs, 0.0, info)
    programs, from_s = resumption.left_of(stopped_run, workload, plan, info.plan_sha256)
    resumed = (*stopped_run.info.resumed_s, from_s)
    doubts = (*info.doubts, *map(resumption.doubt_of, resumed))
    info = msgspec.structs.replace(info, resumed_s=resumed, doubts=doubts)
    return _Planned(workload, plan, programs, from_s, info)


async def _conduct(
    crew: Crew,
    conductor: Conductor,
    watch: Watch,
    scraper: Scraper | None,
    setups: Sequence[Setup],
    from_s: float,
    on_progress: Progress | None,
    step_back: bool,
) -> tuple[bool, list[str]]:
    """Let the workers replay and write down what they hand back.

    Returns whether somebody stopped it, and how workers failed that were given up.
    """
    loop = asyncio.get_running_loop()
    await crew.prepare(setups, conductor.hear)
    watchers = [
        loop.create_task(conductor.keep_writing()),
        loop.create_task(conductor.keep_reading()),
    ]
    if on_progress:
        watchers.append(loop.create_task(conductor.keep_showing(on_progress)))
    try:
        with _stopping(crew) as stopped:
            conductor.zero_s = time.monotonic() + LEAD_S - from_s
            crew.go(conductor.zero_s)
            if step_back:
                _step_back()
            watchers.append(loop.create_task(watch.keep_telling()))
            if scraper:
                watchers.append(loop.create_task(scraper.run()))
            finished = loop.create_task(crew.finished())
            # a writer that fails (a full disk, say) ends the replay too
            await asyncio.wait((finished, watchers[0]), return_when=asyncio.FIRST_COMPLETED)
            if watchers[0].done():
                finished.cancel()
                watchers[0].result()
            failures = await finished
    finally:
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        conductor.close()
    if scraper:
        await scraper.finish()
    watch.tell(sealing=True)
    return bool(stopped), failures


def _step_back() -> None:
    """Let every thread of this process wait for whoever else wants its core."""
    try:
        threads = list(map(int, os.listdir("/proc/self/task")))
    except OSError:  # Linux alone lists them
        threads = [0]
    for thread in threads:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, BEHIND)


def _ran_out(calls: pl.DataFrame, plan: pl.DataFrame, until_s: float | None) -> list[str]:
    """Say that a closed loop had nothing left to send before its time was over."""
    ended_s: float | None = calls.select(pl.col("end_s").max()).item()
    if until_s is None or ended_s is None or calls.height < plan.height or ended_s >= until_s:
        return []
    return [
        f"The {plan.height} calls were served after {ended_s:,.1f} s of the {until_s:,.1f} s that"
        " the closed loop should last: give it more."
    ]


def _scraper(target: Target, run: Run, conductor: Conductor, board: Board) -> Scraper | None:
    """Return what reads the servers' metrics, and the GPUs of this machine, while a run lasts."""
    if not target.spec.scrape_s:
        return None
    return Scraper(
        target.base_urls,
        run.path,
        lambda: time.monotonic() - conductor.zero_s,
        every_s=target.spec.scrape_s,
        headers=target.headers,
        gpu=Sampler(),
        hear=board.tell,
    )


def _setups(
    target: Target,
    probed: Probe,
    seed: int,
    block_tokens: int | None,
    run: Run,
    workers: int,
    from_s: float,
    until_s: float | None,
) -> list[Setup]:
    spec = target.spec
    return [
        Setup(
            worker=number,
            workers=workers,
            urls=list(target.urls),
            backend=spec.backend,
            model=probed.model,
            headers=target.headers,
            secrets=target.secrets,
            seed=seed,
            block_tokens=block_tokens,
            tokenizer=spec.tokenizer,
            history=spec.history,
            ignore_eos=spec.ignore_eos,
            min_tokens=spec.min_tokens,
            usage_each=spec.usage_each,
            refused=probed.refused,
            extra_body=spec.extra_body,
            timeout_s=spec.timeout_s,
            idle_s=spec.idle_s,
            retries=spec.retries,
            reuse=probed.reuse,
            done=probed.done,
            max_concurrency=_share(spec.max_concurrency, number, workers),
            users=_share(spec.users, number, workers),
            from_s=from_s,
            until_s=until_s,
            dispatch=spec.dispatch,
            dispatch_params=spec.dispatch_params,
            priority=spec.priority,
            priority_params=spec.priority_params,
            board=str(run.path / ".board"),
            programs=str(run.path / f".programs-{number}"),
            sent=str(sent_log.path_of(run.path, number)),
        )
        for number in range(workers)
    ]


def workers_for(
    endpoint: EndpointSpec, token_rate: float | None, calibrated: Calibration | None
) -> int:
    """Return how many workers to start: so many that none has more than it does well.

    `token_rate` is what the plan asks for, in output tokens a second; None if it is not known. One
    core is left to the conductor.
    """
    together = endpoint.users or endpoint.max_concurrency
    good = calibrated.sustained if calibrated else None
    each = good.token_rate / calibrated.workers if calibrated and good else TOKENS_A_WORKER
    wanted = 1.0
    if token_rate is not None:
        wanted = token_rate / each
    elif together:
        wanted = together / STREAMS_A_WORKER
    return max(1, min(_cores() - 1, math.ceil(wanted)))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share(whole: int | None, number: int, workers: int) -> int | None:
    """Return a worker's part of a number that all workers share; the parts add up."""
    if whole is None:
        return None
    return whole // workers + (number < whole % workers)


def _share_out(programs: Sequence[Program], setups: Sequence[Setup]) -> None:
    """Give each worker its programs, by turns: a program stays with one worker."""
    for number, setup in enumerate(setups):
        write_programs(Path(setup.programs), iter(programs[number :: len(setups)]))


@contextmanager
def _stopping(crew: Crew) -> Iterator[list[bool]]:
    """Let the first SIGINT stop the replay in good order, and the second one at once."""
    stopped: list[bool] = []
    loop = asyncio.get_running_loop()

    def stop() -> None:
        crew.stop(now=bool(stopped))
        stopped.append(True)
        if len(stopped) > 1:  # a third one ends the program
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
