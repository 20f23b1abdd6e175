"""What a server would notice: a real and a synthetic workload on the embedded engine, compared.

Everything happens in virtual time, and only what is compared of a call is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing import get_context
from typing import Final

import msgspec
import numpy as np
import polars as pl
from polars import col

from servescope.analysis.clock import Tick
from servescope.analysis.fidelity.comparison import SCHEMA, band, rows_of
from servescope.analysis.fidelity.scores import LeftOut, Measure, Score
from servescope.analysis.fidelity.sides import split, spread
from servescope.analysis.sample import Floats
from servescope.loadgen.experiment import EngineSpec
from servescope.loadgen.program import Program
from servescope.loadgen.records import Record
from servescope.loadgen.simulate import context_of, serve
from servescope.loadgen.workload import Workload
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance
from servescope.traces.reshape import OWN_PROGRAM, forget_lost_parents
from servescope.traces.status import OK
from servescope.traces.trace import Trace

LOADS: Final = (0.3, 0.5, 0.7)
ENGINE: Final = EngineSpec(system="vllm_v1", model="Llama-3.1-8B", gpu="H100")
_NEAR_S = 1e-9  # what a second shrinks to where all calls come at once, in their order

METRICS: Final = {
    "ttft_p50": "s", "ttft_p99": "s", "tbt_p99": "s", "e2e_p50": "s", "e2e_p99": "s",
    "jct_p50": "s", "jct_p99": "s", "queue_mean": "calls",
}  # fmt: skip
MEASURES: Final = {
    name: Measure(
        says,
        "1",
        "median |synthetic / real - 1| over the synthetic traces, served in virtual time at a load:"
        " the engine's time for all real calls at once over the span of the real trace",
        bar=0.15 if name == "ttft_p99" else None,
    )
    for name, says in {
        "ttft_p50": "error of the median time to first token",
        "ttft_p99": "error of the 99th percentile of time to first token",
        "tbt_p99": "error of the 99th percentile of time between tokens",
        "e2e_p50": "error of the median time of a call until its last token",
        "e2e_p99": "error of the 99th percentile of the time of a call until its last token",
        "jct_p50": "error of the median time of a program until its last token",
        "jct_p99": "error of the 99th percentile of the time of a program until its last token",
        "queue_mean": "error of the mean number of calls that wait to be scheduled",
    }.items()
} | {
    "of_median": Measure(
        "error of the median of the synthetic traces",
        "1",
        "|median of the synthetic / real - 1|, which the noise of single traces is not in",
    )
}
_CDF = np.concatenate([np.linspace(0, 0.9, 19), 1 - np.geomspace(0.09, 0.001, 20)])


@dataclass(frozen=True, slots=True)
class Service:
    """What a workload got at a load: metrics by name, and quantiles of the time to first token."""

    metrics: dict[str, float]
    ttft: tuple[float, ...]
    refused: int
    several: bool  # calls in any program
    makespan_s: float


@dataclass(frozen=True, eq=False)
class Served:
    """How far the service of synthetic traces is from that of the real one.

    `table` has the columns of `Fidelity.table`: `subject` is the load, `value` the median of
    |synthetic / real - 1| and `low`, `high` its band. `curves` are, by load, quantiles of the time
    to first token: x (the share), real, synthetic (mean), low, high. `capacity_s` is how long the
    engine takes for all real calls at once.
    """

    loads: tuple[float, ...]
    engine: EngineSpec
    capacity_s: float
    table: pl.DataFrame
    curves: Mapping[str, pl.DataFrame]
    left_out: pl.DataFrame
    doubts: tuple[str, ...] = ()


def compare(
    real: Trace,
    synthetic: Sequence[Trace],
    loads: Sequence[float] = LOADS,
    *,
    engine: EngineSpec = ENGINE,
    parts: tuple[Trace, Trace] | None = None,
    tick: Tick | None = None,
    seed: int = 0,
    jobs: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, planned: None,
) -> Served:
    """Serve a real and synthetic traces on an emulated engine at several loads, and compare.

    A load is offered work over capacity: how long the engine takes for all real calls at once, over
    the time in which they arrive. One factor a load is put on the clock of the real trace and of
    every synthetic one. Programs with a clock each begin evenly apart, and keep their pauses.
    Arrivals are spread over `tick` as in `fidelity.compare`, whose `parts` these are too. Calls
    that the context has no room for are dropped on both sides. `jobs` processes work; `on_progress`
    hears how many runs of how many are done. Raises InputError if nothing can be served.
    """
    if not loads or not all(0 < load < math.inf for load in loads):
        raise InputError("Loads are shares of the capacity.", "Give numbers above 0, such as 0.5.")
    first, second = parts or split(real, 0.5)
    context = context_of(engine)
    made = [_Load.of(each, tick, seed, context) for each in (real, *synthetic)]
    halves = (
        [_Load.of(each, tick, seed, context) for each in (second, first)]
        if _any(first, second)
        else []
    )
    shares = made[0].shares
    plain = msgspec.structs.replace(engine, prefix_cache=shares)
    sides = [side for side in (made, halves) if side]
    with _Runs(jobs) as runs:
        at_once = [runs.start(_Run(side[0], plain, shares)) for side in sides]
        took_s = [get().makespan_s for get in at_once]
        pending = [
            [
                [runs.start(_Run(each, plain, shares, *side[0].clock(load, took))) for each in side]
                for load in loads
            ]
            for side, took in zip(sides, took_s, strict=True)
        ]
        planned = sum(len(row) for side in pending for row in side)
        ended = count(1)

        def got(get: Callable[[], Service]) -> Service:
            service = get()
            on_progress(next(ended), planned)
            return service

        services = [[[got(get) for get in row] for row in side] for side in pending]
    several = services[0][0][0].several
    rows: list[dict[str, object]] = []
    curves: dict[str, pl.DataFrame] = {}
    for place, load in enumerate(loads):
        truth, *others = services[0][place]
        found = [list(_scores(truth, other, load, several)) for other in others]
        floors: list[Score] = []
        if halves:
            whole, part = services[1][place]
            floors = list(_scores(whole, part, load, several))
        rows += _table(found, floors)
        curves[f"ttft, load {load:g}"] = _curve(truth, others)
    left = list(_left_out(made, several, services[0][0]))
    return Served(
        tuple(loads),
        plain,
        took_s[0],
        pl.DataFrame(rows, schema=SCHEMA),
        curves,
        pl.DataFrame(
            [("serving", each.what, each.why) for each in left],
            schema={"aspect": pl.String, "what": pl.String, "why": pl.String},
            orient="row",
        ),
        tuple(_doubts(made[0])),
    )


def _any(*traces: Trace) -> bool:
    """Whether all traces have a call that may be sent."""
    sendable = (col("input_tokens") > 0) & (col("output_tokens") > 0)
    return all(t.frame.filter(sendable).head(1).collect().height for t in traces)


# --- what is served ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Load:
    """A trace to be served at several loads; `dropped` calls have no room in the context.

    It is kept as a table, and made a workload of for every run: many calls with many blocks are
    large.
    """

    calls: pl.DataFrame
    about: Provenance
    dropped: int

    @classmethod
    def of(cls, trace: Trace, tick: Tick | None, seed: int, context_tokens: int) -> _Load:
        calls = spread(trace, tick, seed).collect()
        fits = (col("input_tokens") + col("output_tokens") <= context_tokens).fill_null(True)
        kept = calls.filter(fits)
        if kept.height < calls.height:
            kept = forget_lost_parents(kept.lazy()).collect()
        return cls(kept, trace.provenance, calls.height - kept.height)

    @property
    def timed(self) -> bool:
        """Whether all programs are on one clock."""
        return "arrival_s" in self.calls.columns and self.about.arrival_basis == "trace"

    @property
    def shares(self) -> bool:
        """Whether it is known which prompts begin alike."""
        return "prefix_blocks" in self.calls.columns and self.about.block_rule != "component"

    @property
    def workload(self) -> Workload:
        """The programs that can be sent."""
        return Workload.of(Trace(self.calls.lazy(), self.about, checked=True), texts=False)

    def clock(self, load: float, capacity_s: float) -> tuple[float | None, float]:
        """Return the factor on the clock, or None, and how far programs are apart at a load (s)."""
        wanted_s = capacity_s / load
        own = OWN_PROGRAM if "program_id" in self.calls.columns else col("call_id")
        apart_s = wanted_s / self.calls.select(own.n_unique()).item()
        if not self.timed:
            return None, apart_s
        first, last = self.calls.select(
            first=col("arrival_s").min(), last=col("arrival_s").max()
        ).row(0)
        return (wanted_s / (last - first) if last > first else None), apart_s

    def at_once(self) -> Workload:
        """Return the calls all at once, in the order in which they were to come."""
        whole = self.workload
        return _with(whole, (_scaled(p, _NEAR_S, waits=False) for p in whole.programs))

    def on(self, factor: float | None, apart_s: float) -> Workload:
        """Return the workload on a clock with this factor, or with programs evenly apart."""
        whole = self.workload
        if factor is not None and self.timed:
            return _with(whole, (_scaled(program, factor) for program in whole.programs))
        return _with(
            whole,
            (
                msgspec.structs.replace(program, start_s=place * apart_s)
                for place, program in enumerate(whole.programs)
            ),
        )


def _with(workload: Workload, programs: Iterator[Program]) -> Workload:
    return replace(workload, programs=tuple(programs))


def _scaled(program: Program, factor: float, *, waits: bool = True) -> Program:
    """Return a program on a clock that is `factor` times as slow; its calls may wait for nobody."""
    changed = (
        msgspec.structs.replace(
            call,
            offset_s=call.offset_s * factor,
            **({"delay_s": call.delay_s * factor} if waits else {"parents": ()}),
        )
        for call in program.calls
    )
    return msgspec.structs.replace(program, start_s=program.start_s * factor, calls=tuple(changed))


# --- serving -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kept:
    """What is kept of the calls while they are served."""

    ttft: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    queued_s: float = 0.0
    gaps: list[Floats] = field(default_factory=list)
    ends_s: dict[int, float] = field(default_factory=dict)  # by number
    begun_s: dict[int, float] = field(default_factory=dict)
    refused: int = 0

    def take(self, record: Record) -> None:
        """Keep what is compared of a call."""
        if record.status != OK or record.first_token_s is None or record.chunk_s is None:
            self.refused += 1
            return
        self.ttft.append(record.first_token_s - record.due_s)
        self.e2e.append(record.chunk_s[-1] - record.due_s)
        self.queued_s += record.observed_queue_s or 0.0
        if len(record.chunk_s) > 1:
            self.gaps.append(np.diff(record.chunk_s))
        self.begun_s[record.number] = record.due_s
        self.ends_s[record.number] = record.chunk_s[-1]


def service_of(workload: Workload, engine: EngineSpec, *, shares: bool) -> Service:
    """Serve a workload on an emulated engine in virtual time, and return what it got.

    Raises InputError if the engine can serve none of its calls.
    """
    kept = _Kept()
    serve(workload, engine, kept.take, shares=shares)
    if not kept.ttft:
        raise InputError("The engine could serve none of the calls.", "Choose another trace.")
    jct = []
    for program in workload.programs:
        numbers = [call.number for call in program.calls if call.number in kept.ends_s]
        if numbers:
            begun = min(kept.begun_s[number] for number in numbers)
            jct.append(max(kept.ends_s[number] for number in numbers) - begun)
    makespan = max(kept.ends_s.values()) - min(kept.begun_s.values())
    gaps = np.concatenate(kept.gaps) if kept.gaps else np.zeros(0)
    metrics = {"queue_mean": kept.queued_s / makespan}  # Little's law
    for name, values in (("ttft", kept.ttft), ("tbt", gaps), ("e2e", kept.e2e), ("jct", jct)):
        for q in (50, 99):
            if f"{name}_p{q}" in METRICS and len(values):
                metrics[f"{name}_p{q}"] = float(np.quantile(values, q / 100))
    ttft = np.quantile(kept.ttft, _CDF).tolist()
    several = any(len(program.calls) > 1 for program in workload.programs)
    return Service(metrics, tuple(ttft), kept.refused, several, makespan)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run to be: what is served, by whom, and on which clock; all at once without `apart_s`."""

    side: _Load
    engine: EngineSpec
    shares: bool
    factor: float | None = None
    apart_s: float | None = None

    def __call__(self) -> Service:
        side = self.side
        now = self.apart_s is None
        workload = side.at_once() if now else side.on(self.factor, self.apart_s or 0.0)
        return service_of(workload, self.engine, shares=self.shares)


