"""What was asked of the server and what it served."""

from __future__ import annotations

from servescope.analysis.totals import TOTALS, totals_of
from servescope.reports.blocks import Cell, Column, Section, Table, told
from servescope.reports.story import Story

_TRAFFIC = (
    "calls", "failed", "programs", "span", "calls_rps", "programs_rps", "output_tps", "input_tps",
    "concurrency_mean", "concurrency_peak",
)  # fmt: skip
_SERVER = (
    "cached_share", "prefix_hit_share", "queue_mean", "waiting_mean", "waiting_peak",
    "kv_usage_peak", "preemptions", "energy_per_token",
)  # fmt: skip


def service(story: Story) -> Section:
    """Show the totals of every run: what was asked and served, and what the server made of it."""
    rows: list[dict[str, Cell]] = [
        {"run": name, **totals_of(whole)} for name, whole in story.wholes.items()
    ]
    tables = []
    for names in (_TRAFFIC, _SERVER):
        shown = told([_column(name) for name in names], rows)
        if shown:
            tables.append(Table((Column("run", "run"), *shown), rows))
    meaning: list[dict[str, Cell]] = [
        {"total": TOTALS[column.key].label, "says": TOTALS[column.key].says}
        for table in tables
        for column in table.columns[1:]
    ]
    definitions = Table((Column("total", "total"), Column("says", "definition", "prose")), meaning)
    return Section("service", "What was served", (*tables, definitions))


def _column(name: str) -> Column:
    total = TOTALS[name]
    if total.unit == "count":
        return Column(name, total.label, "rate" if name.endswith("_mean") else "count")
    if total.unit == "share":
        return Column(name, total.label, "share")
    if name == "queue_mean":
        return Column(name, f"{total.label} (ms)", "ms")
    return Column(name, f"{total.label} ({total.unit})", "rate")
