"""Mixtures of log-normals: what bimodal answers and think times are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from servescope.analysis.goodness import ks
from servescope.analysis.sample import Floats, sums_in

MOST_PARTS = 3
_ROUNDS = 300
_SETTLED = 1e-7  # gain of log-likelihood a value
_NARROWEST = 0.05  # standard deviation of a part, in logs: below, it would be an atom
_LEAST_SHARE = 0.01
_BINS = 1000  # to which more distinct values are brought together, about a hundredth of a log apart


@dataclass(frozen=True, slots=True)
class Mixture:
    """Parts of a mixture, ascending by median: shares, means and deviations of the logs.

    `bic` is that of the whole: smaller is better.
    """

    shares: tuple[float, ...]
    mus: tuple[float, ...]
    sigmas: tuple[float, ...]
    bic: float
    distance: float

    @property
    def medians(self) -> tuple[float, ...]:
        """Median of each part."""
        return tuple(math.exp(mu) for mu in self.mus)

    def cdf(self, x: Floats) -> Floats:
        """Return the share at or below x."""
        with np.errstate(divide="ignore"):
            logs = np.log(x)
        parts = zip(self.shares, self.mus, self.sigmas, strict=True)
        return np.asarray(sum(w * special.ndtr((logs - mu) / s) for w, mu, s in parts))


def fit(values: Floats, weights: Floats | None = None, most: int = MOST_PARTS) -> list[Mixture]:
    """Fit mixtures of 1 to `most` parts to values above 0 by EM; the best by BIC comes first.

    `weights` say how often each value was seen. A mixture with a part of less than a hundredth is
    left out. Nothing for fewer than 20 values, or constant ones.
    """
    weight = np.ones(len(values)) if weights is None else weights.astype(np.float64)
    logs = np.log(values)
    count = float(weight.sum())
    if count < 20 or not np.ptp(logs) > 0:
        return []
    if len(logs) > _BINS:
        place = np.round((logs - logs.min()) / max(np.ptp(logs) / _BINS, 1e-9)).astype(np.int64)
        held = sums_in(place, int(place.max()) + 1, weight, weight * logs)
        weight, total = held[held[:, 0] > 0].T
        logs = total / weight
    made = [found for parts in range(1, most + 1) if (found := _em(logs, weight, parts))]
    return sorted(made, key=lambda mixture: mixture.bic)


def _em(logs: Floats, weight: Floats, parts: int) -> Mixture | None:
    count = weight.sum()
    order = np.argsort(logs)
    upto = np.cumsum(weight[order]) / count
    at = np.searchsorted(upto, (np.arange(parts) + 0.5) / parts)
    mu = logs[order][np.minimum(at, len(logs) - 1)]
    centre = (weight * logs).sum() / count
    spread = math.sqrt(float((weight * (logs - centre) ** 2).sum() / count))
    sigma = np.full(parts, max(spread / parts, _NARROWEST))
    share = np.full(parts, 1 / parts)
    before = -np.inf
    for _ in range(_ROUNDS):
        z = (logs[:, None] - mu) / sigma
        log_part = np.log(share) - np.log(sigma) - 0.5 * z * z - 0.5 * math.log(2 * math.pi)
        total = special.logsumexp(log_part, axis=1)
        likelihood = float((weight * total).sum())
        belongs = np.exp(log_part - total[:, None]) * weight[:, None]
        size = np.maximum(belongs.sum(axis=0), 1e-9)
        mu = (belongs * logs[:, None]).sum(axis=0) / size
        off = (belongs * (logs[:, None] - mu) ** 2).sum(axis=0) / size
        sigma = np.maximum(np.sqrt(off), _NARROWEST)
        share = size / count
        if likelihood - before < _SETTLED * count:
            break
        before = likelihood
    if (share < _LEAST_SHARE).any():
        return None
    # the likelihood of the values themselves, not of their logs
    likelihood -= float((weight * logs).sum())
    rank = np.argsort(mu)
    bic = (3 * parts - 1) * math.log(count) - 2 * likelihood
    made = Mixture(
        tuple(share[rank].tolist()), tuple(mu[rank].tolist()), tuple(sigma[rank].tolist()), bic, 0.0
    )
    apart = float(ks(made.cdf(np.exp(logs[order])), weight[order]))
    return replace(made, distance=apart)
