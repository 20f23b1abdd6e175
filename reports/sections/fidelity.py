"""Whether the client did what was planned: the certificate of the schedule."""

from __future__ import annotations

from typing import Any

from servescope.reports.blocks import Cell, Column, Section, Table, told
from servescope.reports.story import Story

_COLUMNS = (
    Column("run", "run"),
    Column("validity", "validity"),
    Column("planned", "planned", "count"),
    Column("ended", "ended", "count"),
    Column("lag_p50", "lag p50 (ms)", "ms"),
    Column("lag_p99", "lag p99 (ms)", "ms"),
    Column("lag_max", "lag max (ms)", "ms"),
    Column("late_p99", "stamps late, p99 (ms)", "ms"),
    Column("stall", "longest stall (ms)", "ms"),
    Column("rate_off", "rate off", "share"),
    Column("ks", "gaps off (KS)", "ratio"),
    Column("dispersion_off", "burstiness off", "share"),
    Column("cpu", "client CPU", "share"),
    Column("steal", "stolen", "share"),
)


def fidelity(story: Story) -> Section:
    """Show how well each run kept its plan, by its own clocks."""
    rows: list[dict[str, Cell]] = []
    for name, run in story.named.items():
        info = run.info
        client: dict[str, Any] = info.client
        arrivals: dict[str, Any] = client.get("arrivals") or {}
        rows.append(
            {
                "run": name,
                "validity": info.validity,
                "planned": info.planned_calls,
                "ended": story.calls[name].height,
                "lag_p50": client.get("lag_p50_s"),
                "lag_p99": client.get("lag_p99_s"),
                "lag_max": client.get("lag_max_s"),
                "late_p99": client.get("late_p99_s"),
                "stall": client.get("stall_max_s"),
                "rate_off": arrivals.get("rate_off"),
                "ks": arrivals.get("ks"),
                "dispersion_off": arrivals.get("dispersion_off"),
                "cpu": client.get("cpu_share"),
                "steal": client.get("steal_share"),
            }
        )
    says = (
        "Lag is from when a call might be sent to when the client picked it up. Rate, gaps and"
        " burstiness are of what was sent against the plan. In virtual time the client is never"
        " late, and has no such numbers. Planned calls that did not end were in the warm-up, or the"
        " run stopped."
    )
    if any(run.info.imported for run in story.runs):
        says += " Of an imported run nobody measured them."
    return Section(
        "fidelity", "Did the client keep its plan?", (Table(told(_COLUMNS, rows), rows, says),)
    )
