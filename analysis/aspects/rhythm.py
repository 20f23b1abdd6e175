"""Rhythm: how long arrivals remember, their cycles over day and week, where their rate changes."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis import memory, seasons
from servescope.analysis.copulas import correlation
from servescope.analysis.counts import Counts, round_width, width_for
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.intervals import of_sums
from servescope.analysis.sample import Floats

_SEED = 7
_SERIES = 2**14
_LAGS = 50
_FEWEST = 60  # windows whose neighbours are compared
_SEGMENTS = 400  # windows in which changes of the rate are looked for

_JACKKNIFE = "delete-one jackknife over 20 sections of time, Fisher's z"

STATISTICS = {
    "hurst": Statistic(
        "Hurst exponent of counts without trend; 0.5 is no long memory, near 1 a long one",
        "1",
        "local Whittle, D4 wavelet and aggregated variance; bias and spread from fractional noise",
        "1.96 standard deviations of the estimate of 100 draws of fractional Gaussian noise",
        "Robinson, Ann. Stat. 23 (1995); Abry and Veitch, IEEE Trans. IT 44 (1998)",
    ),
    "hurst_shuffled_p": Statistic(
        "how often the same counts in random order have as large an exponent",
        "1",
        "local Whittle on 199 shuffles of the counts without trend",
    ),
    "count_r1": Statistic(
        "correlation of the counts of neighbouring windows, without trend",
        "1",
        "linear correlation with the next",
        _JACKKNIFE,
    ),
    "gap_r1": Statistic(
        "correlation of neighbouring de-ticked gaps",
        "1",
        "linear correlation with the next",
        _JACKKNIFE,
    ),
    "peak_to_trough": Statistic(
        "busiest hour of the day over the quietest",
        "1",
        "greatest mean rate of an hour of the day over the least, over whole days",
        "t interval of the delete-one jackknife over days, on the log scale",
    ),
    "busiest_hour": Statistic(
        "hour of the day, or from the source's zero, with most calls", "h", "greatest mean rate"
    ),
    "quietest_hour": Statistic(
        "hour of the day, or from the source's zero, with fewest calls", "h", "least mean rate"
    ),
    "season_strength": Statistic(
        "how much of the hourly rate, once its trend is gone, the season explains",
        "share",
        "1 - Var(rest) / Var(season + rest), STL or MSTL",
        source="Wang, Smith and Hyndman, Data Min. Knowl. Disc. 13 (2006)",
    ),
    "changes": Statistic(
        "lasting changes of the rate that are found at four times the penalty too",
        "changes",
        "PELT on roots of counts in up to 400 windows, penalty 2 s^2 log n",
        source="Killick et al., JASA 107 (2012)",
    ),
}
TABLES = {
    "count_autocorrelation": TableOf(
        "correlation of counts so many windows apart, without trend",
        {"lag_s": "s", "lag": "windows", "r": "1", "low": "1", "high": "1"},
        "autocorrelation",
        "Bartlett's 95 % interval, of a series of no memory beyond the lags before",
    ),
    "gap_autocorrelation": TableOf(
        "correlation of de-ticked gaps so many apart",
        {"lag": "gaps", "r": "1", "low": "1", "high": "1"},
        "autocorrelation",
        "Bartlett's 95 % interval, of a series of no memory beyond the lags before",
    ),
    "cycles": TableOf(
        "cycles that stand out of their surroundings",
        {
            "period_s": "s",
            "cycles": "cycles",
            "share": "share of the variance",
            "times_surroundings": "1",
            "p_value": "1",
        },
        "periodogram of counts without trend, over the median of its neighbours",
        "p of the largest of all exponential ordinates",
        "Fisher, Proc. R. Soc. A 125 (1929), with a background that is not flat",
    ),
    "hours": TableOf(
        "rate by hour of the day, on the source's clock",
        {"hour": "h", "rate_rps": "calls/s", "low": "calls/s", "high": "calls/s"},
        "mean over whole days",
        "t interval over days, from three on",
    ),
    "components": TableOf(
        "hourly calls as trend, day, week and rest",
        {
            "hour": "h",
            "observed": "calls",
            "trend": "calls",
            "day": "calls",
            "week": "calls",
            "rest": "calls",
        },
        "robust STL (a day), MSTL (a day and a week) of statsmodels",
        source="Cleveland et al., J. Off. Stat. 6 (1990); Bandara et al. (2021)",
    ),
    "rate_changes": TableOf(
        "lasting changes of the rate",
        {"t_s": "s", "before_rps": "calls/s", "after_rps": "calls/s", "stable": "yes or no"},
        "PELT on roots of counts",
        "`stable`: found at four times the penalty too",
        "Killick et al., JASA 107 (2012)",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Describe memory, cycles and changes."""
    at = demand.arrivals
    if len(at) < 100 or demand.span_s <= 0:
        findings.leave_out("memory and cycles", f"{len(at)} calls on one clock are too few")
        return
    _memory(demand, findings)
    _day(demand, findings)
    _changes(demand, findings)


