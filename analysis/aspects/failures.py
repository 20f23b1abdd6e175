"""Failures: how many, of which calls, when, under what load, and whether they come together."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.counts import round_width
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.intervals import of_mean
from servescope.analysis.regression import odds_ratio
from servescope.analysis.sample import Floats, Sample, in_sections
from servescope.analysis.seasons import DAY_S

_SECTIONS = 10
_BINS = 200
_COLUMNS = ("arrival_s", "input_tokens", "model", "call_class", "status")
_BY_SECTION = "means of 10 sections of calls in order of time, Student's t"

STATISTICS = {
    "failure_share": Statistic("calls that failed", "share", "count", _BY_SECTION),
    "failed": Statistic("calls that failed", "calls", "count"),
    "unknown": Statistic("calls of which nothing says how they ended", "calls", "count"),
    "clustering": Statistic(
        "how much likelier a call fails right after a failed one; 1 is by chance",
        "1",
        "share of failures after a failure, over the share of all",
        "p by the normal approximation of Wald and Wolfowitz' runs test",
    ),
    "longest_run": Statistic("longest run of failures", "calls", "maximum"),
    "length_effect": Statistic(
        "odds of failing for prompts of ten times the length",
        "1",
        "logistic regression on the log of the prompt",
        "Wald interval, of independent calls",
    ),
    "load_effect": Statistic(
        "odds of failing at ten times the calls in the same window",
        "1",
        "logistic regression on the log of the calls a window",
        "Wald interval, of independent calls",
    ),
}
TABLES = {
    "failures_by": TableOf(
        "failures by what the call was",
        {"of": "name", "calls": "calls", "failed": "calls", "share": "share"},
        "count",
    ),
    "failures_over_time": TableOf(
        "failures in equal stretches of time",
        {"t_s": "s", "calls": "calls", "failed": "calls", "share": "share"},
        "count",
    ),
    "failures_by_hour": TableOf(
        "failures by hour of the day",
        {"hour": "h", "calls": "calls", "failed": "calls", "share": "share"},
        "count",
    ),
    "failures_by_length": TableOf(
        "failures by the length of the prompt, in tenths of the calls",
        {"input_from": "tokens", "input_to": "tokens", "calls": "calls", "failed": "calls",
         "share": "share"},
        "count",
    ),
    "failures_by_load": TableOf(
        "failures by the calls in the same window, in tenths of the calls",
        {"from_rps": "calls/s", "to_rps": "calls/s", "calls": "calls", "failed": "calls",
         "share": "share"},
        "count",
    ),
}  # fmt: skip


def found(demand: Demand, findings: Findings) -> None:
    """Describe failures."""
    failed = demand.failed
    if failed is None:
        findings.leave_out("failures", "the source does not say how calls ended")
        return
    there = [c for c in _COLUMNS if c in demand.columns]
    calls = demand.calls.select(*there, failed)
    if failed.null_count():
        calls = calls.drop_nulls("failed")
    flag = calls["failed"].to_numpy()
    section = in_sections(len(flag), _SECTIONS)
    sample = Sample.of(flag.astype(np.float64), section, _SECTIONS)
    findings.say("failure_share", of_mean(sample) or sample.mean(), n=len(flag))
    findings.say("failed", int(flag.sum()), n=len(flag))
    findings.say("unknown", len(demand) - len(flag))
    _by_kind(calls, findings)
    if flag.all():
        findings.leave_out("what failures depend on", "every call failed")
        return
    if not flag.any():
        findings.leave_out("what failures depend on", "no call failed")
        return
    _clustering(flag, findings)
    if "input_tokens" in calls.columns:
        lengths = calls.drop_nulls("input_tokens")
        _tenths(lengths, "input_tokens", ("input_from", "input_to"), "failures_by_length", findings)
        _effect("length_effect", lengths["input_tokens"], lengths["failed"], findings)
    if demand.span_s > 0:
        _over_time(calls.drop_nulls("arrival_s"), demand, findings)
    else:
        findings.leave_out("failures over time and load", "no arrivals on one clock")


_COUNTED = {"calls": pl.len(), "failed": pl.col("failed").sum(), "share": pl.col("failed").mean()}


def _by_kind(calls: pl.DataFrame, findings: Findings) -> None:
    parts = []
    for column, word in (("status", "status"), ("model", "model"), ("call_class", "class")):
        if column not in calls.columns:
            continue
        table = (
            calls.group_by(column)
            .agg(**_COUNTED)
            .rename({column: "of"})
            .with_columns(pl.col("of").cast(pl.String).fill_null("unknown"))
            .sort("calls", "of", descending=[True, False])
            .head(20)
        )
        if column != "status" and table.height < 2:
            continue
        parts.append(table.with_columns(pl.format("{} {}", pl.lit(word), "of").alias("of")))
    if parts:
        findings.table("failures_by", pl.concat(parts))


def _clustering(flag: Floats, findings: Findings) -> None:
    from scipy import stats

    n, bad = len(flag), int(flag.sum())
    if n < 50 or bad < 5:
        findings.leave_out("clustering of failures", f"{bad} failures are too few")
        return
    after = flag[1:][flag[:-1].astype(bool)]
    runs = 1 + int((flag[1:] != flag[:-1]).sum())
    good = n - bad
    mean = 1 + 2 * bad * good / n
    variance = (mean - 1) * (mean - 2) / (n - 1)
    p = float(2 * stats.norm.sf(abs(runs - mean) / np.sqrt(variance))) if variance > 0 else 1.0
    findings.say("clustering", float(after.mean()) / (bad / n), n=n, p=p)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flag.astype(np.int8), [0]))))
    findings.say("longest_run", int(np.diff(edges)[::2].max()), n=bad)


def _tenths(
    calls: pl.DataFrame, by: str, names: tuple[str, str], table: str, findings: Findings
) -> None:
    values = calls[by].to_numpy()
    edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9), method="inverted_cdf"))
    group = pl.Series("group", np.searchsorted(edges, values, side="left"))
    found = (
        calls.with_columns(group)
        .group_by("group")
        .agg(pl.col(by).min().alias(names[0]), pl.col(by).max().alias(names[1]), **_COUNTED)
        .sort("group")
        .drop("group")
    )
    findings.table(table, found)


def _effect(what: str, x: pl.Series, failed: pl.Series, findings: Findings, of: str = "") -> None:
    """Say by what the odds of a failure are multiplied where counts are ten times as large."""
    if findings.lacks("statsmodels", f"odds of failing ({what})"):
        return
    groups = (
        pl.DataFrame({"x": x, "failed": failed})
        .filter(pl.col("x") > 0)
        .group_by("x")
        .agg(n=pl.len(), failed=pl.col("failed").sum())
        .sort("x")
    )
    logs = np.log10(groups["x"].to_numpy())
    trials, bad = (groups[c].to_numpy().astype(np.float64) for c in ("n", "failed"))
    findings.say(what, odds_ratio(logs, trials, bad), of=of, n=len(x))


def _over_time(calls: pl.DataFrame, demand: Demand, findings: Findings) -> None:
    at = calls["arrival_s"].to_numpy()
    width = round_width(demand.span_s, _BINS, demand.finest_s)
    place = pl.Series("place", np.floor((at - at[0]) / width).astype(np.int64))
    findings.table(
        "failures_over_time",
        calls.with_columns(place)
        .group_by("place")
        .agg(**_COUNTED)
        .sort("place")
        .select((at[0] + pl.col("place") * width).alias("t_s"), "calls", "failed", "share"),
    )
    load_width = max(60.0, demand.finest_s)
    window = np.floor((at - at[0]) / load_width).astype(np.int64)
    in_window = np.bincount(window)[window]
    loaded = calls.with_columns(rps=pl.Series(in_window / load_width))
    if demand.span_s >= 10 * load_width:
        _tenths(loaded, "rps", ("from_rps", "to_rps"), "failures_by_load", findings)
        in_window = pl.Series(in_window)
        _effect("load_effect", in_window, calls["failed"], findings, f"{load_width:g} s")
    if demand.span_s < DAY_S:
        findings.leave_out("failures by time of day", "the trace is shorter than a day")
        return
    hour = pl.Series("hour", demand.hours(at))
    findings.table(
        "failures_by_hour", calls.with_columns(hour).group_by("hour").agg(**_COUNTED).sort("hour")
    )
