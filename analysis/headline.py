"""What a list of runs says of each: a few numbers, had without reading what came chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from polars import col

from servescope.analysis.attainment import share_of
from servescope.analysis.intervals import bounded
from servescope.analysis.measured import Measured
from servescope.analysis.metrics import METRICS
from servescope.analysis.slo import SELECTORS, SLO
from servescope.analysis.totals import TOTALS, Whole
from servescope.traces.run import Run

# Of more calls, what takes reading every chunk, or every program's path, is left to the run's page.
MOST_CALLS = 20_000
LATENCIES = ("ttft", "tpot", "e2e")
STARTS = ("call_id", "program_id", "due_s")  # of a plan: when its programs start
_COLUMNS = (
    "call_id", "program_id", "status", "due_s", "sent_s", "first_token_s", "last_token_s", "end_s",
    "input_tokens", "output_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Headline:
    """Calls, failed ones, and what they met: seconds, seconds a token (TPOT), per second (rates).

    A quantile is None of too few values for it, and a rate of no time. `attainment` is the share of
    calls (or programs) within the SLO, None where none is asked, or it takes too long to tell.
    """

    calls: int
    failed: int
    offered_rps: float | None
    output_tps: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None
    attainment: float | None


def headline(run: Run, slo: SLO | None = None) -> Headline:
    """Return the headline of a run, finished or not, without its warm-up.

    Of more than MOST_CALLS calls there is no attainment of an SLO that asks for stalls, fluidity or
    JCT.
    """
    many = run.info.planned_calls > MOST_CALLS
    asked = None if slo is None or (many and _takes_long(slo)) else slo
    rows = run.rows if asked and _takes_long(asked) else run.rows.select(*_needs(run, asked))
    offered = offered_rps(run.planned(*STARTS), run.info.warmup_s)
    return headline_of(Measured(rows, run.info.warmup_s), asked, offered)


def headline_of(measured: Measured, slo: SLO | None, offered: float | None) -> Headline:
    """Return the headline of what is measured already, with the rate (1/s) that was offered.

    Of a part of a run that is `rate_of` its `starts`.
    """
    whole = Whole(measured)
    quantiles = {
        f"{name}_{label}_s": bounded(sample, q)
        for name in LATENCIES
        for sample in (measured.spread(name),)
        for label, q in (("p50", 0.5), ("p99", 0.99))
    }
    return Headline(
        calls=measured.height,
        failed=measured.height - whole.served.height,
        offered_rps=offered,
        output_tps=TOTALS["output_tps"].of(whole),
        attainment=share_of(measured, slo) if slo is not None and slo.of_each else None,
        **quantiles,
    )


def _takes_long(slo: SLO) -> bool:
    """Whether an SLO asks for what is not one subtraction a call."""
    asked = [c.metric for group in slo.groups for c in group.asked_of("call")]
    lists = any({"chunk_s"} & set(METRICS[name].needs) for name in asked)
    return lists or slo.per == "programs" or any(group.fluidity for group in slo.groups)


def _needs(run: Run, slo: SLO | None) -> list[str]:
    """Return the columns of a run that its headline is made of."""
    groups = slo.groups if slo else ()
    names = [
        name for group in groups for c in group.asked_of("call") for name in METRICS[c.metric].needs
    ]
    names += [SELECTORS[key] for group in groups for key, _ in group.where]
    known = run.rows.collect_schema().names()
    return [name for name in dict.fromkeys((*_COLUMNS, *names)) if name in known]


def offered_rps(plan: pl.DataFrame, since_s: float = 0.0) -> float | None:
    """Return the mean rate at which a plan starts programs (1/s), by those from `since_s` on.

    It is that of the n - 1 gaps between n starts; None where all start at once.
    """
    starts = (
        plan.group_by(pl.coalesce("program_id", "call_id"))
        .agg(col("due_s").min())
        .filter(col("due_s") >= since_s)["due_s"]
    )
    return rate_of(starts)


def rate_of(starts: pl.Series) -> float | None:
    """Return the mean rate (1/s) of n starts (s) by their n - 1 gaps; None where all are one."""
    first, last = starts.min(), starts.max()
    if not isinstance(first, float) or not isinstance(last, float) or last <= first:
        return None
    return (len(starts) - starts.null_count() - 1) / (last - first)
