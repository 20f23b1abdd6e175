"""Why one system served a plan better than another: parts of JCT, classes, the servers' words."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from servescope.analysis.metrics import ANSWERED, JCT_PARTS, METRICS
from servescope.analysis.totals import TOTALS, Whole, totals_of

FEWEST_IN_CLASS = 30
WORTH_SAYING = 0.2  # share of the difference that a part makes up
OF_SERVERS = ("queue_mean", "waiting_mean", "kv_usage_peak", "preemptions", "prefix_hit_share")
OF_CALLS = ("cached_share", "concurrency_mean")


def explain(names: tuple[str, str], wholes: tuple[Whole, Whole]) -> tuple[str, ...]:
    """Return sentences on what made the second of two runs differ from the first.

    They describe what went with the difference; none of them is tested.
    """
    return (*_parts(names, wholes), *_classes(names, wholes), *_servers(names, wholes))


def _parts(names: tuple[str, str], wholes: tuple[Whole, Whole]) -> Iterable[str]:
    """Say which parts of mean JCT changed, of programs that both served whole."""
    a, b = (whole.measured.programs for whole in wholes)
    both = a.join(b, on="program_id", suffix="_b").drop_nulls(("jct", "jct_b"))
    if both.is_empty():
        return
    means = both.select(pl.col(*JCT_PARTS, *(f"{part}_b" for part in JCT_PARTS)).mean())
    changes = {
        part: (means[f"{part}_b"].item() or 0.0) - (means[part].item() or 0.0) for part in JCT_PARTS
    }
    total = sum(abs(change) for change in changes.values())
    large = sorted(
        (part for part in JCT_PARTS if total and abs(changes[part]) >= WORTH_SAYING * total),
        key=lambda part: -abs(changes[part]),
    )
    if large:
        told = ", ".join(
            f"{METRICS[part].label.removeprefix('JCT: ')} {changes[part]:+.3g} s" for part in large
        )
        yield f"Of mean JCT, {names[1]} against {names[0]}: {told}."


def _classes(names: tuple[str, str], wholes: tuple[Whole, Whole]) -> Iterable[str]:
    """Say how mean E2E changed in each class, and which went against the whole (Simpson)."""
    tables = [
        whole.measured.calls.filter(ANSWERED)
        .drop_nulls("call_class")
        .group_by("call_class")
        .agg(n=pl.len(), e2e=pl.col("e2e").mean())
        for whole in wholes
    ]
    both = tables[0].join(tables[1], on="call_class", suffix="_b")
    both = both.filter(pl.min_horizontal("n", "n_b") >= FEWEST_IN_CLASS).sort("call_class")
    if both.height < 2:
        return
    ratios = both.select("call_class", ratio=pl.col("e2e_b") / pl.col("e2e")).rows()
    told = ", ".join(f"{name} x {ratio:.2f}" for name, ratio in ratios)
    yield f"Mean E2E by class, {names[1]} over {names[0]}: {told}."
    a, b = (whole.measured.sample("e2e").mean() or 0.0 for whole in wholes)
    against = [name for name, ratio in ratios if (ratio - 1) * (b - a) < 0]
    if len(against) == both.height:
        yield (
            "Every class went the other way than the whole: the mixture of classes that was served"
            " differs, and the whole says nothing (Simpson's paradox)."
        )
    elif against:
        yield f"Against the whole went: {', '.join(against)}."


def _servers(names: tuple[str, str], wholes: tuple[Whole, Whole]) -> Iterable[str]:
    a, b = (totals_of(whole) for whole in wholes)
    told = []
    for name in (*OF_SERVERS, *OF_CALLS):
        was, now = a[name], b[name]
        if was is not None and now is not None and _apart(was, now):
            total = TOTALS[name]
            told.append(
                f"{total.label.lower()} {_told(was, total.unit)} and {_told(now, total.unit)}"
            )
    if told:
        yield f"Meanwhile, {names[0]} and {names[1]}: {'; '.join(told)}."


def _apart(was: float, now: float) -> bool:
    return abs(now - was) > 0.1 * max(abs(was), abs(now))


def _told(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value:.0%}"
    return f"{value:.3g} s" if unit == "s" else f"{value:.3g}"
