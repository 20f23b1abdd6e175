"""A short summary of a trace: how much, how fast, how bursty, how long, how many turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from servescope.traces.quality import inspect
from servescope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in six numbers; quantiles are order statistics, as everywhere."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    cv: float | None

    @classmethod
    def of(cls, values: pl.Series) -> Spread | None:
        """Describe the values that are not null; None if there are none."""
        kept = values.drop_nulls().cast(pl.Float64).to_numpy()
        if not len(kept):
            return None
        mean = float(kept.mean())
        p50, p90, p99 = np.quantile(kept, (0.5, 0.9, 0.99), method="inverted_cdf").tolist()
        cv = float(kept.std(ddof=1)) / mean if mean and len(kept) > 1 else None
        return cls(mean, p50, p90, p99, float(kept.max()), cv)


@dataclass(frozen=True, slots=True)
class Description:
    """The summary. Times are seconds; `iat` (inter-arrival) is None for too coarse a clock.

    `iat_cv` above 1 means burstier than Poisson, below 1 more regular. `multi_turn_share` is the
    share of calls in programs of two or more.
    """

    calls: int
    programs: int | None
    span_s: float | None
    rate_rps: float | None
    iat: Spread | None
    input_tokens: Spread | None
    output_tokens: Spread | None
    turns: Spread | None
    multi_turn_share: float | None
    failed: int
    doubts: tuple[str, ...]


def describe(trace: Trace) -> Description:
    """Summarise a trace.

    Inter-arrival times are left out if more than half of the arrivals share a stamp with another:
    they would measure the source's clock, not its users.
    """
    audit = inspect(trace)
    doubts = list(audit.doubts)
    arrivals = _column(trace, "arrival_s").drop_nulls().sort()
    gaps = arrivals.diff().drop_nulls()
    tied = int((gaps == 0).sum()) / len(gaps) if len(gaps) else 0.0
    if tied > 0.5:
        doubts.append("So many ties leave no inter-arrival statistic that is not the clock's own.")
    turns, multi = None, None
    if audit.programs is not None:
        named = trace.frame.filter(pl.col("program_id").is_not_null())
        sizes = named.group_by("program_id").len().select("len").collect().to_series()
        turns = Spread.of(sizes)
        multi = float(sizes.filter(sizes > 1).sum()) / audit.calls
    return Description(
        calls=audit.calls,
        programs=audit.programs,
        span_s=audit.span_s,
        rate_rps=(len(arrivals) - 1) / audit.span_s if audit.span_s else None,
        iat=Spread.of(gaps) if tied <= 0.5 else None,
        input_tokens=Spread.of(_column(trace, "input_tokens")),
        output_tokens=Spread.of(_column(trace, "output_tokens")),
        turns=turns,
        multi_turn_share=multi,
        failed=audit.failed,
        doubts=tuple(doubts),
    )


def _column(trace: Trace, name: str) -> pl.Series:
    """Read one column, empty where the trace does not have it: all of them may not fit."""
    if name not in trace.columns:
        return pl.Series([], dtype=pl.Float64)
    return trace.frame.select(name).collect().to_series()
