"""When programs start and how long they pause: as recorded, stretched, or drawn from a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from servescope.analysis.arrivals import process
from servescope.analysis.point_processes import Times
from servescope.analysis.rate_functions import Ramp
from servescope.loadgen.experiment import ArrivalSpec, WorkloadSpec
from servescope.loadgen.program import Call, Program
from servescope.traces.errors import InputError

# What is drawn for a plan. A purpose keeps its place, and so its numbers: add new ones at the end.
PURPOSES = ("arrivals", "input lengths", "output lengths", "programs")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of a purpose: what is drawn for one changes nothing of another."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)))


def starts(
    spec: ArrivalSpec, seed: int, *, count: int | None = None, until_s: float | None = None
) -> Times:
    """Draw the starts of `count` programs, or of all before `until_s`: sorted, seconds from 0.

    Raises InputError for a process that is none, or that ends before there are enough.
    """
    given = dict(spec.params)
    if spec.rate_rps is not None:
        given["rate_rps"] = spec.rate_rps
    endless = spec.process == "ramp" and "duration_s" not in given
    made = process(spec.process, **given, **({"duration_s": until_s or 1.0} if endless else {}))
    if endless and until_s is None and isinstance(made, Ramp):
        made = replace(made, duration_s=(count or 0) / made.rate_rps)
    times = made.sample(stream(seed, "arrivals"), until_s=until_s, count=count)
    if count is not None and until_s is None and len(times) < count:
        raise InputError(
            f"The {spec.process} arrivals end after {len(times)} programs of {count}.",
            "Let their last rate be above 0, or take fewer calls.",
        )
    return times


def timed(
    programs: Sequence[Program], spec: WorkloadSpec, seed: int
) -> tuple[tuple[Program, ...], tuple[str, ...]]:
    """Return programs of a trace with the starts and pauses that are asked for, in their order.

    Beside them stands what was done, in words. Of starts that are drawn, `duration_s` is how long
    they are. Raises InputError for programs that have no rate to stretch, and if none starts.
    """
    recorded = np.array([program.start_s for program in programs])
    scale, pause, steps = spec.time_scale, _pause_factor(spec), []
    if spec.arrivals is not None:
        begin_s = starts(spec.arrivals, seed, count=len(programs), until_s=spec.duration_s)
        steps.append(f"starts drawn: {spec.arrivals.process}")
        if not len(begin_s):
            raise InputError("No program starts in that time.", "Give more time, or more rate.")
    elif spec.rate_rps is not None:
        begin_s = (recorded - recorded[0]) * (_rate(recorded) / spec.rate_rps)
        steps.append(f"starts at {spec.rate_rps:.15g} programs/s")
    else:
        begin_s = recorded * scale
    if scale != 1:
        steps.append(f"time x {scale:.15g}")
    if pause != 1:
        steps.append(f"pauses x {pause:.15g}")
    if not steps:
        return tuple(programs), ()
    made = []
    for program, start_s in zip(programs, begin_s.tolist(), strict=False):
        calls = program.calls
        if not scale == pause == 1:
            calls = tuple(_paced(call, scale, pause) for call in calls)
        made.append(msgspec.structs.replace(program, start_s=start_s, calls=calls))
    return tuple(made), tuple(steps)


def _rate(recorded: Times) -> float:
    """Return the mean rate of recorded starts, in programs a second."""
    span_s = float(recorded[-1] - recorded[0])
    if span_s <= 0:
        raise InputError(
            "The programs of the trace begin all at once, so they have no rate to change.",
            "Draw their starts, with arrivals.",
        )
    return (len(recorded) - 1) / span_s


def _pause_factor(spec: WorkloadSpec) -> float:
    if spec.delays == "recorded":
        return 1.0
    if spec.delays == "none":
        return 0.0
    return spec.time_scale if spec.delay_scale is None else spec.delay_scale


def _paced(call: Call, scale: float, pause: float) -> Call:
    """Return a call with its pause and its distance from the program's start scaled.

    Without pauses, a call that waits for others comes as soon as they have ended; where no pause is
    recorded its distance from the start was a part of the arrivals, and would keep it waiting.
    """
    if not call.offset_s and not call.delay_s:
        return call
    offset_s = 0.0 if call.parents and not pause else call.offset_s * scale
    return msgspec.structs.replace(call, delay_s=call.delay_s * pause, offset_s=offset_s)
