"""The SLO: who met it, what it would take, and how evenly."""

from __future__ import annotations

import numpy as np

from servescope.analysis.attainment import attained, by_group, jain, judged, requirements
from servescope.analysis.intervals import bounded
from servescope.analysis.metrics import METRICS
from servescope.analysis.sample import Sample
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
_FLUIDITY = (
    Column("run", "run"),
    Column("deadlines", "asked"),
    Column("n", "calls", "count"),
    Column("mean", "fluidity, mean", "share"),
    Column("p50", "p50", "share"),
    Column("p10", "p10", "share"),
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
            needed = np.sort(judged(measured, slo, "scale")["scale"].to_numpy())
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
            " be; token deadlines stay as they are), and Jain's index of fairness, 1 where all fare"
            " alike."
        )
        blocks.append(Table(told(_EACH, rows), rows, says))
        blocks.append(
            Figure(
                figures.attainment_curve(_FINE, curves, slo.per),
                f"Share of {slo.per} that would meet the SLO if all its bounds were so many times"
                " as loose.",
            )
        )
    fluid: list[dict[str, Cell]] = []
    for name, measured in story.measured.items():
        for deadlines in dict.fromkeys(f for group in slo.groups for f in group.fluidity):
            shares = measured.fluidity(deadlines.first_s, deadlines.gap_s).drop_nulls()
            sample = Sample.of(shares.to_numpy())
            fluid.append(
                {
                    "run": name,
                    "deadlines": str(deadlines),
                    "n": len(sample),
                    "mean": sample.mean(),
                    "p50": bounded(sample, 0.5),
                    "p10": bounded(sample, 0.1),
                }
            )
    if fluid:
        blocks.append(Table(told(_FLUIDITY, fluid), fluid, _OF_FLUIDITY))
    asked: list[dict[str, Cell]] = []
    for name, measured in story.measured.items():
        for each in requirements(measured, slo):
            value = None if each.value == np.inf else each.value
            is_ratio = METRICS[each.condition.metric].unit == "ratio"
            asked.append(
                {
                    "run": name,
                    "condition": str(each),
                    "value": None if is_ratio else value,
                    "ratio": value if is_ratio else None,
                    "met": each.verdict,
                }
            )
    if asked:
        blocks.append(Table(told(_STATISTICS, asked), asked, _SAYS))
    return Section("objectives", "The SLO", tuple(blocks))


_OF_FLUIDITY = (
    "The fluidity-index (Etalon): the share of a call's token deadlines that were met, over all"
    " calls whose tokens are known. A stall that earlier tokens made up for costs nothing."
)
_SAYS = (
    "Conditions on a statistic of all calls. In a quantile of calls or programs a failure counts as"
    " one that took for ever."
)


def _needed(needed: np.ndarray[tuple[int], np.dtype[np.float64]], share: float) -> float | None:
    """Return the scale at which a share would meet the SLO; None where no scale would do."""
    if not len(needed):
        return None
    value = float(needed[max(0, int(np.ceil(share * len(needed) - 1e-9)) - 1)])
    return value if np.isfinite(value) and value > 0 else None  # 0: nothing of it has a bound


def _fairness(story: Story, name: str, column: str) -> float | None:
    table = by_group(story.measured[name], story.slo, column)
    if table.height < 2 or "share" not in table.columns:
        return None
    return jain(table["share"].to_numpy())
