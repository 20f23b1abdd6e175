"""The virtual clock: the same workload given to the embedded engine, as fast as the host can.

The only place where the load generator and the engine meet.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec

from servescope.engine import (
    Cluster,
    Refused,
    Request,
    Segment,
    Veil,
    Watch,
    deploy,
    make_system,
    virtual,
)
from servescope.loadgen import experiment as experiments
from servescope.loadgen import run_info
from servescope.loadgen.experiment import EngineSpec, Experiment
from servescope.loadgen.program import Call
from servescope.loadgen.records import Journal, Record
from servescope.loadgen.replay import Due, Replay
from servescope.loadgen.texts import texts_of
from servescope.loadgen.validity import Doubts, call_doubts
from servescope.loadgen.workload import Workload, workload_of
from servescope.traces.errors import InputError
from servescope.traces.run import Run, refuse_taken
from servescope.traces.status import OK

KEEP_RECORDS = 20_000  # in memory, until they are written
TELL_RECORDS = 500
ORACLE = "{system} was told in advance how long every answer would be: no real server knows that."


def cluster_of(spec: EngineSpec, veil: Veil | None = None) -> Cluster:
    """Make the engines that a spec describes; raises InputError for unknown names."""
    system = make_system(spec.system, spec.params)
    if veil is not None:
        system = veil.over(system)
    return deploy(
        system,
        spec.model,
        spec.gpus,
        spec.tp,
        spec.context_tokens,
        prefix_cache=spec.prefix_cache,
        pp=spec.pp,
        overhead=spec.overhead,
    )


class Simulation:
    """A workload as the engine's source of requests; `record` is given what became of each call.

    Without it all are kept in `records`. `refusals` says how many can never be served, and why the
    first of them, by what would mend it. `replica` names one by its number, and `shares` says that
    prompts have beginnings in common which a prefix cache may know.
    """

    def __init__(
        self,
        workload: Workload,
        record: Callable[[Record], None] | None = None,
        *,
        replica: Callable[[int], str] | None = None,
        shares: bool = False,
    ) -> None:
        self.records: list[Record] = []
        self.refusals: dict[str, tuple[int, Refused]] = {}
        self._record = record or self.records.append
        self._replay = Replay(workload.programs)
        self._block_tokens = workload.block_tokens
        self._replica = replica
        self._shares = shares
        self._due: dict[str, Due] = {}
        self._texts: dict[str, dict[str, tuple[Segment, ...]]] = {}  # by program, of those that run

    def next_due_s(self) -> float | None:
        """Return when the next call is due."""
        return self._replay.next_due_s()

    def take(self, now: float) -> Iterable[Request]:
        """Return the requests that are due by `now`."""
        for due in self._replay.take(now):
            call = due.call
            self._due[call.id] = due
            began_s = self._replay.began_s(call)
            yield Request(
                call.id,
                call.input_tokens,
                call.output_tokens,
                due.due_s,
                program_id=call.program_id,
                priority=call.priority or 0,
                prefix=self._text(call) if self._shares else (),
                program_s=began_s,
                turn=call.turn,
                last=call.last,
                call_class=call.call_class,
                tool=call.tool,
                deadline_s=None if call.deadline_s is None else began_s + call.deadline_s,
                pause_s=self._replay.pause_s(call),
            )

    def refused(self, request: Request, error: Refused, now: float) -> None:
        """Record a request that the engine can never serve, as an endpoint would: HTTP 400."""
        due = self._due.pop(request.id)
        record = _record(due, "http_400", now)
        record.error = str(error)
        count, first = self.refusals.get(error.mend, (0, error))
        self.refusals[error.mend] = (count + 1, first)
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
        if self._shares:
            record.cached_tokens = request.found_tokens
        if self._replica is not None:
            record.replica = self._replica(request.replica)
        self._end(due, record, now)

    def _text(self, call: Call) -> tuple[Segment, ...]:
        texts = self._texts.get(call.program_id)
        if texts is None:
            program = self._replay.program_of(call)
            assert program is not None
            texts = self._texts[call.program_id] = {
                name: tuple(Segment(*piece) for piece in text)
                for name, text in texts_of(program, self._block_tokens).items()
            }
        return texts[call.id]

    def _end(self, due: Due, record: Record, now: float) -> None:
        self._record(record)
        for lost in self._replay.ended(due.call, now, ok=record.status == OK):
            self._record(Record.given_up(lost.number, now))
        if self._replay.program_of(due.call) is None:
            self._texts.pop(due.call.program_id, None)


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


def simulate(
    experiment: Experiment,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda ended, planned: None,
    *,
    check: bool = False,
    check_every: int = 1,
) -> Run:
    """Run an experiment on its embedded engine in virtual time and seal the run.

    SIGINT stops it early and keeps what has ended; `on_progress` hears how many calls of how many
    have. With `check` the system is asked behind a veil, and the invariants of the engine are
    asserted at every event, or at one of `check_every`. Raises OutputExists if `out` is taken,
    InputError for an engine that does not exist, PolicyFailed, Deadlock or BadPlan for a policy
    that does not work, and Violation for an invariant that is broken. A run of which no call can
    ever be served is invalid.
    """
    spec = experiment.engine
    if spec is None:
        raise InputError(
            f"The experiment '{experiment.name}' has no [engine] to simulate.",
            "Add one, or replay it against its endpoint.",
        )
    refuse_taken(out)
    veil = Veil() if check else None
    cluster = cluster_of(spec, veil)
    workload = workload_of(experiment.workload, experiment.seed)
    plan = workload.plan()
    info = run_info.begun(
        experiment, workload, plan, clock="virtual", system=spec.system, model=spec.model
    )
    if cluster.parts.oracle:
        info = msgspec.structs.replace(
            info, doubts=(*info.doubts, ORACLE.format(system=spec.system))
        )
    run = Run.create(out, experiments.to_toml(experiment), plan, info)
    journal = _Keeper(Journal(run), plan.height, on_progress)
    simulation = Simulation(
        workload,
        journal.take,
        replica=cluster.name_of if len(spec.gpus) > 1 else None,
        shares=any(engine.pool.prefixes is not None for engine in cluster.engines),
    )
    watch = Watch(cluster, simulation, veil, check_every) if veil is not None else None
    begun = time.perf_counter()
    interrupted = False
    try:
        virtual.run(cluster, watch or simulation, watch.event if watch else None)
        if watch is not None:
            watch.ended()
    except KeyboardInterrupt:
        interrupted = True
    except (Exception, SystemExit):
        shutil.rmtree(out)  # the same again would end the same
        raise
    took_s = time.perf_counter() - begun
    journal.flush()
    calls = run.trace.collect()
    doubts = Doubts()
    if simulation.refusals and not (calls["status"] == OK).any():
        doubts.say("No call was served: there is nothing to measure.", "invalid")
    for count, first in simulation.refusals.values():
        doubts.say(f"{_calls(count)} can never be served: {first}")
    for doubt in call_doubts(calls, plan, interrupted=interrupted):
        doubts.say(doubt)
    run.seal(
        msgspec.structs.replace(
            run_info.ended(info, calls),
            interrupted=interrupted,
            client={"simulation_s": took_s} | ({"checked_events": watch.events} if watch else {}),
            validity=doubts.validity,
            doubts=(*info.doubts, *doubts.all()),
        )
    )
    return run


def serve(
    workload: Workload, engine: EngineSpec, record: Callable[[Record], None], *, shares: bool
) -> None:
    """Serve a workload in virtual time and tell what became of each call; nothing is written.

    `shares` as for a Simulation. Raises as `simulate` does.
    """
    virtual.run(cluster_of(engine), Simulation(workload, record, shares=shares))


def context_of(engine: EngineSpec) -> int:
    """Return the most tokens that a prompt and its answer may have together on every replica."""
    return min(each.context_tokens for each in cluster_of(engine).engines)


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def jct_alone(workload: Workload, engine: EngineSpec) -> dict[str, float]:
    """Return how long each program takes when it has one replica of an engine to itself (s).

    They come one after the other, far apart. Prompts are computed whole and what they share is
    cached, so that hardly any system serves a program sooner.
    """
    apart_s = 1e5
    programs = [
        msgspec.structs.replace(program, start_s=number * apart_s)
        for number, program in enumerate(workload.programs)
    ]
    plain = msgspec.structs.replace(
        engine, system="vllm_v0", params={}, gpu=engine.gpus[0], replicas=1, prefix_cache=True
    )
    records: list[Record] = []
    serve(replace(workload, programs=tuple(programs)), plain, records.append, shares=True)
    ends_s = dict.fromkeys(range(len(programs)), 0.0)
    by_number = {call.number: n for n, program in enumerate(programs) for call in program.calls}
    for record in records:
        place = by_number[record.number]
        ends_s[place] = max(ends_s[place], record.last_token_s or 0.0)
    return {
        program.id: ends_s[number] - program.start_s
        for number, program in enumerate(programs)
        if ends_s[number] > program.start_s
    }


class _Keeper:
    """Writes rows down many at a time, and says how many there were."""

    def __init__(
        self, journal: Journal, planned: int, on_progress: Callable[[int, int], None]
    ) -> None:
        self._journal = journal
        self._planned = planned
        self._on_progress = on_progress
        self._count = 0

    def take(self, record: Record) -> None:
        self._journal.append(record)
        self._count += 1
        if self._count % TELL_RECORDS == 0:
            self._on_progress(self._count, self._planned)
        if self._count % KEEP_RECORDS == 0:
            self._journal.flush()

    def flush(self) -> None:
        self._journal.flush()
