"""The virtual clock: the same workload given to the embedded engine, as fast as the host can.

The only place where the load generator and the engine meet.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from servescope.engine import Engine, Refused, Request, emulate, make_system, virtual
from servescope.loadgen import experiment as experiments
from servescope.loadgen import run_info
from servescope.loadgen.experiment import EngineSpec, Experiment
from servescope.loadgen.records import Journal, Record
from servescope.loadgen.replay import Due, Replay
from servescope.loadgen.validity import call_doubts
from servescope.loadgen.workload import Workload, workload_of
from servescope.traces.errors import InputError
from servescope.traces.run import Run, refuse_taken
from servescope.traces.status import OK


def engine_of(spec: EngineSpec) -> Engine:
    """Make the engine that a spec describes; raises InputError for unknown names."""
    return emulate(make_system(spec.system, spec.params), spec.model, spec.gpu, spec.tp)


class Simulation:
    """A workload as the engine's source of requests; what became of each call in `records`."""

    def __init__(self, workload: Workload) -> None:
        self.records: list[Record] = []
        self._replay = Replay(workload.programs)
        self._due: dict[str, Due] = {}

    def next_due_s(self) -> float | None:
        """Return when the next call is due."""
        return self._replay.next_due_s()

    def take(self, now: float) -> Iterable[Request]:
        """Return the requests that are due by `now`."""
        for due in self._replay.take(now):
            call = due.call
            self._due[call.id] = due
            yield Request(
                call.id,
                call.input_tokens,
                call.output_tokens,
                due.due_s,
                program_id=call.program_id,
            )

    def refused(self, request: Request, error: Refused, now: float) -> None:
        """Record a request that the engine can never serve, as an endpoint would: HTTP 400."""
        due = self._due.pop(request.id)
        record = _record(due, "http_400", now)
        record.error = str(error)
        self._end(due, record, now)

    def finished(self, request: Request, now: float) -> None:
        """Record a request whose last token is out."""
        due = self._due.pop(request.id)
        record = _record(due, OK, now)
        record.chunk_s = request.token_s
        record.first_token_s, record.last_token_s = request.token_s[0], request.token_s[-1]
        record.first_answer_s = request.token_s[0]
        if request.first_scheduled_s is not None:
            record.observed_queue_s = request.first_scheduled_s - due.due_s
        record.output_tokens = request.generated
        self._end(due, record, now)

    def _end(self, due: Due, record: Record, now: float) -> None:
        self.records.append(record)
        for lost in self._replay.ended(due.call, now, ok=record.status == OK):
            self.records.append(Record.given_up(lost.number, now))


def _record(due: Due, status: str, now: float) -> Record:
    """Begin the row of a call; in virtual time the client is never late."""
    return Record(
        number=due.call.number,
        status=status,
        due_s=due.due_s,
        ready_s=due.ready_s,
        admitted_s=due.due_s,
        dispatched_s=due.due_s,
        sent_s=due.due_s,
        first_byte_s=due.due_s,
        end_s=now,
    )


def simulate(experiment: Experiment, out: Path) -> Run:
    """Run an experiment on its embedded engine in virtual time and seal the run.

    SIGINT stops it early and keeps what has ended. Raises OutputExists if `out` is taken and
    InputError for an engine that does not exist.
    """
    spec = experiment.engine
    if spec is None:
        raise InputError(
            f"The experiment '{experiment.name}' has no [engine] to simulate.",
            "Add one, or replay it against its endpoint.",
        )
    refuse_taken(out)
    engine = engine_of(spec)
    workload = workload_of(experiment.workload, experiment.seed)
    plan = workload.plan()
    info = run_info.begun(
        experiment, workload, plan, clock="virtual", system=spec.system, model=spec.model
    )
    simulation = Simulation(workload)
    begun = time.perf_counter()
    interrupted = False
    try:
        virtual.run(engine, simulation)
    except KeyboardInterrupt:
        interrupted = True
    took_s = time.perf_counter() - begun
    run = Run.create(out, experiments.to_toml(experiment), plan, info)
    journal = Journal(run)
    for record in simulation.records:
        journal.append(record)
    journal.flush()
    calls = run.trace.collect()
    run.seal(
        msgspec.structs.replace(
            run_info.ended(info, calls),
            interrupted=interrupted,
            client={"simulation_s": took_s},
            validity="valid",
            doubts=(*info.doubts, *call_doubts(calls, plan, interrupted=interrupted)),
        )
    )
    return run
