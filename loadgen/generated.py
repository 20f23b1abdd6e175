"""Programs that no trace holds either: those of a named workload, from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import polars as pl

from servescope.loadgen.experiment import WorkloadSpec
from servescope.loadgen.papers import make_workload, parameters_of
from servescope.loadgen.papers.generator import Generator
from servescope.loadgen.program import Call, Program
from servescope.loadgen.synthetic import CALLS
from servescope.loadgen.timing import starts, stream
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.trace import Trace


def generator_of(spec: WorkloadSpec) -> Generator:
    """Return the generator that a workload names; raises InputError for unknown names."""
    assert spec.generator is not None
    return make_workload(spec.generator, spec.params)


def programs_of(spec: WorkloadSpec, seed: int) -> tuple[Program, ...]:
    """Return the programs of a named workload, in order of their start.

    They start by the workload's own process, at `rate_rps` if there is one, or by `arrivals`. There
    are so many programs or calls as are asked for, or all that start in `duration_s`; 1,000 calls
    if nothing says how many. More programs of the same seed begin with the same ones. Raises
    InputError if none begins in time.
    """
    made = generator_of(spec)
    arrivals = spec.arrivals or made.arrivals()
    if spec.rate_rps is not None:
        arrivals = msgspec.structs.replace(arrivals, rate_rps=spec.rate_rps)
    endless, last = made.programs(stream(seed, "programs")), spec.programs and spec.programs[1]
    if spec.calls is None and last is None and spec.duration_s is not None:
        begin_s = starts(arrivals, seed, until_s=spec.duration_s)
        bodies = list(islice(endless, len(begin_s)))
    else:
        most = CALLS if spec.calls is None and last is None else spec.calls
        bodies = list(islice(endless if most is None else _at_most(endless, most), last))
        begin_s = starts(arrivals, seed, count=len(bodies), until_s=spec.duration_s)
    if not len(begin_s):
        raise InputError("No program starts in that time.", "Give more time, or a higher rate.")
    programs, number = [], 0
    for start_s, calls in zip(begin_s.tolist(), bodies, strict=False):
        programs.append(Program(calls[0].program_id, start_s, _numbered(calls, number)))
        number += len(calls)
    return tuple(programs)


def provenance_of(name: str, made: Generator) -> Provenance:
    """Say of a named workload what a trace says of itself, with what is ASSUMED."""
    about = made.about()
    said = " ".join(f"{key}={getattr(made, key)}" for key in parameters_of(made))
    blocks = about.block_tokens
    return Provenance(
        format="generator",
        source=f"{name} {said}".strip(),
        kind="synthetic",
        attribution=about.source,
        block_tokens=blocks,
        block_rule="floor" if blocks else None,
        block_scope="global" if blocks else None,
        inferred={column: f"ASSUMED: {what}" for column, what in about.assumed.items()},
    )


def trace_of(programs: Sequence[Program], provenance: Provenance) -> Trace:
    """Return programs as a trace: arrivals of those calls that wait for no other.

    The canonical table has no column for the tool that an answer calls, so that is left out.
    """
    calls = [(program, call) for program in programs for call in program.calls]
    columns: dict[str, list[Any]] = {
        "call_id": [call.id for _, call in calls],
        "program_id": [call.program_id for _, call in calls],
        "turn": [call.turn for _, call in calls],
        "call_class": [call.call_class for _, call in calls],
        "arrival_s": [
            None if call.parents else program.start_s + call.offset_s for program, call in calls
        ],
        "input_tokens": [call.input_tokens for _, call in calls],
        "output_tokens": [call.output_tokens for _, call in calls],
        "parents": [call.parents for _, call in calls],
        "delay_s": [call.delay_s if call.parents else None for _, call in calls],
        "delay_kind": [call.pause for _, call in calls],
    }
    if any(call.prefix_blocks for _, call in calls):
        columns["prefix_blocks"] = [call.prefix_blocks for _, call in calls]
    if any(call.priority is not None or call.deadline_s is not None for _, call in calls):
        columns["priority"] = [call.priority for _, call in calls]
        columns["deadline_s"] = [
            None if call.deadline_s is None else program.start_s + call.deadline_s
            for program, call in calls
        ]
    frame = pl.DataFrame(
        [pl.Series(name, values, SCHEMA[name]) for name, values in columns.items()]
    )
    return Trace.of(frame, provenance)


def _at_most(programs: Iterable[tuple[Call, ...]], calls: int) -> Iterator[tuple[Call, ...]]:
    """Yield programs until there are so many calls; the last one is cut where they end."""
    left = calls
    for each in programs:
        yield each[:left]
        left -= len(each)
        if left <= 0:
            return


def _numbered(calls: tuple[Call, ...], number: int) -> tuple[Call, ...]:
    """Return calls with their rows in the plan, and whether no other waits for them."""
    awaited = {parent for call in calls for parent in call.parents}
    return tuple(
        msgspec.structs.replace(call, number=row, last=call.id not in awaited)
        for row, call in enumerate(calls, number)
    )
