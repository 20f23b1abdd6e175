"""Heavy tails: where a power law begins and how steep it is, and a log-normal body under it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from servescope.analysis.goodness import ks, ks_of_whole_numbers
from servescope.analysis.intervals import NORMAL_95, Interval
from servescope.analysis.sample import Floats

_CANDIDATES, _FEWER_CANDIDATES = 100, 30
_RESAMPLES = 100
_FEWEST = 50  # values of a tail


@dataclass(frozen=True, slots=True)
class Tail:
    """A power law from `least` on: the share above x is (least / x)^exponent of the tail's.

    `share` is what the tail holds of all values. `lognormal_z` compares with a log-normal from
    `least` on (Vuong's test): above 1.96 the power law fits better, below -1.96 worse.
    """

    least: float
    exponent: Interval
    share: float
    values: float
    distance: float
    lognormal_z: float


@dataclass(frozen=True, slots=True)
class Spliced:
    """A log-normal below `threshold` and a Pareto of `exponent` above it, with the tail's share."""

    threshold: float
    mu: float
    sigma: float
    exponent: float
    tail_share: float
    distance: float
    aic: float


def power_law(
    values: Floats, weights: Floats, rng: np.random.Generator | None = None
) -> Tail | None:
    """Fit a power law to the tail of distinct values, ascending and above 0, seen `weights` times.

    It begins where its KS distance is least (Clauset, Shalizi and Newman 2009), with 50 values or
    more above; the exponent is Hill's estimate. With `rng` its interval is from resamples of
    independent values that look for the beginning anew; without, it has none. None where there are
    too few values.
    """
    found = _beginning(values, weights, _CANDIDATES)
    if found is None:
        return None
    first, exponent, apart = found
    reach = 0.0
    if rng is not None:
        total = int(weights.sum())
        again = []
        for _ in range(_RESAMPLES):
            drawn = rng.multinomial(total, weights / weights.sum()).astype(np.float64)
            seen = drawn > 0
            other = _beginning(values[seen], drawn[seen], _FEWER_CANDIDATES)
            again += [other[1]] if other else []
        reach = NORMAL_95 * float(np.std(again, ddof=1)) if len(again) > 2 else math.inf
    size = float(weights[first:].sum())
    return Tail(
        float(values[first]),
        Interval(exponent, exponent - reach, exponent + reach),
        size / float(weights.sum()),
        size,
        apart,
        _vuong(np.log(values[first:]), weights[first:], exponent),
    )


def _beginning(values: Floats, weights: Floats, candidates: int) -> tuple[int, float, float] | None:
    """Return where a power law fits best from: the index, the exponent, and the KS distance."""
    logs = np.log(values)
    above = np.cumsum(weights[::-1])[::-1]
    sums = np.cumsum((weights * logs)[::-1])[::-1]
    possible = np.flatnonzero((above >= _FEWEST) & (logs < logs[-1]))
    # a tail of values that are nearly all alike is none
    possible = possible[: max(0, len(values) - 10)]
    if not len(possible):
        return None
    at = np.unique(np.geomspace(1, len(possible), min(candidates, len(possible))).astype(int))
    best = None
    for k in len(possible) - at:
        first = possible[k]
        mean = sums[first] / above[first] - logs[first]
        if mean <= 0:
            continue
        exponent = 1 / mean
        model = -np.expm1(-exponent * (logs[first:] - logs[first]))
        apart = float(ks(model, weights[first:]))
        if best is None or apart < best[2]:
            best = (int(first), float(exponent), apart)
    return best


def _vuong(logs: Floats, weights: Floats, exponent: float) -> float:
    """Return how many standard errors the power law is likelier than a cut log-normal."""
    start, size = logs[0], weights.sum()
    centre = float((weights * logs).sum() / size)
    spread = math.sqrt(float((weights * (logs - centre) ** 2).sum() / size)) or 1e-6

    def density(p: Floats) -> Floats:
        mu, sigma = float(p[0]), math.exp(float(p[1]))
        z = (logs - mu) / sigma
        beyond = special.log_ndtr((mu - start) / sigma)
        return np.asarray(-0.5 * z * z - math.log(sigma) - 0.5 * math.log(2 * math.pi) - beyond)

    def loss(p: Floats) -> float:
        return -float((weights * density(p)).sum())

    found = optimize.minimize(loss, [centre, math.log(spread)], method="Nelder-Mead")
    gain = math.log(exponent) - exponent * (logs - start) - density(found.x)
    mean = float((weights * gain).sum() / size)
    error = math.sqrt(float((weights * (gain - mean) ** 2).sum()) / size / size)
    return mean / error if error > 0 else 0.0


def spliced(values: Floats, weights: Floats, tail: Tail) -> Spliced | None:
    """Fit a log-normal body below the beginning of a tail (cut there), and keep the tail above."""
    inside = values < tail.least
    size, total = float(weights[inside].sum()), float(weights.sum())
    if size < _FEWEST or inside.sum() < 5:
        return None
    logs, weight = np.log(values[inside]), weights[inside]
    end = math.log(tail.least)
    centre = float((weight * logs).sum() / size)
    spread = math.sqrt(float((weight * (logs - centre) ** 2).sum() / size)) or 1e-6

    def loss(p: Floats) -> float:
        mu, sigma = p[0], math.exp(p[1])
        z = (logs - mu) / sigma
        inside_log = special.log_ndtr((end - mu) / sigma)
        return float((weight * (0.5 * z * z + p[1] + inside_log)).sum()) / size

    found = optimize.minimize(loss, [centre, math.log(spread)], method="Nelder-Mead")
    mu, sigma = float(found.x[0]), math.exp(float(found.x[1]))
    share = 1 - size / total
    x = np.log(values)
    with np.errstate(over="ignore"):
        body = (1 - share) * np.exp(
            np.minimum(special.log_ndtr((x - mu) / sigma) - special.log_ndtr((end - mu) / sigma), 0)
        )
        above = 1 - share * np.exp(-tail.exponent.estimate * np.maximum(x - end, 0))
    model = np.where(inside, body, above)
    apart = float(ks(model, weights))
    below = -size * (float(found.fun) + 0.5 * math.log(2 * math.pi)) - float((weight * logs).sum())
    tail_logs, tail_weight = x[~inside], weights[~inside]
    a = tail.exponent.estimate
    over = float((tail_weight * (math.log(a) + a * end - (a + 1) * tail_logs)).sum())
    mixed = size * math.log(1 - share) + (total - size) * math.log(share)
    return Spliced(tail.least, mu, sigma, a, share, apart, 2 * 5 - 2 * (below + over + mixed))


def zipf_values(values: Floats, weights: Floats) -> tuple[float, float, float]:
    """Fit Zipf's law to whole numbers from 1 to the largest: P(x) proportional to x^-exponent.

    `values` are distinct, ascending and above 0, seen `weights` times. Returns the exponent by
    maximum likelihood, the KS distance, and AIC.
    """
    far = np.log(np.arange(1, int(values[-1]) + 1))
    total, weighed = float(weights.sum()), float((weights * np.log(values)).sum())

    def loss(exponent: float) -> float:
        return exponent * weighed + total * float(special.logsumexp(-exponent * far))

    found = optimize.minimize_scalar(loss, bounds=(0.0, 6.0), method="bounded")
    exponent = float(found.x)
    model = np.cumsum(np.exp(-exponent * far - special.logsumexp(-exponent * far)))
    return exponent, ks_of_whole_numbers(model, values, weights), 2 + 2 * float(found.fun)


def zipf(weights: Floats, least: int = 1) -> tuple[float, float] | None:
    """Fit the counts of ranked items, descending, by count proportional to rank^-exponent.

    Returns the exponent by maximum likelihood over the ranks there are, and its standard error.
    None for fewer than three items.
    """
    counts = np.sort(weights[weights >= least])[::-1].astype(np.float64)
    if len(counts) < 3:
        return None
    logs = np.log(np.arange(1, len(counts) + 1))
    total, weighed = counts.sum(), float((counts * logs).sum())

    def loss(exponent: float) -> float:
        return float(exponent * weighed) + float(total) * float(special.logsumexp(-exponent * logs))

    found = optimize.minimize_scalar(loss, bounds=(0.0, 6.0), method="bounded")
    exponent = float(found.x)
    p = np.exp(-exponent * logs - special.logsumexp(-exponent * logs))
    spread = float((p * logs**2).sum() - (p * logs).sum() ** 2)
    return exponent, 1 / math.sqrt(total * spread) if spread > 0 else math.inf
