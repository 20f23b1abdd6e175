"""Burstiness at every time scale, and tests of the Poisson and renewal processes."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis import dispersion, poisson_tests
from servescope.analysis.aspects.arrivals import within_width
from servescope.analysis.counts import Counts, round_width
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.regression import over_dispersion
from servescope.analysis.rescaling import rescaled
from servescope.analysis.seasons import DAY_S, HOUR_S

LEAST_S = 0.1
_SEED = 7
_FEWEST = 100
_REGRESSED = 2000  # windows of a regression
_TESTED = ("exponential", "gamma", "weibull", "lognormal")
_JACKKNIFE = "t interval of the delete-one jackknife over 20 sections of time, on the log scale"

STATISTICS = {
    "bursty_from_s": Statistic(
        "smallest scale from which on, at every larger one, counts are over-dispersed: the interval"
        " of the index of dispersion lies above 1",
        "s",
        "dispersion table",
    ),
    "alpha": Statistic(
        "over-dispersion of counts a window: variance = mean + alpha mean^2",
        "1",
        "negative-binomial regression on a quadratic trend, and on the hour from two days on",
        "Wald interval of independent windows, on the log scale; p of alpha = 0 by likelihood"
        " ratio",
        "Cameron and Trivedi, Regression Analysis of Count Data (2013)",
    ),
    "pearson_dispersion": Statistic(
        "Pearson's chi square over its degrees of freedom in a Poisson regression; 1 is Poisson",
        "1",
        "Poisson regression on the same",
    ),
}
TABLES = {
    "dispersion": TableOf(
        "counts in windows of a scale",
        {
            "scale_s": "s",
            "windows": "windows",
            "mean": "calls",
            "idc": "1",
            "idc_low": "1",
            "idc_high": "1",
            "allan": "1",
            "allan_low": "1",
            "allan_high": "1",
            "peak_to_mean": "1",
            "poisson_peak_to_mean": "1",
        },
        "idc = variance over mean; allan = half the mean squared difference of neighbours over the"
        " mean, free of slow trends; peak_to_mean = greatest count over mean",
        _JACKKNIFE,
        "Fano, Phys. Rev. 72 (1947); Allan, Proc. IEEE 54 (1966)",
    ),
    "interval_dispersion": TableOf(
        "sums of k gaps in a row",
        {"gaps": "gaps", "groups": "sums", "idi": "1", "low": "1", "high": "1"},
        "k Var(S_k) / E(S_k)^2 of the de-ticked gaps; 1 is Poisson",
        _JACKKNIFE,
        "Sriram and Whitt, IEEE JSAC 4 (1986)",
    ),
    "poisson_test": TableOf(
        "how the calls of a window split between its halves, given their number",
        {
            "scale_s": "s",
            "windows": "windows",
            "dispersion": "1",
            "z": "1",
            "correlation": "1",
            "lr": "1",
            "p_value": "1",
        },
        "mean of (2K - N)^2 / N, with its exact variance (z); beta-binomial split by likelihood",
        "likelihood ratio against Binomial(N, 1/2), half a chi square of 1 degree",
        "Brown et al., JASA 100 (2005), for the idea of testing within windows",
    ),
    "renewal_test": TableOf(
        "renewal processes with a constant rate in each window, against the gaps",
        {
            "family": "name",
            "arrivals": "calls",
            "distance": "1",
            "p_value": "1",
            "serial": "1",
            "serial_p": "1",
        },
        "KS distance of time-rescaled gaps, and the rank correlation of neighbours",
        "both p-values by 199 draws from the fit, refitted, rates included",
        "Brown et al., Neural Computation 14 (2002); Stute et al., Metrika 40 (1993)",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Describe burstiness over time scales."""
    at = demand.arrivals
    if len(at) < _FEWEST or demand.span_s <= 0:
        findings.leave_out(
            "burstiness over time scales", f"{len(at)} calls on one clock are too few"
        )
        return
    finest = max(LEAST_S, demand.finest_s)
    table = dispersion.of_counts(at, finest)
    findings.table("dispersion", table)
    if not table.height:
        findings.leave_out("dispersion of counts", f"{demand.span_s:g} s hold no ten windows")
    findings.say("bursty_from_s", bursty_from(table))
    findings.table("poisson_test", poisson_tests.dyadic(at, finest))
    _over_dispersion(demand, findings)
    if demand.audit.too_coarse_for_gaps:
        findings.leave_out(
            "dispersion of intervals and renewal tests",
            f"the mean gap is below {demand.finest_s:g} s, twice the tick",
        )
        return
    findings.table("interval_dispersion", dispersion.of_intervals(demand.deticked))
    width = within_width(demand)
    if width is None:
        findings.leave_out("renewal tests", f"{len(at)} calls are too few")
        return
    drawn = demand.deticked[0]
    if np.median(np.diff(drawn)) < demand.finest_s:
        findings.leave_out(
            "renewal tests", f"most gaps are below {demand.finest_s:g} s, twice the tick"
        )
        return
    rng = np.random.default_rng(_SEED)
    rows = [rescaled(drawn, width, family, rng) for family in _TESTED]
    findings.table(
        "renewal_test",
        pl.DataFrame(
            {name: [getattr(r, name) for r in rows] for name in TABLES["renewal_test"].units}
        ),
    )


def bursty_from(table: pl.DataFrame) -> float | None:
    """Return the scale from which on every interval of the index of dispersion is above 1.

    The widest scales, whose intervals are too wide to say anything, may fail the test if the index
    itself is above 1. None where counts are not over-dispersed.
    """
    start = None
    for scale, index, low in table.select("scale_s", "idc", "idc_low").reverse().iter_rows():
        sure = low is not None and low > 1
        if not (sure or (start is None and index > 1)):
            break
        if sure:
            start = scale
    return start


def _over_dispersion(demand: Demand, findings: Findings) -> None:
    what = "over-dispersion by regression"
    if findings.lacks("statsmodels", what):
        return
    width = round_width(demand.span_s, _REGRESSED, max(1.0, demand.finest_s))
    counts = Counts.of(demand.arrivals, width).dense()
    if len(counts) < 30:
        findings.leave_out(what, "the trace is too short")
        return
    hours = None
    if demand.span_s >= 2 * DAY_S and width <= 3 * HOUR_S:
        hours = demand.hours(demand.arrivals[0] + width * np.arange(len(counts))).astype(np.float64)
    fit = over_dispersion(counts, hours)
    if fit is None:
        findings.leave_out(what, "the likelihood has no maximum")
        return
    of = f"{width:g} s"
    findings.say("alpha", fit.alpha, of=of, n=len(counts), p=fit.p_value)
    findings.say("pearson_dispersion", fit.pearson, of=of, n=len(counts))
