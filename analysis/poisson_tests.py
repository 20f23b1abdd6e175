"""Whether arrivals are Poisson at a time scale, whatever their rate does at longer ones."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.counts import Counts
from servescope.analysis.sample import Floats, Ints

_FEWEST = 20  # windows of two arrivals or more
_MOST_CORRELATED = 0.999


def dyadic(arrivals: Floats, finest_s: float) -> pl.DataFrame:
    """Test at every octave of `finest_s` how the arrivals of a window split between its halves.

    Given its N arrivals, a Poisson process puts Binomial(N, 1/2) into the first half, whatever the
    rate is at longer scales. `dispersion` is the mean of (2 K - N)^2 / N, 1 for Poisson; `z` how
    many standard errors it is above, with the exact variance 2 - 2 / N of a window. `correlation`
    is that of a beta-binomial split fitted by likelihood, `lr` twice the gain in log-likelihood and
    `p_value` that of no gain (half a chi square of 1 degree, for 0 is the edge).

    Columns: scale_s (of a half), windows, dispersion, z, correlation, lr, p_value.
    """
    from scipy import stats

    rows = []
    for counts in Counts.of(arrivals, finest_s).octaves(2 * _FEWEST):
        whole = counts.doubled()
        upto = int(np.searchsorted(counts.place, 2 * whole.windows))
        left = counts.place[:upto] % 2 == 0
        first = np.zeros(len(whole.place), np.int64)
        first[np.searchsorted(whole.place, counts.place[:upto][left] // 2)] = counts.number[:upto][
            left
        ]
        several = whole.number >= 2
        n, k = whole.number[several].astype(np.int64), first[several]
        if len(n) < _FEWEST:
            continue
        chi = (2.0 * k - n) ** 2 / n
        z = float((chi - 1).sum() / np.sqrt((2 - 2 / n).sum()))
        correlation, lr = _beta_binomial(n, k)
        p = float(stats.chi2.sf(lr, 1)) / 2 if lr > 0 else 1.0
        rows.append((counts.width_s, len(n), float(chi.mean()), z, correlation, lr, p))
    names = ("scale_s", "windows", "dispersion", "z", "correlation", "lr", "p_value")
    types = {name: pl.Int64 if name == "windows" else pl.Float64 for name in names}
    return pl.DataFrame(rows, schema=types, orient="row")


def _beta_binomial(n: Ints, k: Ints) -> tuple[float, float]:
    """Fit symmetric beta-binomial splits; return their correlation and the likelihood ratio."""
    from scipy import optimize, special

    # a split is as likely as its mirror image
    most = int(n.max()) + 1
    pairs, times = np.unique(n * most + np.minimum(k, n - k), return_counts=True)
    size, part = (x.astype(np.float64) for x in np.divmod(pairs, most))
    binomial = float((times * size).sum()) * np.log(0.5)

    def less(correlation: float) -> float:
        a = (1 / correlation - 1) / 2
        logs = special.betaln(part + a, size - part + a) - special.betaln(a, a)
        return -float((times * logs).sum())

    found = optimize.minimize_scalar(
        lambda x: less(1 / (1 + np.exp(-x))), bounds=(-14, 7), method="bounded"
    )
    correlation = min(float(1 / (1 + np.exp(-found.x))), _MOST_CORRELATED)
    gain = -float(found.fun) - binomial
    return (correlation, 2 * gain) if gain > 0 else (0.0, 0.0)
