"""How the calls of a stretch of time fall into its two halves: the laws of a cascade's splits."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from servescope.analysis.models.quantiles import Share, rounded
from servescope.analysis.sample import Floats, Ints

SPREADS = (-6.0, 12.0)  # logs of the concentration of shares
_TABLED = 48  # largest count whose splits are drawn from a table
_STEP = 0.1  # between the logits of a mean share for which there are tables
_STEPS = 15  # of them, on each side of 0
# Of lean, spread and growth: where and how wide a prior holds them, and their bounds.
_USUAL = np.array([0.0, 1.0, 0.7])
_PRIOR_SD = np.array([0.3, 30.0, 0.7])
_BOUNDS = np.array([(-2.0, -5.0, -1.0), (2.0, 10.0, 3.0)])


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the count N of a cell is split, between neighbours that hold p and q calls.

    It is beta-binomial: the logit of the mean share of the left half is
    lean * log((p + 1/2) / (q + 1/2)), and the log of the concentration is
    spread + growth * log(N / mean), the mean being that of the scale's cells. Where calls come more
    evenly than by chance, each two of them go one left and one right with the probability `even`,
    and the rest by chance.
    """

    lean: float
    spread: float
    growth: float
    even: Share = 0.0

    def concentration(self, mean: float, users: float, number: Floats) -> Floats:
        """Return the concentration of the share that goes left.

        Of `users` times as many independent clients its variance is as many times less; of fewer
        clients it is at most that of all going one way together.
        """
        log = self.spread + self.growth * np.log(number / mean)
        crowd = users * (np.exp(np.clip(log, *SPREADS)) + 1) - 1
        return np.maximum(crowd, math.exp(SPREADS[0]))

    def share(self, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Floats:
        """Return the mean share that goes left."""
        return np.asarray(special.expit(self.lean * tilt(before, after)))

    def log_pmf(
        self, mean: float, users: float, left: Floats, number: Floats, share: Floats
    ) -> Floats:
        """Return the log-probability of splits."""
        if not self.even:
            spread = self.concentration(mean, users, number)
            return beta_binomial(left, number, share * spread, (1 - share) * spread)
        most = int(number.max(initial=0)) // 2
        if most > _TABLED:  # of so many, the sum of both is as good as normal
            parted, sd = self.evened(number, share)
            middle = parted + (number - 2 * parted) * share
            off = (np.array([0.5, -0.5])[:, None] + left - middle) / sd
            return np.asarray(
                np.log(np.maximum(special.ndtr(off[0]) - special.ndtr(off[1]), 1e-300))
            )
        pairs = np.arange(most + 1).reshape(-1, *[1] * np.broadcast(left, share).ndim)
        apart = stats.binom.logpmf(pairs, number // 2, self.even)
        rest = stats.binom.logpmf(left - pairs, np.maximum(number - 2 * pairs, 0), share)
        return np.asarray(special.logsumexp(apart + rest, axis=0))

    def evened(self, number: Floats, share: Floats) -> tuple[Floats, Floats]:
        """Return how many pairs part on average, and the deviation of the number that goes left."""
        pairs = number // 2 * self.even
        variance = (number - 2 * pairs) * share * (1 - share)
        return pairs, np.sqrt(variance + pairs * (1 - self.even) * (1 - 2 * share) ** 2)


FAIR = Split(lean=0.0, spread=SPREADS[1], growth=0.0)


def tilt(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Floats:
    """Return how much busier the neighbour before is than the one after, as a log ratio."""
    return np.asarray(np.log((before + 0.5) / (after + 0.5)))


def beta_binomial(left: Floats, number: Floats, a: Floats, b: Floats) -> Floats:
    """Return the log-probabilities of beta-binomial counts."""
    law = special.betaln(left + a, number - left + b) - special.betaln(a, b)
    return np.asarray(ways(left, number) + law)


def fair(left: Floats, number: Floats) -> Floats:
    """Return the log-probabilities of the counts of a fair coin."""
    return np.asarray(ways(left, number) - number * np.log(2))


def ways(left: Floats, number: Floats) -> Floats:
    """Return the log of how many ways there are to choose who goes left."""
    return np.asarray(
        special.gammaln(number + 1) - special.gammaln(left + 1) - special.gammaln(number - left + 1)
    )


class Table:
    """Draws the splits of a scale: small counts from tables, large ones by quantiles."""

    def __init__(self, split: Split, mean: float, users: float) -> None:
        self._split, self._mean, self._users = split, mean, users

    @cached_property
    def _laws(self) -> tuple[Floats, Ints]:
        """Return the cumulative laws of all small counts and leans in one row, and where each is.

        Each law begins at a whole number, where the one before ends, so one search serves all.
        """
        steps = _STEPS if self._split.lean else 0
        leans = np.arange(-steps, steps + 1) * _STEP
        sizes = np.arange(3, _TABLED + 2)
        number = np.repeat(sizes - 1, sizes)
        first = np.concatenate(([0], np.cumsum(sizes)))
        left = (np.arange(len(number)) - first[number - 2]).astype(np.float64)
        share = special.expit(leans)[:, None]
        log = self._split.log_pmf(self._mean, self._users, left, number.astype(np.float64), share)
        upto = np.cumsum(np.exp(log), axis=1)
        ends = upto[:, first[1:] - 1]
        begun = np.concatenate((np.zeros((len(leans), 1)), ends[:, :-1]), axis=1)
        laws = np.arange(len(leans) * len(sizes)).reshape(len(leans), -1)
        within = (upto - begun[:, number - 2]) / (ends - begun)[:, number - 2]
        begins = np.arange(len(leans))[:, None] * len(number) + first[:-1]
        return (within + laws[:, number - 2]).ravel(), begins.ravel()

    def left(self, number: Ints, before: Ints, after: Ints, u: Floats) -> Ints:
        """Return how many of each count go left, of even numbers u in (0, 1)."""
        if self._split.lean:
            logit = self._split.lean * tilt(before, after)
        else:
            logit = np.zeros(len(number))
        drawn = (u < special.expit(logit)).astype(np.int64)  # of single calls
        few = np.flatnonzero((number > 1) & (number <= _TABLED))
        if len(few):
            upto, begins = self._laws
            law = number[few] - 2
            if self._split.lean:
                step = np.clip(np.rint(logit[few] / _STEP), -_STEPS, _STEPS).astype(np.int64)
                law += (step + _STEPS) * (_TABLED - 1)
            place = np.searchsorted(upto, law + u[few])
            drawn[few] = np.clip(place - begins[law], 0, number[few])
        many = np.flatnonzero(number > _TABLED)
        if len(many):
            drawn[many] = self._of_many(number[many], special.expit(logit[many]), u[many])
        return drawn

    def _of_many(self, number: Ints, share: Floats, u: Floats) -> Ints:
        if self._split.even:
            pairs, sd = self._split.evened(number.astype(np.float64), share)
            drawn = np.rint(pairs + (number - 2 * pairs) * share + sd * special.ndtri(u))
            return np.clip(drawn, 0, number).astype(np.int64)
        spread = self._split.concentration(self._mean, self._users, number.astype(np.float64))
        # the digits of u beyond the first 26 are another number, as even as these
        one = np.floor(u * 2**26)
        other = np.clip(u * 2**26 - one, 1e-9, 1 - 1e-9)
        p = special.betaincinv(share * spread, (1 - share) * spread, (one + 0.5) / 2**26)
        found = stats.binom.ppf(other, number, np.clip(p, 1e-12, 1 - 1e-12))
        return np.asarray(found).astype(np.int64)


@lru_cache(maxsize=256)
def table(split: Split, mean: float, users: float) -> Table:
    """Return the table of a law; making one takes as long as hundreds of draws."""
    return Table(split, mean, users)


# --- fitting -----------------------------------------------------------------------------------


class Seen:
    """The splits of a scale that a trace shows, those that are alike together.

    `left`, `number`, `before` and `after` have an entry a kind of split, `times` how often it was.
    """

    def __init__(self, splits: Floats, mean: float) -> None:
        rows, times = np.unique(splits, axis=0, return_counts=True)
        self.left, self.number, self.before, self.after = rows.T
        self.times = times.astype(np.float64)
        self.tilt = tilt(self.before, self.after)
        self.size = np.log(self.number / mean)
        self.mean = mean

    def gain(self, split: Split) -> float:
        """Return how much log-likelihood a law gains over a fair coin."""
        share = split.share(self.before, self.after)
        log = split.log_pmf(self.mean, 1.0, self.left, self.number, share)
        return float((log - fair(self.left, self.number)) @ self.times)


def fitted(seen: Seen, prior: float) -> Split:
    """Return the law of a scale: likeliest lean and growth, and a spread that fits the variance.

    A prior of weight `prior` holds lean and growth where few splits say little.
    """
    left, number, size = seen.left, seen.number, seen.size

    def loss(point: Floats) -> tuple[float, Floats]:
        theta = np.clip(point, *_BOUNDS)
        lean, spread, growth = theta
        share = special.expit(lean * seen.tilt)
        total = np.exp(np.clip(spread + growth * size, *SPREADS))
        a, b = share * total, (1 - share) * total
        value = special.betaln(left + a, number - left + b) - special.betaln(a, b)
        both = special.digamma(number + total) - special.digamma(total)
        by_a = special.digamma(left + a) - special.digamma(a) - both
        by_b = special.digamma(number - left + b) - special.digamma(b) - both
        by_lean = total * share * (1 - share) * seen.tilt * (by_a - by_b)
        by_log = a * by_a + b * by_b
        off = (point - _USUAL) / _PRIOR_SD
        slopes = (point == theta) * (np.stack([by_lean, by_log, by_log * size]) @ seen.times)
        value_of_all = -float(value @ seen.times) + prior * float(off @ off) / 2
        return value_of_all, prior * off / _PRIOR_SD - slopes

    found = optimize.minimize(
        loss,
        np.array([0.1, 1.0, 0.5]),
        jac=True,
        method="BFGS",  # of three numbers, where threads of a larger method would be in the way
        options={"maxiter": 50, "gtol": 1e-2 * prior},
    )
    lean, spread, growth = np.clip(found.x, *_BOUNDS).tolist()
    return _matched(seen, Split(lean=lean, spread=spread, growth=growth))


def _matched(seen: Seen, split: Split) -> Split:
    """Return the split whose spread gives counts the variance that they have.

    The likeliest law need not have it, and all dispersion at finer scales rests on it.
    """
    number = seen.number
    share = split.share(seen.before, seen.after)
    observed = float((2 * seen.left - number) ** 2 @ seen.times)

    def excess(spread: float) -> float:
        total = np.exp(np.clip(spread + split.growth * seen.size, *SPREADS))
        off = number * share * (1 - share) * (total + number) / (total + 1)
        return float(((number * (2 * share - 1)) ** 2 + 4 * off) @ seen.times) - observed

    low, high = SPREADS[0] * 2, SPREADS[1] + 4
    spread = low
    if excess(high) >= 0:  # calls come more evenly than by chance
        pairs = 2 * float((number // 2) @ seen.times)
        too_even = float(number @ seen.times) - observed
        even = float(np.clip(too_even / max(pairs, 1.0), 0.0, 0.99))
        return msgspec.structs.replace(FAIR, even=rounded(even))
    if excess(low) > 0:
        spread = float(optimize.brentq(excess, low, high))
    return Split(lean=rounded(split.lean), spread=rounded(spread), growth=rounded(split.growth))
