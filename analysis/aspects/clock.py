"""The clock audit: what the stamps can say, before anything is computed from them."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf

_RAYLEIGH = "Mardia and Jupp, Directional Statistics (2000)"

STATISTICS = {
    "stamps": Statistic("calls with an arrival", "calls", "count"),
    "span_s": Statistic("first arrival to last", "s", "difference"),
    "tick_s": Statistic(
        "tick of the clock: stamps finer than it are not real, or not even",
        "s",
        "greatest common step; beat of shared stamps; phase concentration over periods",
        "p-value of chance (exact, Rayleigh's, Hotelling's over 60 sections)",
        _RAYLEIGH,
    ),
    "tick_strength": Statistic(
        "how much the stamps favour one phase of the tick: 1 all, 0 none",
        "1",
        "mean resultant length R of the phases",
        source=_RAYLEIGH,
    ),
    "finest_s": Statistic(
        "smallest time scale of which anything is said below", "s", "twice the tick"
    ),
    "tied_share": Statistic("arrivals with the same stamp as the one before", "share", "count"),
    "distinct_stamps": Statistic("different stamps", "stamps", "count"),
    "duplicates": Statistic(
        "calls that repeat another in all that an analysis reads of them",
        "calls",
        "count of equal hashes",
    ),
    "out_of_order": Statistic("arrivals before the one above them in the source", "calls", "count"),
    "largest_gap_s": Statistic("longest time without an arrival", "s", "maximum"),
}
TABLES = {
    "clock_phase": TableOf(
        "how many stamps fall into each part of a tick, or of a second without one",
        {"phase": "share of the period", "stamps": "calls"},
        "histogram of 50 parts",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Say what the audit of the clock shows."""
    audit = demand.audit
    if not audit.stamps:
        findings.leave_out("the clock", "no call has an arrival")
        return
    findings.say("stamps", audit.stamps)
    findings.say("distinct_stamps", audit.distinct)
    findings.say("duplicates", audit.duplicates)
    findings.say("out_of_order", audit.out_of_order)
    findings.say("tied_share", audit.tied_share)
    if demand.timed:
        findings.say("span_s", audit.span_s)
        findings.say("largest_gap_s", audit.largest_gap_s)
    else:
        findings.leave_out(
            "arrivals on one clock", "every program has a zero of its own in this source"
        )
    tick = audit.tick
    if tick:
        p = None if np.isnan(tick.p_value) else tick.p_value
        findings.say("tick_s", tick.step_s, of=tick.kind, n=audit.stamps, p=p)
        findings.say("tick_strength", tick.strength, of=tick.kind)
        findings.say("finest_s", audit.finest_s)
    period = tick.step_s if tick and tick.kind != "grid" else 1.0
    stamps = demand.calls["arrival_s"].drop_nulls().to_numpy()
    if len(stamps) >= 50:
        parts = 50
        cell = np.floor((stamps - stamps.min()) / period % 1.0 * parts + 1e-6).astype(np.int64)
        counts = np.bincount(np.minimum(cell, parts - 1), minlength=parts)
        findings.table(
            "clock_phase", pl.DataFrame({"phase": np.arange(parts) / parts, "stamps": counts})
        )
