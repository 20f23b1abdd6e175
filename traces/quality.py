"""What a reader should doubt about a trace before believing a number drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from servescope.traces.schema import OK
from servescope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Quality:
    """Counts of what is odd in a trace.

    `span_s` is the last less the first arrival, `tied_share` the share of gaps that are 0. A call
    outside every program counts as a program of its own.
    """

    calls: int
    programs: int | None
    span_s: float | None
    tied_share: float | None
    out_of_order: int
    no_input: int
    no_output: int
    failed: int
    doubts: tuple[str, ...]


def inspect(trace: Trace) -> Quality:
    """Audit a trace: ties and order of arrivals, zero or missing token counts, failures."""
    calls = trace.collect()
    doubts = list(trace.provenance.doubts)
    if "arrival_s" in calls.columns:
        arrivals = calls["arrival_s"].drop_nulls()
    else:
        arrivals = pl.Series([], dtype=pl.Float64)
    gaps = arrivals.diff().drop_nulls().to_numpy()
    tied_share = float((gaps == 0).mean()) if gaps.size else None
    if tied_share is not None and tied_share > 0.05 and not any("stamp" in d for d in doubts):
        doubts.append(f"{tied_share:.0%} of the arrivals share a stamp with the one before.")
    no_input = calls.filter(pl.col("input_tokens").fill_null(0) == 0).height
    no_output = calls.filter(pl.col("output_tokens").fill_null(0) == 0).height
    if no_input:
        doubts.append(f"{no_input} calls have no input tokens; a replay cannot send them.")
    placed = [pl.col(c).is_not_null() for c in ("arrival_s", "parents") if c in calls.columns]
    lost = calls.filter(~pl.any_horizontal(placed)).height
    if lost:
        doubts.append(f"{lost} calls say neither when they arrive nor what they wait for.")
    failed = 0
    if "status" in calls.columns:
        failed = calls.filter(pl.col("status").is_not_null() & (pl.col("status") != OK)).height
    programs = None
    if "program_id" in calls.columns and calls["program_id"].is_not_null().any():
        alone = calls["program_id"].null_count()
        programs = calls["program_id"].drop_nulls().n_unique() + alone
    ordered = arrivals.sort().to_numpy()
    return Quality(
        calls=calls.height,
        programs=programs,
        span_s=float(ordered[-1] - ordered[0]) if ordered.size else None,
        tied_share=tied_share,
        out_of_order=int((gaps < 0).sum()),
        no_input=no_input,
        no_output=no_output,
        failed=failed,
        doubts=tuple(doubts),
    )
