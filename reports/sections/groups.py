"""Classes and turns by themselves, so that no mixture hides one of them (Simpson's effect)."""

from __future__ import annotations

from servescope.analysis.attainment import by_group
from servescope.analysis.cut import TURN_GROUPS, TURNS
from servescope.reports.blocks import Cell, Column, Section, Table, told
from servescope.reports.story import Story

MOST_GROUPS = 12
_TITLES = {
    "call_class": "class",
    "model": "model",
    "turns": "turn",
    "client_id": "client",
    "replica": "replica",
}
_COLUMNS = (
    Column("calls", "calls", "count"),
    Column("failed", "failed", "count"),
    Column("share", "within SLO", "share"),
    Column("ttft_p50", "TTFT p50 (ms)", "ms"),
    Column("ttft_p99", "TTFT p99 (ms)", "ms"),
    Column("tpot_p50", "TPOT p50 (ms)", "ms"),
    Column("e2e_mean", "E2E mean (ms)", "ms"),
    Column("norm_mean", "normalised (ms/token)", "ms"),
)


def groups(story: Story) -> Section | None:
    """Show every class, model, turn, client and replica by itself, where there are several."""
    tables = []
    for column, title in _TITLES.items():
        rows: list[dict[str, Cell]] = []
        for name, measured in story.measured.items():
            table = by_group(measured, story.slo, column, {"turns": TURNS})
            if table.height < 2:
                continue
            for row in table.head(MOST_GROUPS).iter_rows(named=True):
                value = row.pop(column)
                rows.append({"group": "none" if value is None else str(value), "run": name, **row})
        if rows:
            order = list(dict.fromkeys(row["group"] for row in rows))
            if column == "turns":
                order.sort(key=(*TURN_GROUPS, "none").index)
            rows.sort(key=lambda row: order.index(row["group"]))
            columns = (Column("group", title), Column("run", "run"), *told(_COLUMNS, rows))
            tables.append(Table(columns, rows))
    if not tables:
        return None
    says = (
        "A mixture can look better while every class of it became worse, because the mixture"
        " changed; so look at the classes. The SLO is asked of calls here, without its conditions"
        f" on programs. At most the {MOST_GROUPS} largest groups are shown."
    )
    last = tables[-1]
    return Section(
        "groups",
        "Class by class, turn by turn",
        (*tables[:-1], Table(last.columns, last.rows, says)),
    )
