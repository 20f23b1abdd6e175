"""What lengths and pauses are drawn from: distributions by their quantiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, zeta

Reals = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Lengths(Protocol):
    """A distribution of numbers above 0, drawn by putting even numbers into `quantile`."""

    @property
    def mean(self) -> float:
        """Its mean."""
        ...

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        ...

    def quantile(self, share: Reals) -> Reals:
        """Return below which number so large a share lies, of shares in [0, 1)."""
        ...


@dataclass(frozen=True)
class Lognormal:
    """Numbers whose logarithm is normal, with mean `mu` and standard deviation `sigma`."""

    mu: float
    sigma: float

    @classmethod
    def of(cls, mean: float, sd: float) -> Lognormal:
        """Return the lognormal of a mean and a standard deviation."""
        variance = math.log1p((sd / mean) ** 2)
        return cls(math.log(mean) - variance / 2, math.sqrt(variance))

    @property
    def mean(self) -> float:
        """Its mean."""
        return math.exp(self.mu + self.sigma**2 / 2)

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return self.mean * math.sqrt(math.expm1(self.sigma**2))

    def quantile(self, share: Reals) -> Reals:
        """Return below which number so large a share lies."""
        return np.exp(self.mu + self.sigma * ndtri(share))


@dataclass(frozen=True)
class Quantiles:
    """Numbers of which these shares lie below these values, and evenly in the logarithm between.

    `points` are (share, value) pairs in order, from share 0 to share 1. So published percentiles
    come out as they are; the two ends are chosen so that the mean and the deviation do.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        """Its mean."""
        return self._moment(1)

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return math.sqrt(self._moment(2) - self.mean**2)

    def quantile(self, share: Reals) -> Reals:
        """Return below which number so large a share lies."""
        shares, values = np.array(self.points).T
        return np.asarray(np.exp(np.interp(share, shares, np.log(values))))

    def _moment(self, power: int) -> float:
        """Return the mean of a power: between two points the integral of an exponential."""
        return sum(
            (q - p) * (b**power - a**power) / (power * math.log(b / a))
            for (p, a), (q, b) in pairwise(self.points)
        )


@dataclass(frozen=True)
class Zipf:
    """Ranks 1 to `ranks` of probability rank^-`alpha`, times `scale`, rounded up, at most `most`.

    With `tail`, all ranks beyond the last one count as the last: what is drawn from all whole
    numbers and clipped.
    """

    alpha: float
    ranks: int
    scale: float = 1.0
    most: float = math.inf
    tail: bool = False

    @classmethod
    def of(cls, mean: int, alpha: float, most: int) -> Zipf:
        """Return Llumnix's: ranks below twice the mean, scaled so that their mean is that."""
        plain = cls(alpha, 2 * mean - 1)
        return cls(alpha, plain.ranks, mean / plain.mean, most)

    @property
    def mean(self) -> float:
        """Its mean."""
        return float(self._chances @ self._values)

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return math.sqrt(float(self._chances @ self._values**2) - self.mean**2)

    def quantile(self, share: Reals) -> Reals:
        """Return below which number so large a share lies."""
        place = np.searchsorted(np.cumsum(self._chances), share, side="right")
        return np.asarray(self._values[np.minimum(place, self.ranks - 1)])

    @cached_property
    def _values(self) -> Reals:
        scaled = np.arange(1, self.ranks + 1) * self.scale
        # A hair below, so that what is whole but for rounding is not rounded up.
        return np.asarray(np.minimum(np.ceil(scaled - 1e-9), self.most))

    @cached_property
    def _chances(self) -> Reals:
        chances = np.arange(1, self.ranks + 1, dtype=np.float64) ** -self.alpha
        if self.tail:
            chances[-1] = zeta(self.alpha, self.ranks)
        return np.asarray(chances / chances.sum())


def tokens(lengths: Lengths, share: Reals, most: float = math.inf) -> Counts:
    """Return token counts: what lies at these shares, rounded, at least 1 and at most `most`."""
    return np.clip(np.rint(lengths.quantile(share)), 1, most).astype(np.int64)
