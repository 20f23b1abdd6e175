"""One number for how well a run served its load, and what it is made of.

    score = (attainment + speed) / 2        between 0 and 1

Attainment is the share of calls (or programs) within the SLO. It says nothing of by how much, so
speed stands beside it: the mean over programs of how long each would take alone, over how long it
took. That the two weigh alike is ASSUMED. A failed program has speed 0 and meets no SLO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.attainment import attained, jain
from servescope.analysis.intervals import bounded
from servescope.analysis.measured import Measured
from servescope.analysis.slo import SLO


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a run and its parts; a quantile is null of too few values for it.

    `fairness` is Jain's index of the speeds of programs: 1 if all are slowed alike.
    """

    score: float
    attainment: float
    speed: float
    fairness: float | None
    goodput_rps: float | None
    calls: int
    failed: int
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tbt_p99_s: float | None
    jct_p50_s: float | None
    jct_p99_s: float | None


def score_of(measured: Measured, slo: SLO, alone_s: Mapping[str, float]) -> Score:
    """Return the score of a run; `alone_s` is how long each program would take alone, by its id."""
    within = attained(measured, slo)
    alone = pl.DataFrame(
        {"program_id": list(alone_s), "alone_s": list(alone_s.values())},
        schema={"program_id": pl.String, "alone_s": pl.Float64},
    )
    programs = measured.programs.join(alone, on="program_id", maintain_order="left")
    speeds = programs.select((col("alone_s") / col("jct")).clip(0, 1).fill_null(0.0)).to_series()
    speed = float(np.mean(speeds.to_numpy())) if len(speeds) else 0.0
    samples = measured.samples(("ttft", "tbt", "jct"))
    return Score(
        score=(within.share + speed) / 2,
        attainment=within.share,
        speed=speed,
        fairness=jain(speeds.to_numpy()),
        goodput_rps=within.goodput_rps,
        calls=measured.calls.height,
        failed=int(measured.programs["failed"].sum()),
        ttft_p50_s=bounded(samples["ttft"], 0.5),
        ttft_p99_s=bounded(samples["ttft"], 0.99),
        tbt_p99_s=bounded(samples["tbt"], 0.99),
        jct_p50_s=bounded(samples["jct"], 0.5),
        jct_p99_s=bounded(samples["jct"], 0.99),
    )
