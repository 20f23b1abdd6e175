"""One row a run: what was offered, what was served, how fast, and who met the SLO.

The rows of runs at several loads are the points of latency-throughput-SLO curves.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from polars import col

from servescope.analysis.attainment import attained, requirements
from servescope.analysis.intervals import bounded
from servescope.analysis.measured import Measured
from servescope.analysis.slo import SLO
from servescope.analysis.totals import TOTALS, Whole
from servescope.traces.run import Run

LATENCIES = ("ttft", "tpot", "e2e")
_SHARES = {"attainment": pl.Float64(), "goodput_rps": pl.Float64(), "statistics_met": pl.Boolean()}
SCHEMA: dict[str, pl.DataType] = {
    "run": pl.String(),
    "system": pl.String(),
    "offered_rps": pl.Float64(),
    "served_rps": pl.Float64(),
    "output_tps": pl.Float64(),
    "calls": pl.Int64(),
    "failed": pl.Int64(),
    **{f"{name}_{q}_s": pl.Float64() for name in LATENCIES for q in ("p50", "p99")},
    **_SHARES,
    "validity": pl.String(),
}


def rows_of(runs: Sequence[Run], slo: SLO | None = None) -> pl.DataFrame:
    """Return one row a run, in the order given, with the columns of `SCHEMA`.

    Rates are of programs, per second: offered is that of the plan's starts, served counts programs
    all of whose calls were answered over the span from the first due call to the last end. TPOT is
    in seconds per token, all else in seconds; a quantile is null of too few values for it.
    `statistics_met` says whether the run's statistics are what the SLO asks of them, null where
    there are too few values to tell. What is not known, or was not asked, is null.
    """
    return pl.DataFrame([_row(run, slo) for run in runs], schema=SCHEMA)


def _row(run: Run, slo: SLO | None) -> dict[str, object]:
    measured = Measured.of(run)
    whole = Whole(measured, run)
    row: dict[str, object] = {
        "run": str(run.path),
        "system": run.info.name,
        "offered_rps": offered_rps(run.plan, run.info.warmup_s),
        "served_rps": TOTALS["programs_rps"].of(whole),
        "output_tps": TOTALS["output_tps"].of(whole),
        "calls": measured.calls.height,
        "failed": measured.calls.height - whole.served.height,
        "validity": run.info.validity,
    }
    for name, sample in measured.samples(LATENCIES).items():
        row |= {f"{name}_p50_s": bounded(sample, 0.5), f"{name}_p99_s": bounded(sample, 0.99)}
    return row | _of_slo(measured, slo)


def _of_slo(measured: Measured, slo: SLO | None) -> dict[str, object]:
    if slo is None or measured.calls.is_empty():
        return dict.fromkeys(_SHARES)
    asked = requirements(measured, slo)
    known = [each.met for each in asked]
    met = None if not known or (None in known and False not in known) else all(known)
    if not slo.of_each:
        return {**dict.fromkeys(_SHARES), "statistics_met": met}
    found = attained(measured, slo)
    return {
        "attainment": found.share,
        "goodput_rps": found.goodput_rps,
        "statistics_met": met,
    }


def offered_rps(plan: pl.DataFrame, since_s: float = 0.0) -> float | None:
    """Return the mean rate at which a plan starts programs (1/s), by those from `since_s` on.

    It is that of the n - 1 gaps between n starts; None where all start at once.
    """
    starts = (
        plan.group_by(pl.coalesce("program_id", "call_id"))
        .agg(col("due_s").min())
        .filter(col("due_s") >= since_s)["due_s"]
    )
    first, last = starts.min(), starts.max()
    if not isinstance(first, float) or not isinstance(last, float) or last <= first:
        return None
    return (len(starts) - 1) / (last - first)
