"""What is left to send of a run that was stopped or killed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from servescope.loadgen import experiment as experiments
from servescope.loadgen.experiment import Experiment
from servescope.loadgen.program import Program
from servescope.loadgen.workload import Workload
from servescope.traces.errors import InputError
from servescope.traces.run import STOPPED, Run


def experiment_of(run: Run) -> Experiment:
    """Return what was asked of a run; raises InputError if it cannot be taken up again."""
    if run.info.imported is not None:
        raise InputError(
            f"{run.path} was imported from {run.info.imported.file}, and cannot go on.",
            "Run the benchmark again with the tool that made it.",
        )
    if run.info.clock != "real":
        raise InputError(f"{run.path} is a simulation, which cannot go on.", "Simulate it again.")
    return experiments.read(run.path / "experiment.toml")


def left_of(
    run: Run, workload: Workload, plan: pl.DataFrame, plan_sha256: str | None
) -> tuple[list[Program], float]:
    """Return the programs with calls that were not sent, and the second at which the run goes on.

    Calls that have a row, or that were in flight when the client died, are not sent again: their
    program knows when they ended. Raises InputError if the plan is not the run's own any more, or
    if nothing is left.
    """
    if plan_sha256 != run.info.plan_sha256:
        raise InputError(
            f"{run.path} was planned from a trace that has changed since.",
            "Restore the trace, or replay it into a new folder.",
        )
    known = (
        run.trace.frame.filter(~(pl.col("error") == STOPPED).fill_null(False))
        .select("call_id", "end_s", "dispatched_s")
        .collect()
    )
    if known.height == plan.height:
        raise InputError(f"{run.path} is whole: every call has been sent.", "There is no rest.")
    from_s = known.select(pl.max_horizontal(pl.col("end_s", "dispatched_s").max())).item() or 0.0
    ended = dict(known.select("call_id", pl.col("end_s").fill_null(from_s)).iter_rows())
    return _rest(workload.programs, ended), float(from_s)


def _rest(programs: Sequence[Program], ended: dict[str, float]) -> list[Program]:
    rest = []
    for program in programs:
        before = {call.id: ended[call.id] for call in program.calls if call.id in ended}
        if len(before) < len(program.calls):
            rest.append(msgspec.structs.replace(program, ended=before))
    return rest


def doubt_of(from_s: float) -> str:
    """Say why a run that was taken up again is believed less."""
    return (
        f"The run had stopped and went on at {from_s:,.1f} s: the server's queue and cache were not"
        " what they had been."
    )
