"""How the answer depends on the prompt, on the hour, and on the calls before it."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis import copulas
from servescope.analysis.aspects.lengths import groups
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.sample import Floats, Ints
from servescope.analysis.seasons import DAY_S

_FEWEST = 50
_EXTREME = 0.95

_JACKKNIFE = "delete-one jackknife over 20 sections of time, Fisher's z"

STATISTICS = {
    "spearman": Statistic(
        "rank correlation of prompt and answer",
        "1",
        "Spearman's, ties at their middle rank",
        _JACKKNIFE,
    ),
    "pearson": Statistic(
        "linear correlation of prompt and answer",
        "1",
        "Pearson's",
        _JACKKNIFE,
    ),
    "kendall": Statistic(
        "Kendall's rank correlation", "1", "tau-b on at most 20,000 pairs, evenly spread"
    ),
    "upper_tail": Statistic(
        "chance that an answer is among the longest 5 % if its prompt is", "share", "count"
    ),
    "serial_output": Statistic(
        "rank correlation of an answer with the one before it",
        "1",
        "Spearman's at lag 1",
        _JACKKNIFE,
    ),
    "output_by_hour": Statistic(
        "share of the variance of log answers that the hour of the day explains",
        "share",
        "correlation ratio (eta squared)",
    ),
}
TABLES = {
    "copulas": TableOf(
        "copulas fitted to the ranks of prompt and answer, best first",
        {
            "family": "name",
            "parameter": "1",
            "tau": "1",
            "lower": "share",
            "upper": "share",
            "aic_above_best": "1",
        },
        "maximum likelihood on at most 20,000 pairs; `lower` and `upper` are the tail dependence it"
        " implies",
        source="Joe, Dependence Modeling with Copulas (2014)",
    ),
    "conditional_output": TableOf(
        "answers given the length of the prompt",
        {
            "input_from": "tokens",
            "input_to": "tokens",
            "calls": "calls",
            "mean": "tokens",
            "p10": "tokens",
            "p50": "tokens",
            "p90": "tokens",
        },
        "order statistics in tenths of the prompts",
    ),
    "copula_density": TableOf(
        "how often both ranks fall into a cell, over what independence would give",
        {"input_rank": "share", "output_rank": "share", "density": "1"},
        "counts in at most 20 by 20 cells",
    ),
    "output_hours": TableOf(
        "answers by the hour of the day they were asked for",
        {"hour": "h", "calls": "calls", "mean": "tokens", "p50": "tokens", "p90": "tokens"},
        "order statistics",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Describe dependence among lengths."""
    if not {"input_tokens", "output_tokens"} <= set(demand.columns):
        findings.leave_out("prompt against answer", "calls have no counts of both")
        return
    for name, group in groups(demand):
        if name == "" and demand.failed is not None and demand.failed.any():
            continue  # a failed call has no answer whose length would mean anything
        both = group.select("input_tokens", "output_tokens").drop_nulls()
        if both.height < _FEWEST:
            findings.leave_out(f"prompt against answer, {name or 'all'}", "under 50 calls")
            continue
        x, y = (both[c].to_numpy().astype(np.int64) for c in both.columns)
        u, v = copulas.mid_ranks(x), copulas.mid_ranks(y)
        findings.say("spearman", copulas.correlation(u, v), of=name, n=len(x))
        linear = copulas.correlation(x.astype(np.float64), y.astype(np.float64))
        findings.say("pearson", linear, of=name, n=len(x))
        if name not in ("", "answered"):
            continue
        if not (np.ptp(x) > 0 and np.ptp(y) > 0):
            findings.leave_out("prompt against answer", "all prompts or all answers are alike")
            return
        _pairs(u, v, x, y, name, findings)
    _by_hour(demand, findings)


def _pairs(u: Floats, v: Floats, x: Ints, y: Ints, name: str, findings: Findings) -> None:
    from scipy import stats

    a, b = copulas.thinned(u, v)
    findings.say("kendall", float(stats.kendalltau(a, b).statistic), of=name, n=len(a))
    beyond = u > _EXTREME
    if beyond.any():
        findings.say(
            "upper_tail", float((v[beyond] > _EXTREME).mean()), of=name, n=int(beyond.sum())
        )
    if np.ptp(v) > 0 and len(v) > 2:
        serial = copulas.correlation(v[:-1], v[1:])
        findings.say("serial_output", serial, of=name, n=len(v) - 1)
    made = copulas.fit(u, v)
    findings.table(
        "copulas",
        pl.DataFrame(
            {
                "family": [c.family for c in made],
                "parameter": [c.parameter for c in made],
                "tau": [c.tau for c in made],
                "lower": [c.lower for c in made],
                "upper": [c.upper for c in made],
                "aic_above_best": [c.aic - made[0].aic for c in made],
            }
        ),
    )
    findings.table("conditional_output", copulas.conditional(x, y))
    cells = int(np.clip(np.sqrt(len(u) / 25), 2, 20))  # with 25 pairs each by chance
    place = np.minimum((u * cells).astype(np.int64), cells - 1) * cells
    place += np.minimum((v * cells).astype(np.int64), cells - 1)
    density = np.bincount(place, minlength=cells * cells) * cells**2 / len(u)
    middle = (np.arange(cells) + 0.5) / cells
    findings.table(
        "copula_density",
        pl.DataFrame(
            {
                "input_rank": np.repeat(middle, cells),
                "output_rank": np.tile(middle, cells),
                "density": density,
            }
        ),
    )


def _by_hour(demand: Demand, findings: Findings) -> None:
    if demand.span_s < DAY_S:
        findings.leave_out("answers against time of day", "the trace is shorter than a day")
        return
    calls = demand.placed.select(hour=demand.hours(demand.arrivals), y="output_tokens")
    calls = calls.filter(pl.col("y") > 0)
    table = (
        calls.group_by("hour")
        .agg(
            calls=pl.len(),
            mean=pl.col("y").mean(),
            p50=pl.col("y").quantile(0.5, "equiprobable"),
            p90=pl.col("y").quantile(0.9, "equiprobable"),
            log_mean=pl.col("y").log().mean(),
        )
        .sort("hour")
    )
    if calls.height < 2 * _FEWEST:
        return
    findings.table("output_hours", table.drop("log_mean"))
    logs = calls.select(variance=pl.col("y").log().var(0), mean=pl.col("y").log().mean()).row(0)
    weights = table["calls"].to_numpy() / calls.height
    between = float((weights * (table["log_mean"].to_numpy() - logs[1]) ** 2).sum())
    if logs[0]:
        findings.say("output_by_hour", between / logs[0], n=calls.height)
