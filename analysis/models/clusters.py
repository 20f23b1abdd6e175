"""Arrivals in clusters: Poisson parents, each with a number of calls soon after it."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from scipy import optimize

from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.stretches import WINDOW_S, Stretches, check_enough
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError

MOST_IN_CLUSTER = 1000.0  # calls on average


class Clusters(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="clusters"
):
    """A Neyman-Scott process: clusters begin as a Poisson process and have `size` calls on average.

    The number is geometric from 1 on; each call comes an exponential time after the begin, of mean
    `spread_s`. Another rate changes how many clusters there are, and leaves size and spread.
    """

    size: float
    spread_s: float

    def __post_init__(self) -> None:
        if not (1 <= self.size < math.inf and 0 < self.spread_s < math.inf):
            raise InputError(
                "Clusters have a size below 1 or no spread.",
                "Give a mean size of 1 or more and a spread_s above 0.",
            )

    @classmethod
    def fit(cls, arrivals: Floats, span_s: float, window_s: float = WINDOW_S) -> Clusters:
        """Fit size and spread by maximum likelihood at the rates of windows.

        At most 6,144 arrivals are looked at, evenly spread; no cluster is spread over more than a
        window on average. Raises InputError of too few.
        """
        check_enough(arrivals, span_s)
        cut = Stretches.of(arrivals, span_s, window_s, mean=32, most=6144)
        mean_s = 1 / float(cut.rate_rps.mean())

        def values(point: Floats) -> tuple[float, float]:
            size = 1 + math.exp(min(max(point[0], -7.0), math.log(MOST_IN_CLUSTER)))
            return size, min(math.exp(min(max(point[1], -12.0), 12.0)) * mean_s, window_s)

        def cost(point: Floats) -> float:
            return -float(_log_scores(cut, *values(point)).sum())

        grid = [
            np.array([math.log(more), math.log(spread)])
            for more in (0.5, 5.0)
            for spread in (0.03, 0.3, 3.0, 30.0)
        ]
        found = optimize.minimize(
            cost,
            min(grid, key=cost),
            method="Nelder-Mead",
            options={"xatol": 1e-2, "fatol": 0.05, "maxfev": 40},
        )
        size, spread_s = values(found.x)
        return cls(size=rounded(size), spread_s=rounded(spread_s))

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return 2

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Draw the times of a window, ascending in [0, width_s).

        The calls of clusters that began before it are drawn from their exact law: how many are
        still to come is negative binomial, and none of them knows how long it has waited.
        """
        begun_rps = rate_rps / self.size
        waiting = 0
        if rate_rps and self.size > 1:
            ahead = begun_rps * self.spread_s / (1 - 1 / self.size)
            waiting = int(rng.negative_binomial(ahead, 1 / self.size))
        begins = rng.random(rng.poisson(begun_rps * width_s)) * width_s
        begins = np.repeat(begins, rng.geometric(1 / self.size, len(begins)))
        begins = np.concatenate([np.zeros(waiting), begins])
        times = np.sort(begins + rng.standard_exponential(len(begins)) * self.spread_s)
        return times[: np.searchsorted(times, width_s)]

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s).

        Exact up to one step: before every arrival the number of calls that are still to come is
        taken to be negative binomial, with the mean and variance that it has.
        """
        if not rate_rps:
            return -math.inf if len(arrivals) else 0.0
        cut = Stretches.whole(arrivals, span_s, rate_rps)
        return float(_log_scores(cut, self.size, self.spread_s)[0])

    def summary(self) -> str:
        """Say what it is."""
        return (
            f"Calls come in clusters of {self.size:.3g} on average, spread over "
            f"{self.spread_s:.3g} s on average (Neyman-Scott)."
        )


def _log_scores(cut: Stretches, size: float, spread_s: float) -> Floats:
    """Return the log-likelihood of each stretch.

    Let M calls be still to come, and G(z) be the mean of z^M where nothing contradicts what was
    seen. A silence t turns G(z) into G(z exp(-t/s)), times what clusters begun meanwhile add; an
    arrival into G'(z) / s. With geometric sizes G stays (1 - q z)^-c times an excess, and no
    silence changes the first factor. The excess is that of a negative binomial number (`weight`,
    and `odds` the mean per unit of it; exact at the begin of a window) and of a geometric one that
    the last arrival added: of mean `new` if it was the first of its cluster, else of mean `old`.
    Before the next arrival both become one negative binomial number of the same mean and variance.
    """
    begun = cut.rate_rps / size * spread_s  # clusters in a spread, which is the unit of time here
    kept = np.exp(-np.diff(cut.at, prepend=0.0, append=cut.width_s) / spread_s)
    inside = np.arange(cut.at.shape[1]) < cut.count[:, None]
    total = -cut.rate_rps / size * cut.width_s - cut.count * math.log(spread_s)
    weight, odds = begun.copy(), np.full(len(begun), size - 1.0)
    share, new, old = (np.zeros(len(begun)) for _ in range(3))
    for keep, here in zip(
        kept.T, np.vstack([inside.T, np.zeros(len(begun), np.bool_)]), strict=True
    ):
        gone = 1 - keep
        first, other = share / (1 + new * gone), (1 - share) / (1 + old * gone)
        total += np.log(first + other) - weight * np.log1p(odds * gone)
        share = first / (first + other)
        new, old, odds = (mean * keep / (1 + mean * gone) for mean in (new, old, odds))
        mean = weight * odds + share * new + (1 - share) * old
        beyond = weight * odds**2 + share * new**2 + (1 - share) * old**2
        beyond += share * (1 - share) * (new - old) ** 2
        odds = beyond / np.maximum(mean, 1e-300)
        weight = mean / np.maximum(odds, 1e-300)
        due = begun + mean
        total += np.where(here, np.log(due), 0.0)
        share = begun / due
        new, old = np.where(here, size - 1.0, 0.0), np.where(here, odds, 0.0)
    return np.asarray(total)
