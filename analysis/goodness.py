"""How well a family fits: Kolmogorov-Smirnov, with p-values that know of the fit.

The p-value in a textbook is of a distribution that was fixed before the data. With parameters
fitted to the same data it is far too large (Lilliefors 1967): at a nominal 5 % it rejects nothing.
Here every replicate of the null is drawn from the fit and fitted again (Stute et al. 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servescope.analysis.families import FAMILIES, Family
from servescope.analysis.sample import Floats

REPLICATES = 199
MOST = 5000  # values that a p-value is computed of


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted family: its parameters by name, KS distance, AIC, and p of the parametric bootstrap.

    `values` is how many values the p-value is of; it is None where none was asked for.
    """

    family: str
    parameters: dict[str, float]
    distance: float
    aic: float
    p_value: float | None
    values: int


def distance(ranked: Floats, family: Family, p: Floats, weights: Floats | None = None) -> Floats:
    """Return the KS distance between values (ascending along the last axis) and a fit."""
    model = family.cdf(ranked, p)
    if weights is None:
        upto = np.arange(1, ranked.shape[-1] + 1) / ranked.shape[-1]
        below = upto - 1 / ranked.shape[-1]
    else:
        upto = np.cumsum(weights) / weights.sum()
        below = upto - weights / weights.sum()
    return np.asarray(np.maximum(upto - model, model - below).max(axis=-1))


def bootstrap_p(
    x: Floats, family: Family, rng: np.random.Generator, replicates: int = REPLICATES
) -> float:
    """Return the p-value of a fit to values, shape (n,), by refitting draws from it."""
    ranked = np.sort(x)
    p = family.fit(ranked)
    seen = distance(ranked, family, p)
    at_once = max(1, 2_000_000 // len(ranked))
    beyond, left = 0, replicates
    while left:
        now = min(left, at_once)
        drawn = np.sort(family.sample(rng, np.broadcast_to(p, (now, len(p))), len(ranked)), axis=-1)
        drawn = np.maximum(drawn, np.finfo(np.float64).tiny)
        beyond += int((distance(drawn, family, family.fit(drawn)) >= seen).sum())
        left -= now
    return (beyond + 1) / (replicates + 1)


def fits(
    x: Floats,
    names: tuple[str, ...],
    rng: np.random.Generator | None = None,
    weights: Floats | None = None,
) -> list[Fit]:
    """Fit families to values above 0, best first by AIC; with `rng` the best one gets a p-value.

    Of more than MOST values the p-value is of so many, evenly spread over their order.
    """
    order = np.argsort(x)
    ranked = x[order].astype(np.float64)
    weight = None if weights is None else weights[order].astype(np.float64)
    made = []
    with np.errstate(all="ignore"):
        for name in names:
            family = FAMILIES[name]
            p = family.fit(ranked, weight)
            aic = family.aic(ranked, p, weight)
            if not (np.isfinite(p).all() and np.isfinite(aic)):
                continue
            apart = float(distance(ranked, family, p, weight))
            parameters = dict(zip(family.names, p.tolist(), strict=True))
            made.append(Fit(name, parameters, apart, aic, None, 0))
        made.sort(key=lambda fit: fit.aic)
        if not (rng and made and weight is None):
            return made
        part = ranked[:: max(1, -(-len(ranked) // MOST))]
        best = made[0]
        p_value = bootstrap_p(part, FAMILIES[best.family], rng)
    made[0] = Fit(best.family, best.parameters, best.distance, best.aic, p_value, len(part))
    return made