def _memory(demand: Demand, findings: Findings) -> None:
    width = width_for(demand.span_s, demand.finest_s, _SERIES)
    series = Counts.of(demand.arrivals, width).dense()
    flat = memory.detrended(series, width)
    rng = np.random.default_rng(_SEED)
    lags = memory.autocorrelation(flat, min(_LAGS, max(1, len(flat) // 10)))
    findings.table(
        "count_autocorrelation",
        lags.select(pl.col("lag").alias("lag_s") * width, "lag", "r", "low", "high"),
    )
    if len(flat) >= _FEWEST:
        r = correlation(flat[:-1], flat[1:])
        findings.say("count_r1", r, of=f"{width:g} s", n=len(series))
    found = memory.hurst(series, rng, width)
    for each in found:
        findings.say("hurst", each.h, of=each.estimator, n=len(series))
    if found:
        p = memory.shuffled_p(series, rng, width)
        findings.say("hurst_shuffled_p", p, of=f"{width:g} s")
    else:
        findings.leave_out("Hurst exponent", f"{len(series)} windows of {width:g} s are too few")
    findings.table("cycles", seasons.periodogram(flat, width))
    if demand.audit.too_coarse_for_gaps:
        findings.leave_out("autocorrelation of gaps", "the mean gap is below twice the tick")
        return
    gaps = np.diff(demand.deticked[0])
    lags = memory.autocorrelation(gaps, min(20, max(1, len(gaps) // 10)))
    findings.table("gap_autocorrelation", lags)
    findings.say("gap_r1", correlation(gaps[:-1], gaps[1:]), n=len(gaps))


def _day(demand: Demand, findings: Findings) -> None:
    if demand.span_s < 2 * seasons.DAY_S:
        findings.leave_out("time of day and seasons", "the trace is shorter than two days")
        return
    at = demand.arrivals
    zero = (demand.about.t0_ns or 0) / 1e9
    first = np.ceil((zero + at[0]) / seasons.DAY_S) * seasons.DAY_S - zero
    hourly = Counts.of(at, seasons.HOUR_S, float(first)).dense()
    days = len(hourly) // 24
    if days < 1:
        findings.leave_out("time of day", "the trace holds no whole day")
        return
    by_hour = hourly[: days * 24].reshape(days, 24)
    _hours(by_hour, findings)
    if days < 2:
        findings.leave_out("seasonal decomposition", "the trace holds no two whole days")
    elif not findings.lacks("statsmodels", "seasonal decomposition"):
        most = 24 * 7 * 60  # hours: sixty weeks
        table, strengths = seasons.decomposed(hourly[:most])
        findings.table("components", table)
        for name, strength in strengths.items():
            findings.say("season_strength", strength, of=name, n=min(len(hourly), most))


def _hours(by_hour: Floats, findings: Findings) -> None:
    days = len(by_hour)
    mean = by_hour.mean(axis=0)
    reach = np.full(24, np.nan)
    if days >= 3:
        from scipy import stats

        error = by_hour.std(axis=0, ddof=1) / np.sqrt(days)
        reach = float(stats.t.ppf(0.975, days - 1)) * error
    findings.table(
        "hours",
        pl.DataFrame(
            {
                "hour": np.arange(24),
                "rate_rps": mean / 3600,
                "low": np.maximum(mean - reach, 0) / 3600,
                "high": (mean + reach) / 3600,
            }
        ).with_columns(pl.col("low", "high").fill_nan(None)),
    )
    findings.say("busiest_hour", int(mean.argmax()), n=days)
    findings.say("quietest_hour", int(mean.argmin()), n=days)
    if mean.min() > 0:
        interval = of_sums(by_hour, lambda s: s.max(axis=-1) / s.min(axis=-1), "log")
        whole = float(mean.max() / mean.min())
        findings.say("peak_to_trough", interval if days >= 3 else whole, n=days)


def _changes(demand: Demand, findings: Findings) -> None:
    if findings.lacks("ruptures", "changes of the rate"):
        return
    width = round_width(demand.span_s, _SEGMENTS, demand.finest_s)
    counts = Counts.of(demand.arrivals, width)
    found = seasons.change_points(counts.dense())
    findings.say("changes", int(found["stable"].sum()), of=f"{width:g} s", n=counts.windows)
    findings.table(
        "rate_changes",
        found.select(
            (counts.start_s + pl.col("window") * width).alias("t_s"),
            (pl.col("before") / width).alias("before_rps"),
            (pl.col("after") / width).alias("after_rps"),
            "stable",
        ),
    )
