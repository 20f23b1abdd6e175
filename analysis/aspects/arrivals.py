"""Arrivals: how many there are over time, and the gaps between them, window by window."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

from servescope.analysis import dispersion, goodness
from servescope.analysis.counts import Counts, round_width
from servescope.analysis.demand import Demand
from servescope.analysis.families import GAPS
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.intervals import of_sums
from servescope.analysis.rescaling import rate_free
from servescope.analysis.sample import Floats, Sample, in_sections
from servescope.analysis.silences import silences, silent_s

_SEED = 7
WINDOW_S = 600.0
FEWEST_GAPS = 50  # of a window whose gaps are described
FITTED_WINDOWS = 20
_FITTED_GAPS = 1000
_RATES = 300
_SECTIONS = "t interval of the delete-one jackknife over 20 sections of time"

STATISTICS = {
    "rate_rps": Statistic("calls a second", "calls/s", "calls over the span", _SECTIONS),
    "gap_cv": Statistic(
        "CV of the gaps as stamped; 1 is Poisson, more is burstier",
        "1",
        "standard deviation over mean",
        _SECTIONS,
    ),
    "gap_cv_deticked": Statistic(
        "the same with every call drawn evenly within its tick",
        "1",
        "mean over up to 20 draws",
        _SECTIONS + ", of the first draw",
    ),
    "gap_cv_within": Statistic(
        "the same on a clock that runs with the rate of each window: what is left of burstiness"
        " when the rate's changes are taken out",
        "1",
        "gaps rescaled by the rate in windows of 10 minutes (wider if they hold under 50 calls)",
        _SECTIONS,
        "Brown et al., Neural Computation 14 (2002)",
    ),
    "windows_above_1": Statistic(
        "windows whose gaps have a CV above 1",
        "share",
        "count",
        source="ServeGen (arXiv 2505.09999)",
    ),
    "window_cv_p50": Statistic("median CV of the windows", "1", "median over windows"),
    "silence_s": Statistic(
        "gap that counts as a silence", "s", "50 mean gaps, rounded to 1, 2 or 5"
    ),
    "silences": Statistic("silences", "silences", "count"),
    "silence_share": Statistic("share of the time that silences hold", "share", "sum over span"),
    "best_gap_family": Statistic(
        "windows in which this family fits the gaps best",
        "share",
        "maximum likelihood, least AIC, in up to 20 windows",
    ),
}
TABLES = {
    "rate": TableOf(
        "calls in equal stretches of time",
        {"t_s": "s", "calls": "calls", "rate_rps": "calls/s", "low": "calls/s", "high": "calls/s"},
        "count over width",
        "quasi-Poisson 95 % band: chi-square bounds of a count whose variance is the Allan factor"
        " at this width times its mean",
    ),
    "gap_windows": TableOf(
        "gaps in windows of 10 minutes or more, with at least 50 of them",
        {
            "t_s": "s",
            "gaps": "gaps",
            "rate_rps": "calls/s",
            "cv": "1",
            "alpha": "1",
            "beta_s": "s",
        },
        "moments of the de-ticked gaps: alpha = 1 / CV^2, beta = mean / alpha",
        source="BurstGPT (KDD 2025), Gamma(alpha, beta) per interval",
    ),
    "gap_fits": TableOf(
        "families fitted to the gaps of up to 20 windows, evenly spread",
        {
            "t_s": "s",
            "gaps": "gaps",
            "family": "name",
            "first": "1 or s",
            "second": "1 or s",
            "distance": "1",
            "aic_above_best": "1",
            "p_value": "1",
        },
        "maximum likelihood on at most 1,000 gaps in a row; parameters in the order of the family",
        "p of the KS distance by 199 refitted draws, for the best family only",
        "Stute et al., Metrika 40 (1993)",
    ),
    "silences": TableOf(
        "gaps longer than a length",
        {
            "longer_than_s": "s",
            "silences": "gaps",
            "total_s": "s",
            "share": "share",
            "poisson": "gaps",
        },
        "count; `poisson` is what a Poisson process of the same rate would have",
    ),
    "gap_distribution": TableOf(
        "quantiles of the gaps as stamped and de-ticked; null below twice the tick",
        {"share_below": "share", "gap_s": "s", "deticked_s": "s"},
        "order statistics",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Describe the rate and the gaps."""
    at = demand.arrivals
    if demand.span_s <= 0:
        why = "all calls arrive at one moment" if len(at) > 1 else "no two arrivals on one clock"
        findings.leave_out("rate and gaps", why)
        return
    _rate(demand, findings)
    _silences(demand, findings)
    if len(at) < 10:
        findings.leave_out("gaps", f"{len(at)} calls are too few")
        return
    gaps = np.diff(at)
    findings.say("gap_cv", dispersion.cv_of(gaps), n=len(gaps))
    if demand.audit.tick:
        cvs = [cv for draw in demand.deticked if (cv := dispersion.cv_of(np.diff(draw)))]
        findings.say("gap_cv_deticked", dispersion.averaged(cvs) if cvs else None, n=len(gaps))
    drawn = demand.deticked[0]
    findings.keep("gap_s", gap_sample(drawn))
    _distribution(gaps, drawn, demand.finest_s, findings)
    width = within_width(demand)
    if width is None:
        findings.leave_out("gaps window by window", f"{len(at)} calls are too few")
        return
    rescaled = np.diff(rate_free(drawn, width))
    findings.say("gap_cv_within", dispersion.cv_of(rescaled), n=len(rescaled), of=f"{width:g} s")
    windows = gap_windows(drawn, max(width, WINDOW_S))
    findings.table("gap_windows", windows)
    if windows.height:
        findings.say(
            "windows_above_1", int((windows["cv"] > 1).sum()) / windows.height, n=windows.height
        )
        findings.say("window_cv_p50", float(np.median(windows["cv"])), n=windows.height)
    _fits(drawn, max(width, WINDOW_S), windows, demand.finest_s, findings)