class _Runs:
    """Does runs in processes of their own, or one by one when they are asked for."""

    def __init__(self, jobs: int) -> None:
        many = jobs > 1
        self._pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) if many else None

    def __enter__(self) -> _Runs:
        return self

    def __exit__(self, *failed: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, run: _Run) -> Callable[[], Service]:
        """Begin a run; what is returned waits for its end."""
        return run if self._pool is None else self._pool.submit(run).result


# --- comparing -----------------------------------------------------------------------------------


def _scores(real: Service, other: Service, load: float, several: bool) -> Iterator[Score]:
    for name in METRICS:
        a, b = real.metrics.get(name), other.metrics.get(name)
        if a is None or b is None or (name.startswith("jct") and not several):
            continue
        if a > 0:
            yield Score(name, abs(b / a - 1), f"load {load:g}", a, b)
        elif b == 0:
            yield Score(name, 0.0, f"load {load:g}", a, b)


def _table(
    found: Sequence[Sequence[Score]], floors: Sequence[Score]
) -> Iterator[dict[str, object]]:
    """Yield a row a metric, and one for the error of the median where there are several traces."""
    for row in rows_of("serving", MEASURES, found, floors, _median):
        yield row
        if len(found) > 1 and isinstance(row["real"], float) and row["real"] > 0:
            assert isinstance(row["synthetic"], float)
            yield dict.fromkeys(SCHEMA) | {
                "aspect": "serving",
                "measure": "of_median",
                "subject": f"{row['measure']}, {row['subject']}",
                "value": abs(row["synthetic"] / row["real"] - 1),
                "floor": row["floor"],
                "bar": row["bar"],
                "met": MEASURES[str(row["measure"])].met(abs(row["synthetic"] / row["real"] - 1)),
                "unit": MEASURES["of_median"].unit,
                "says": MEASURES["of_median"].says,
                "how": MEASURES["of_median"].how,
            }


def _median(values: Floats) -> float:
    return float(np.median(values))


def _curve(real: Service, others: Sequence[Service]) -> pl.DataFrame:
    made = np.array([other.ttft for other in others])
    ends = np.array([band(made[:, k]) for k in range(made.shape[1])])
    return pl.DataFrame(
        {
            "x": _CDF,
            "real": real.ttft,
            "synthetic": made.mean(axis=0),
            "low": ends[:, 0],
            "high": ends[:, 1],
        }
    )


def _left_out(
    made: Sequence[_Load], several: bool, services: Sequence[Service]
) -> Iterator[LeftOut]:
    dropped = made[0].dropped + services[0].refused
    others = [load.dropped + got.refused for load, got in zip(made[1:], services[1:], strict=True)]
    if dropped or any(others):
        yield LeftOut(
            f"{dropped} real and {np.median(others):g} synthetic calls",
            "the context of the model has no room for them",
        )
    if not several:
        yield LeftOut("program times", "every program has one call")


def _doubts(real: _Load) -> Iterator[str]:
    if not real.timed:
        yield (
            "Programs have a clock each: they are served evenly apart, so what is compared of the"
            " service says nothing of how programs arrive."
        )
