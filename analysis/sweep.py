"""One row a run: what was offered, what was served, how fast, and who met the SLO.

The rows of runs at several loads are the points of latency-throughput-SLO curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import polars as pl

from servescope.analysis.attainment import attained, requirements
from servescope.analysis.headline import LATENCIES, STARTS, headline_of, offered_rps
from servescope.analysis.measured import Measured
from servescope.analysis.slo import SLO
from servescope.analysis.totals import TOTALS, Whole
from servescope.traces.run import Run

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
    offered = offered_rps(run.planned(*STARTS), run.info.warmup_s)
    row: dict[str, object] = {
        "run": str(run.path),
        "system": run.info.name,
        **asdict(headline_of(measured, None, offered)),
        "served_rps": TOTALS["programs_rps"].of(Whole(measured, run)),
        "validity": run.info.validity,
    }
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
