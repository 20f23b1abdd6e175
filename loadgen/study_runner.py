"""Makes the runs of a study, and survives systems that do not.

Those of endpoints are made one after the other, simulations on as many cores as are asked for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from servescope.loadgen import launch, runner, standing
from servescope.loadgen.conductor import Progress, Tally
from servescope.loadgen.crew import Crew, WorkerFailed
from servescope.loadgen.experiment import EndpointSpec, Experiment, SyntheticSpec, WorkloadSpec
from servescope.loadgen.launch import Server
from servescope.loadgen.ledger import Book, Entry, Ledger, left
from servescope.loadgen.schedule import Cell
from servescope.loadgen.simulate import cluster_of, simulate
from servescope.loadgen.simulators import Simulators
from servescope.loadgen.study import PORT, Study, SystemSpec, experiment_of
from servescope.loadgen.target import Target
from servescope.loadgen.workload import workload_of
from servescope.traces.errors import EndpointError, InputError, ServescopeError

WARM_INPUT, WARM_OUTPUT = 64, 16
NOTICED_S = 2.0  # until the end of a server that refuses connections is known
CUT_OFF = "The run was cut off before its end: it could no more meet its SLO."
FALSE_STARTS = 2  # launches in a row that fail before a system is given up

Doing = Literal["launching", "warming up", "waiting", "measuring", "simulating", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a study does at the moment: `number` of `count` runs, and why, where there is more."""

    number: int
    count: int
    cell: Cell
    doing: Doing
    why: str | None = None


def run_study(
    study: Study,
    out: Path,
    on_step: Callable[[Step], None] = lambda step: None,
    on_progress: Progress = lambda tally: None,
    enough: Callable[[Tally], bool] | None = None,
    jobs: int = 1,
) -> Book:
    """Make the runs of a study that are not done yet, each in its directory below `out`.

    A run on a system that cannot be launched, is not idle or dies is noted as failed, with the
    reason, and the rest goes on; the next call on the same folder tries it again. A replay that is
    `enough` before its end is cut off there, and done. With several `jobs`, simulations come first,
    so many at a time in processes of their own; each gives what it gives alone. Ctrl-C stops in
    good order, tears down what was launched and raises KeyboardInterrupt. Raises InputError for
    what cannot be asked, before anything is written, and for a folder that holds something else.
    """
    check(study)
    with (
        Ledger.of(study, out) as ledger,
        _Driver(study, ledger, on_step, on_progress, enough) as driver,
    ):
        entries = left(ledger.book.runs)
        virtual = [entry for entry in entries if study.system(entry.cell.system).virtual]
        at_once = min(jobs, len(virtual))
        if at_once > 1:
            driver.simulate(virtual, at_once)
            entries = [entry for entry in entries if entry not in virtual]
        for entry in entries:
            driver.make(entry)
        return ledger.book


def check(study: Study) -> None:
    """Raise InputError for what would stop a study in its middle: unknown names, no trace."""
    for system in study.systems:
        if system.engine is not None:
            cluster_of(system.engine)
        if system.endpoint is not None:
            urls = tuple(url.replace(PORT, "1") for url in system.endpoint.urls)
            Target.of(msgspec.structs.replace(system.endpoint, base_url=urls))
    closed = all(system.endpoint and system.endpoint.users for system in study.systems)
    for workload in study.workloads:
        workload_of(study.loads[0].of(workload), study.seed, closed=closed)


class _Stopped(Exception):
    """Somebody stopped a run in good order."""


