"""Models of how many turns a session has: what sets in after the first is what they differ in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from servescope.analysis.goodness import ks_of_whole_numbers
from servescope.analysis.sample import Floats

_FARTHEST = 200_000  # turns over which the cut-off power law is summed


@dataclass(frozen=True, slots=True)
class TurnFit:
    """A model of turns from 1 on: its parameters by name, AIC and KS distance."""

    family: str
    parameters: dict[str, float]
    aic: float
    distance: float


def fit(turns: Floats, weights: Floats) -> list[TurnFit]:
    """Fit four models to distinct numbers of turns, ascending, seen `weights` times; best first.

    Geometric, negative binomial without its zero, Zipf's, and a power law with an exponential
    cut-off, all from 1 on. Nothing if all sessions are alike.
    """
    if len(turns) < 3:
        return []
    total = float(weights.sum())
    mean = float((turns * weights).sum()) / total
    logs = float((np.log(turns) * weights).sum())
    made: list[tuple[str, dict[str, float], float, Floats]] = []
    far = np.arange(1.0, min(_FARTHEST, 20 * turns[-1] + 1000) + 1)

    p = 1 / mean
    made.append(
        (
            "geometric",
            {"p": p},
            total * (math.log(p) + (mean - 1) * math.log1p(-p)),
            math.log(p) + (far - 1) * math.log1p(-p),
        )
    )

    def negative_binomial(x: Floats, at: Floats) -> Floats:
        r, q = math.exp(x[0]), 1 / (1 + math.exp(-x[1]))
        none = -math.expm1(r * math.log1p(-q))  # chance of one turn or more
        return np.asarray(
            special.gammaln(at + r)
            - special.gammaln(r)
            - special.gammaln(at + 1)
            + r * math.log1p(-q)
            + at * math.log(q)
            - math.log(none)
        )

    best, least = _best(lambda x: -float((weights * negative_binomial(x, turns)).sum()), [0.0, 0.5])
    r, q = math.exp(best[0]), 1 / (1 + math.exp(-best[1]))
    made.append(
        (
            "negative binomial",
            {"r": r, "q": q},
            -least,
            negative_binomial(best, far),
        )
    )

    far_logs = np.log(far)

    def zipf(exponent: float) -> float:
        return exponent * logs + total * float(special.logsumexp(-exponent * far_logs))

    one = optimize.minimize_scalar(zipf, bounds=(0.2, 8.0), method="bounded")
    exponent = float(one.x)
    log_zipf = -exponent * far_logs - special.logsumexp(-exponent * far_logs)
    made.append(("zipf", {"exponent": exponent}, -float(one.fun), log_zipf))

    def cut(x: Floats) -> Floats:
        return np.asarray(-x[0] * far_logs - math.exp(x[1]) * far)

    def loss(x: Floats) -> float:
        return float(
            x[0] * logs + math.exp(x[1]) * mean * total + total * float(special.logsumexp(cut(x)))
        )

    best, least = _best(loss, [exponent, -math.log(10 * mean)])
    log_cut = cut(best)
    made.append(
        (
            "power law with cut-off",
            {"exponent": float(best[0]), "rate": math.exp(best[1])},
            -least,
            log_cut - special.logsumexp(log_cut),
        )
    )
    fits = [
        TurnFit(
            family,
            parameters,
            2 * len(parameters) - 2 * likelihood,
            ks_of_whole_numbers(np.cumsum(np.exp(log_p)), turns, weights),
        )
        for family, parameters, likelihood, log_p in made
    ]
    return sorted(fits, key=lambda each: each.aic)


def _best(loss: Callable[[Floats], float], start: list[float]) -> tuple[Floats, float]:
    """Return where a loss is least, and the loss there."""
    with np.errstate(all="ignore"):
        found = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 800})
    return np.asarray(found.x), float(found.fun)
