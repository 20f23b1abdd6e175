"""The distribution of every metric, what each one means, and when its clock starts."""

from __future__ import annotations

import polars as pl

from servescope.analysis.intervals import SECTIONS, fewest
from servescope.analysis.metrics import JCT_PARTS, METRICS
from servescope.reports.blocks import Cell, Column, Section, Table, told
from servescope.reports.story import Story

ELSEWHERE = (*JCT_PARTS, "slowdown")  # in the section of programs
# What has nothing to add where it is the same as another: an answer without reasoning, chunks of
# one token each, a client that was never late.
_TWINS = {
    "ttft_due": "ttft",
    "ttfo": "ttft",
    "ttfo_due": "ttft_due",
    "icl": "tbt",
    "e2e_due": "e2e",
    "norm_due": "norm",
    "jct_sent": "jct",
}


def latencies(story: Story) -> Section:
    """Show the distribution of every metric, then what each one means and when its clock starts."""
    rows: list[dict[str, Cell]] = []
    same = _same_as_their_twins(story)
    for metric in METRICS.values():
        if metric.name in (*ELSEWHERE, *same):
            continue
        for name, table in story.summaries.items():
            spread = table.row(by_predicate=pl.col("metric") == metric.name, named=True)
            on_virtual_clock = story.named[name].info.clock == "virtual"
            if spread["n"] and not (on_virtual_clock and metric.of_client):
                rows.append({**spread, "metric": metric.label, "run": name})
    columns = (
        Column("metric", "metric"),
        Column("run", "run"),
        Column("n", "n", "count"),
        Column("mean", "mean (ms)", "ms"),
        Column("p50", "p50 (ms)", "ms"),
        Column("p50_low", "95 % from", "ms"),
        Column("p50_high", "to", "ms"),
        Column("p90", "p90 (ms)", "ms"),
        Column("p99", "p99 (ms)", "ms"),
        Column("p99_low", "95 % from", "ms"),
        Column("p99_high", "to", "ms"),
        Column("max", "max (ms)", "ms"),
    )
    shown = {row["metric"] for row in rows}
    definitions: list[dict[str, Cell]] = [
        {
            "metric": metric.label,
            "unit": metric.unit,
            "clock": metric.clock,
            "says": metric.says,
            "source": metric.source,
        }
        for metric in METRICS.values()
        if metric.label in shown
    ]
    meaning = Table(
        (
            Column("metric", "metric"),
            Column("unit", "unit"),
            Column("clock", "clock"),
            Column("says", "definition", "prose"),
            Column("source", "as in", "prose"),
        ),
        definitions,
        "The sent clock starts when the client wrote the request, the due clock when the plan"
        " wanted it sent." + _left_out(same),
    )
    says = (
        f"Intervals hold although calls share queues: they are of {SECTIONS} sections of the run's"
        " time. A quantile needs values beyond it: p50 is left out of fewer than"
        f" {fewest(0.5)} values, p90 of {fewest(0.9)}, p99 of {fewest(0.99)}."
    )
    return Section("latencies", "Latencies", (Table(told(columns, rows), rows, says), meaning))


def _same_as_their_twins(story: Story) -> dict[str, str]:
    """Return the metrics that are in every run the same as another one, and which."""
    tables = [
        dict(zip(t["metric"], t.drop("metric").rows(), strict=True))
        for t in story.summaries.values()
    ]
    return {
        metric: twin
        for metric, twin in _TWINS.items()
        if all(rows[metric] == rows[twin] for rows in tables) and any(r[metric][0] for r in tables)
    }


def _left_out(same: dict[str, str]) -> str:
    same_as = [f"{METRICS[metric].label} ({METRICS[twin].label})" for metric, twin in same.items()]
    return f" Left out as the same as another: {', '.join(same_as)}." if same_as else ""