class _Driver:
    """Holds the one server that is launched at a time."""

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        on_step: Callable[[Step], None],
        on_progress: Progress,
        enough: Callable[[Tally], bool] | None,
    ) -> None:
        self._study = study
        self._ledger = ledger
        self._on_step = on_step
        self._on_progress = on_progress
        self._enough = enough
        self._numbers = {entry.path: n for n, entry in enumerate(ledger.book.runs, 1)}
        self._server: Server | None = None
        self._before: Target | None = None  # where the run before was
        self._false_starts: dict[str, int] = {}

    def __enter__(self) -> _Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_server()

    def make(self, entry: Entry) -> None:
        """Make one run and note what became of it."""
        path = self._ledger.begin(entry)
        try:
            self._run(entry.cell, path)
        except (KeyboardInterrupt, _Stopped):
            self._ledger.end(entry, "pending")
            raise KeyboardInterrupt from None
        except InputError:
            self._ledger.end(entry, "pending")
            raise
        except (ServescopeError, WorkerFailed) as error:
            why = str(self._server_fault() or error)
            self._end_server()
            self._ledger.end(entry, "failed", why)
            self._tell(entry.cell, "failed", why)
        else:
            self._ledger.end(entry, "done")
            self._tell(entry.cell, "done")

    def simulate(self, entries: Iterable[Entry], jobs: int) -> None:
        """Make runs in virtual time, so many at once, and note what became of each."""
        waiting, running = deque(entries), dict[Path, Entry]()
        try:
            with Simulators(jobs) as simulators:
                while waiting or running:
                    while waiting and simulators.free:
                        entry = waiting.popleft()
                        path = self._ledger.begin(entry)
                        running[path] = entry
                        self._tell(entry.cell, "simulating")
                        simulators.begin(self._virtual(entry.cell), path)
                    for path, answer in simulators.ended():
                        if answer.state == "input":
                            raise InputError(answer.wrong, answer.mend)
                        entry, why = running.pop(path), answer.why
                        self._ledger.end(entry, answer.state, why)
                        self._tell(entry.cell, answer.state, why)
        finally:
            for entry in running.values():
                self._ledger.end(entry, "pending")

    def _virtual(self, cell: Cell) -> Experiment:
        """Return a run in virtual time."""
        workload = cell.load.of(self._study.workload(cell.workload))
        return experiment_of(self._study, cell.system, workload, cell.seed, None)

    def _tell(self, cell: Cell, doing: Doing, why: str | None = None) -> None:
        number = self._numbers[cell.path]
        self._on_step(Step(number, len(self._numbers), cell, doing, why))

    def _run(self, cell: Cell, path: Path) -> None:
        study, system = self._study, self._study.system(cell.system)
        workload = cell.load.of(study.workload(cell.workload))
        if system.virtual:
            self._end_server()  # it would take time from this process
            self._tell(cell, "simulating")
            if simulate(self._virtual(cell), path).info.interrupted:
                raise _Stopped
            return
        if self._server is not None and (self._server.name != system.name or self._server.fresh):
            self._end_server()
        if self._before is not None:
            self._pause(cell)
        endpoint = self._reach(system, cell, path)
        target = Target.of(endpoint)
        self._warm_up(cell, endpoint)
        self._wait_until_idle(cell, target)
        self._before = target
        self._tell(cell, "measuring")
        experiment = experiment_of(study, system.name, workload, cell.seed, endpoint)
        self._measure(experiment, path, target)

    def _pause(self, cell: Cell) -> None:
        if self._study.pause_s:
            self._tell(cell, "waiting", f"{self._study.pause_s:g} s of pause")
            time.sleep(self._study.pause_s)

    def _reach(self, system: SystemSpec, cell: Cell, path: Path) -> EndpointSpec:
        """Return where a system listens, once it does: it is launched if it must be."""
        how, endpoint = launch.how_to_reach(system)
        if how is None:
            return endpoint
        if self._server is not None:
            if fault := self._server_fault():
                raise fault
            return self._server.endpoint
        failed = self._false_starts.get(system.name, 0)
        if failed >= FALSE_STARTS:
            raise EndpointError(
                f"'{system.name}' was not launched again after {failed} launches that failed.",
                "Mend it, and run the experiment again.",
            )
        self._tell(cell, "launching")
        self._false_starts[system.name] = failed + 1
        self._server = Server(system.name, how, endpoint, path.with_name(f"{path.name}.log"))
        self._server.wait_until_healthy()
        self._false_starts[system.name] = 0
        return self._server.endpoint

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _warm_up(self, cell: Cell, endpoint: EndpointSpec) -> None:
        """Send a few calls whose rows nobody keeps, so that what is made lazily is there."""
        if not self._study.warmup_calls:
            return
        self._tell(cell, "warming up")
        calm = msgspec.structs.replace(endpoint, scrape_s=0.0, users=None, max_concurrency=None)
        lengths = SyntheticSpec(input_tokens=WARM_INPUT, output_tokens=WARM_OUTPUT)
        experiment = Experiment(
            name="warm-up",
            workload=WorkloadSpec(synthetic=lengths, calls=self._study.warmup_calls),
            endpoint=calm,
            seed=cell.seed,
        )
        with TemporaryDirectory(prefix="servescope-") as folder:
            if runner.replay(experiment, Path(folder) / "run").info.interrupted:
                raise _Stopped

    def _wait_until_idle(self, cell: Cell, target: Target) -> None:
        """Wait for the system, and for that of the run before if it is still there."""
        self._tell(cell, "waiting", "until it is idle")
        for each in (target, self._before):
            if each is not None:
                standing.wait_until_idle(each.base_urls, each.headers, self._study.idle_timeout_s)

    def _measure(self, experiment: Experiment, path: Path, target: Target) -> None:
        """Replay; raises EndpointError if the system has died, and keeps what came back."""
        assert experiment.endpoint is not None
        server, cut, full = self._server, False, False
        with Crew(experiment.endpoint.workers or 1) as crew:

            def look(tally: Tally) -> None:
                nonlocal cut, full
                if server is not None and not cut and server.ended:
                    cut = True
                    crew.stop()  # nobody is there any more to send to
                if self._enough is not None and not full and self._enough(tally):
                    full = True
                    crew.stop(now=True)
                self._on_progress(tally)

            run = runner.replay(experiment, path, look, crew)
        died, info = self._how_it_died(target), run.info
        if died is None:
            if full:
                doubts = (*info.doubts, CUT_OFF)
                run.write_info(msgspec.structs.replace(info, interrupted=True, doubts=doubts))
            elif info.interrupted:
                raise _Stopped
            return
        run.write_info(
            msgspec.structs.replace(
                info, interrupted=info.interrupted or cut, doubts=(*info.doubts, died.wrong)
            )
        )
        raise died

    def _how_it_died(self, target: Target) -> EndpointError | None:
        base = standing.dead(target.base_urls, target.headers)
        if fault := self._server_fault(NOTICED_S if base else 0.0):
            return fault
        if base is None:
            return None
        return EndpointError(
            f"{base} refuses connections after the run: the server has died.",
            "Look into its log, start it and run the experiment again.",
        )

    def _server_fault(self, limit_s: float = 0.0) -> EndpointError | None:
        """Return how the launched server ended, if it did."""
        if self._server is None or not (ended := self._server.ended_within(limit_s)):
            return None
        return self._server.fault(ended)