def within_width(demand: Demand) -> float | None:
    """Return the width of windows in which a rate is taken as constant; None for too few calls.

    10 minutes, or what holds 50 calls on average; a fifth of the span at most.
    """
    calls = len(demand.arrivals)
    if calls < 5 * FEWEST_GAPS:
        return None
    width = max(WINDOW_S, FEWEST_GAPS * demand.span_s / calls, 2 * demand.finest_s)
    return min(width, demand.span_s / 5)


def gap_sample(at: Floats, sections: int = 10) -> Sample:
    """Return the gaps by sections of time, brought together to half a percent."""
    gaps = np.diff(at)
    section = in_sections(len(gaps), sections)
    place = np.rint(np.log(np.maximum(gaps, 1e-9)) * 200).astype(np.int64)
    keys, weights = np.unique(place * sections + section, return_counts=True)
    return Sample.of(np.exp(keys // sections / 200), keys % sections, sections, weights)


def _rate(demand: Demand, findings: Findings) -> None:
    at = demand.arrivals
    edges = np.linspace(at[0], at[-1], 21)
    counts = np.histogram(at, edges)[0].astype(np.float64)
    sums = np.stack([np.diff(edges), counts], axis=-1)
    rate = (len(at) - 1) / demand.span_s
    interval = of_sums(sums, lambda s: s[..., 1] / s[..., 0], "log") if len(at) >= 40 else None
    findings.say("rate_rps", interval.moved_to(rate) if interval else rate, n=len(at))
    findings.table("rate", rate_table(at, round_width(demand.span_s, _RATES, demand.finest_s)))


def rate_table(at: Floats, width_s: float) -> pl.DataFrame:
    """Return the table `rate` in stretches of `width_s`; the last one, if cut, is left out."""
    counts = Counts.of(at, width_s)
    series = counts.dense()
    steps = np.diff(series)
    mean = float(series.mean()) if len(series) else 0.0
    over = max(1.0, float((steps**2).mean()) / 2 / mean) if len(steps) and mean else 1.0
    low = np.where(series > 0, stats.chi2.ppf(0.025, 2 * series / over) * over / 2, 0.0)
    high = stats.chi2.ppf(0.975, 2 * (series / over + 1)) * over / 2
    return pl.DataFrame(
        {
            "t_s": counts.start_s + width_s * np.arange(len(series)),
            "calls": series.astype(np.int64),
            "rate_rps": series / width_s,
            "low": np.nan_to_num(low) / width_s,
            "high": high / width_s,
        }
    )


def gap_windows(at: Floats, width_s: float, fewest: int = FEWEST_GAPS) -> pl.DataFrame:
    """Return the table `gap_windows`: gaps belong to the window in which they begin."""
    gaps = np.diff(at)
    place = np.floor((at[:-1] - at[0]) / width_s).astype(np.int64)
    number = np.bincount(place)
    total = np.bincount(place, gaps)
    square = np.bincount(place, gaps * gaps)
    held = number >= fewest
    n, first, second = number[held], total[held], square[held]
    mean = first / n
    variance = np.maximum(second / n - mean**2, 0) * n / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cv = np.sqrt(variance) / mean
        alpha = mean**2 / variance
        beta = variance / mean
    return pl.DataFrame(
        {
            "t_s": at[0] + width_s * np.flatnonzero(held),
            "gaps": n,
            "rate_rps": 1 / mean,
            "cv": cv,
            "alpha": alpha,
            "beta_s": beta,
        }
    ).filter(pl.col("alpha").is_finite())


def _silences(demand: Demand, findings: Findings) -> None:
    table = silences(demand.arrivals, demand.finest_s)
    findings.table("silences", table)
    silent = silent_s(demand.arrivals)
    row = table.filter(pl.col("longer_than_s") == silent)
    if row.height:
        findings.say("silence_s", silent)
        findings.say("silences", int(row["silences"][0]), of=f"{silent:g} s")
        findings.say("silence_share", float(row["share"][0]), of=f"{silent:g} s")


def _distribution(gaps: Floats, drawn: Floats, finest_s: float, findings: Findings) -> None:
    shares = np.unique(
        np.concatenate([np.linspace(0.01, 0.99, 50), 1 - np.geomspace(1e-4, 0.01, 9)])
    )
    shares = shares[shares <= 1 - 1 / len(gaps)]
    believed = [pl.when(pl.col(c) >= finest_s).then(c) for c in ("gap_s", "deticked_s")]
    findings.table(
        "gap_distribution",
        pl.DataFrame(
            {
                "share_below": shares,
                "gap_s": np.quantile(gaps, shares, method="inverted_cdf"),
                "deticked_s": np.quantile(np.diff(drawn), shares, method="inverted_cdf"),
            }
        ).with_columns(believed),
    )


def _fits(
    at: Floats, width_s: float, windows: pl.DataFrame, finest_s: float, findings: Findings
) -> None:
    """Fit families window by window, where most gaps are long enough for the clock."""
    rng = np.random.default_rng(_SEED)
    starts = windows["t_s"].to_numpy()
    if len(starts) > FITTED_WINDOWS:
        starts = starts[np.linspace(0, len(starts) - 1, FITTED_WINDOWS).astype(np.int64)]
    rows, best, coarse = [], [], 0
    for start in starts:
        first, end = np.searchsorted(at, (start, start + width_s))
        gaps = np.diff(at[first : min(end, first + _FITTED_GAPS) + 1])
        gaps = gaps[gaps > 0]
        if len(gaps) and np.median(gaps) < finest_s:
            coarse += 1
            continue
        made = goodness.fits(gaps, GAPS, rng) if len(gaps) >= FEWEST_GAPS else []
        for fit in made:
            values = list(fit.parameters.values())
            rows.append(
                {
                    "t_s": float(start),
                    "gaps": len(gaps),
                    "family": fit.family,
                    "first": values[0],
                    "second": values[1] if len(values) > 1 else None,
                    "distance": fit.distance,
                    "aic_above_best": fit.aic - made[0].aic,
                    "p_value": fit.p_value,
                }
            )
        best += [made[0].family] if made else []
    if coarse:
        findings.leave_out(
            f"families of gaps in {coarse} of {len(starts)} windows",
            f"most gaps are below {finest_s:g} s, twice the tick: their shape is the draw's",
        )
    if rows:
        kinds = {"gaps": pl.Int64, "family": pl.String}
        schema = {name: kinds.get(name, pl.Float64) for name in TABLES["gap_fits"].units}
        findings.table("gap_fits", pl.DataFrame(rows, schema=schema))
        for family in sorted(set(best), key=best.count, reverse=True):
            findings.say("best_gap_family", best.count(family) / len(best), of=family, n=len(best))
