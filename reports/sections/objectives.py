"""The SLO: who met it, what it would take, and how evenly."""

from __future__ import annotations

import numpy as np

from servescope.analysis.attainment import attained, by_group, jain, judged, requirements
from servescope.analysis.metrics import METRICS
from servescope.reports import figures
from servescope.reports.blocks import Cell, Column, Figure, Section, Table, told
from servescope.reports.story import Story

_FINE = tuple(np.geomspace(0.1, 10.0, 101).tolist())
_EACH = (
    Column("run", "run"),
    Column("asked", "asked", "count"),
    Column("met", "met", "count"),
    Column("share", "within SLO", "share"),
    Column("goodput", "goodput /s", "rate"),
    Column("programs", "programs /s", "rate"),
    Column("tokens", "tokens /s", "rate"),
    Column("scale_90", "90 % meet it times", "ratio"),
    Column("scale_99", "99 % times", "ratio"),
    Column("jain_class", "fairness, classes", "ratio"),
    Column("jain_client", "clients", "ratio"),
)
_STATISTICS = (
    Column("run", "run"),
    Column("condition", "condition"),
    Column("value", "measured (ms)", "ms"),
    Column("ratio", "measured", "ratio"),
    Column("met", "met"),
)


def objectives(story: Story) -> Section | None:
    """Show attainment, goodput and fairness, the statistics that were asked, and the curve."""
    slo = story.slo
    if slo is None:
        return None
    blocks: list[Table | Figure] = []
    if slo.of_each:
        rows: list[dict[str, Cell]] = []
        curves: dict[str, tuple[float, ...]] = {}
        for name, measured in story.measured.items():
            met = attained(measured, slo)
            table = judged(measured, slo)
            needed = np.sort(table["scale"].to_numpy())
            rows.append(
                {
                    "run": name,
                    "asked": met.asked,
                    "met": met.met,
                    "share": met.share,
                    "goodput": met.goodput_rps,
                    "programs": met.program_goodput_rps,
                    "tokens": met.token_goodput_tps,
                    "scale_90": _needed(needed, 0.9),
                    "scale_99": _needed(needed, 0.99),
                    "jain_class": _fairness(story, name, "call_class"),
                    "jain_client": _fairness(story, name, "client_id"),
                }
            )
            below = np.searchsorted(needed, np.asarray(_FINE), side="left") / max(1, len(needed))
            curves[name] = tuple(below.tolist())
        says = (
            f"SLO: {slo}. Failed, timed-out, unfinished and unmeasured {slo.per} are misses."
            " Goodput counts those that met it, per second of the run. The last columns say how"
            " many times looser every bound would have to be (below 1: how much tighter it could"
            " be), and Jain's index of fairness, 1 where all fare alike."
        )
        blocks.append(Table(told(_EACH, rows), rows, says))
        blocks.append(
            Figure(
                figures.attainment_curve(_FINE, curves, slo.per),
                f"Share of {slo.per} that would meet the SLO if all its bounds were so many times"
                " as loose.",
            )
        )
    asked: list[dict[str, Cell]] = []
    for name, measured in story.measured.items():
        for each in requirements(measured, slo):
            where = " and ".join(f"{key} is {value}" for key, value in each.where)
            failed = each.value == np.inf
            value = None if failed else each.value
            is_ratio = METRICS[each.condition.metric].unit == "ratio"
            asked.append(
                {
                    "run": name,
                    "condition": f"{each.condition}{f' where {where}' if where else ''}",
                    "value": None if is_ratio else value,
                    "ratio": value if is_ratio else None,
                    "met": "yes" if each.met else "no: too many failed" if failed else "no",
                }
            )
    if asked:
        blocks.append(Table(told(_STATISTICS, asked), asked, _SAYS))
    return Section("objectives", "The SLO", tuple(blocks))


_SAYS = (
    "Conditions on a statistic of all calls. In a quantile of calls or programs a failure counts as"
    " one that took for ever."
)


def _needed(needed: np.ndarray[tuple[int], np.dtype[np.float64]], share: float) -> float | None:
    """Return the scale at which a share would meet the SLO; None where too many failed."""
    if not len(needed):
        return None
    value = float(needed[max(0, int(np.ceil(share * len(needed) - 1e-9)) - 1)])
    return value if np.isfinite(value) else None


def _fairness(story: Story, name: str, column: str) -> float | None:
    table = by_group(story.measured[name], story.slo, column)
    if table.height < 2 or "share" not in table.columns:
        return None
    return jain(table["share"].to_numpy())
