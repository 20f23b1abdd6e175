"""How well a family fits: Kolmogorov-Smirnov, with p-values that know of the fit.

The p-value in a textbook is of a distribution that was fixed before the data. With parameters
fitted to the same data it is far too large (Lilliefors 1967): at a nominal 5 % it rejects nothing.
Here every replicate of the null is drawn from the fit and fitted again (Stute et al. 1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from servescope.analysis.families import FAMILIES, Family
from servescope.analysis.sample import Floats

REPLICATES = 199
MOST = 5000  # values that a p-value is computed of


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted family: its parameters by name, KS distance, AIC, and p of the parametric bootstrap.

    The p-value is None where none was asked for.
    """

    family: str
    parameters: dict[str, float]
    distance: float
    aic: float
    p_value: float | None


def ks(model: Floats, weights: Floats | None = None) -> Floats:
    """Return the KS distance of values to the share that a model has at or below each of them.

    `model` has shape (..., n), for values ascending along the last axis that were seen `weights`
    times, or once.
    """
    count = model.shape[-1]
    weight = np.full(count, 1.0) if weights is None else weights
    upto = np.cumsum(weight) / weight.sum()
    return np.asarray(np.maximum(upto - model, model - (upto - weight / weight.sum())).max(axis=-1))


def ks_of_whole_numbers(model: Floats, values: Floats, weights: Floats) -> float:
    """Return the KS distance of whole numbers to a law of them: its shares up to 1, 2, 3, ..."""
    at = np.minimum(values.astype(np.int64), len(model)) - 1
    upto = np.cumsum(weights) / weights.sum()
    before = np.where(at > 0, model[at - 1], 0.0)
    below = upto - weights / weights.sum()
    return float(np.maximum(np.abs(model[at] - upto), np.abs(before - below)).max())


def distance(ranked: Floats, family: Family, p: Floats, weights: Floats | None = None) -> Floats:
    """Return the KS distance between values (ascending along the last axis) and a fit."""
    return ks(family.cdf(ranked, p), weights)


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
            made.append(Fit(name, parameters, apart, aic, None))
        made.sort(key=lambda fit: fit.aic)
        if not (rng and made and weight is None):
            return made
        part = ranked[:: max(1, -(-len(ranked) // MOST))]
        best = made[0]
        p_value = bootstrap_p(part, FAMILIES[best.family], rng)
    made[0] = replace(best, p_value=p_value)
    return made
