"""Regressions of counts and failures, by statsmodels; intervals take rows as independent."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from servescope.analysis.intervals import NORMAL_95, Interval
from servescope.analysis.sample import Floats

_MOST_EFFECT = 300.0  # log odds beyond which there is no finite answer


@dataclass(frozen=True, slots=True)
class OverDispersion:
    """How much more counts vary than Poisson ones: variance = mean + `alpha` mean^2.

    `pearson` is Pearson's chi square over its degrees of freedom in the Poisson regression, 1 for
    Poisson counts; `p_value` that of alpha = 0 by likelihood ratio (half a chi square, for 0 is the
    edge).
    """

    alpha: Interval
    pearson: float
    p_value: float


def over_dispersion(counts: Floats, hours: Floats | None) -> OverDispersion | None:
    """Fit counts a window by a Poisson and a negative-binomial regression.

    The mean follows a quadratic trend, and the day's first two harmonics where `hours` of the day
    are given. None where the fit does not end.
    """
    from scipy import stats
    from statsmodels.discrete.discrete_model import NegativeBinomial
    from statsmodels.genmod.families import Poisson
    from statsmodels.genmod.generalized_linear_model import GLM

    at = np.linspace(-1, 1, len(counts))
    parts = [np.ones(len(counts)), at, at**2]
    if hours is not None:
        parts += [f(2 * np.pi * k * hours / 24) for k in (1, 2) for f in (np.sin, np.cos)]
    design = np.stack(parts, axis=-1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            poisson = GLM(counts, design, family=Poisson()).fit()
            start = np.append(poisson.params, 0.1)
            fit = NegativeBinomial(counts, design).fit(start_params=start, disp=0, maxiter=200)
            alpha, error = float(fit.params[-1]), float(fit.bse[-1])
            gain = 2 * (float(fit.llf) - float(poisson.llf))
        except (ValueError, np.linalg.LinAlgError, FloatingPointError):
            return None
    if not (math.isfinite(alpha) and alpha > 0 and math.isfinite(error)):
        return None
    reach = NORMAL_95 * error / alpha
    if reach < 2:  # on the log scale, for alpha is above 0
        interval = Interval(alpha, alpha * math.exp(-reach), alpha * math.exp(reach))
    else:  # it may as well be 0
        interval = Interval(alpha, 0.0, alpha * (1 + reach))
    p = float(stats.chi2.sf(gain, 1)) / 2 if gain > 0 else 1.0
    return OverDispersion(interval, float(poisson.pearson_chi2 / poisson.df_resid), p)


def odds_ratio(x: Floats, trials: Floats, failures: Floats) -> Interval | None:
    """Return the ratio of the odds of a failure at x + 1 to those at x (logistic regression).

    `failures` of `trials` failed at each x. With Wald's interval. None where there are too few of
    either outcome, or where x tells them apart so well that no finite odds do.
    """
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    bad, good = float(failures.sum()), float((trials - failures).sum())
    if bad + good < 50 or min(bad, good) < 5 or not np.ptp(x) > 0:
        return None
    centred = x - float((x * trials).sum()) / float(trials.sum())
    outcomes = np.stack([failures, trials - failures], axis=-1)
    design = np.stack([np.ones(len(x)), centred], axis=-1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            fit = GLM(outcomes, design, family=Binomial()).fit()
            effect, error = float(fit.params[1]), float(fit.bse[1])
        except (ValueError, np.linalg.LinAlgError):
            return None
    reach = NORMAL_95 * error
    if not abs(effect) + reach < _MOST_EFFECT:
        return None
    return Interval(*(math.exp(effect + side) for side in (0.0, -reach, reach)))
