"""How many calls come in each half of a window, each quarter, and so on: bursts at every scale.

A window's count is split in two again and again. What share goes left follows a beta law whose
mean leans towards the busier neighbour and whose spread is fitted for every scale, so counts have
the dispersion of the trace from the window down to where nothing but chance is left; a conservative
cascade (Riedi et al. 1999) with beta-binomial splits.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from servescope.analysis.models.quantiles import rounded
from servescope.analysis.sample import Floats, Ints

Keys = npt.NDArray[np.uint64]

WINDOW_S = 600.0
_FINEST_S = 0.001
_PHASES = 8  # offsets at which the cells of a scale are counted, so that few cells say more
_MOST_SPLITS = 2000  # of one scale that a fit looks at
_TABLED = 48  # largest count whose splits are drawn from a table
_LEANS = np.linspace(-1.5, 1.5, 31)  # logits of the mean share for which there are tables
_SURE = 3.0  # gain of log-likelihood for each parameter, below which a scale says nothing
_FEW = 2.0  # calls in a cell, above which a scale is kept whatever it says
_GROWTH = 0.7
_PRIOR_SD = np.array([0.3, 1.0, 0.7])
_SPREADS = (-6.0, 12.0)  # logs of the concentration of shares


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the count N of a cell is split: beta-binomial, with neighbours of counts p and q.

    The logit of the mean share of the left half is lean * log((p + 1/2) / (q + 1/2)), the log of
    the concentration is spread + growth * log(N / mean), the mean being that of the scale's cells.
    Where calls come more evenly than by chance, each two of them go one left and one right with the
    probability `even`, and the rest by chance.
    """

    lean: float
    spread: float
    growth: float
    even: float = 0.0


_FAIR = Split(lean=0.0, spread=_SPREADS[1], growth=0.0)


class Cascade(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="cascade"):
    """Arrivals in windows of `width_s`; scale k splits cells of width_s / 2^k.

    `rate_rps` is the mean rate at which it was fitted. `users` is how many times as many
    independent clients there are than then: with more of them, shares vary less.
    """

    width_s: float
    rate_rps: float
    splits: tuple[Split, ...]
    users: float = 1.0

    # --- fitting ---------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        arrivals: Floats,
        span_s: float,
        width_s: float = WINDOW_S,
        finest_s: float = _FINEST_S,
    ) -> Cascade:
        """Fit every scale by maximum likelihood: arrivals (s, ascending) in [0, span_s).

        Scales below `finest_s` are left out, and those whose cells hold few calls and cannot be
        told from independent ones (a likelihood ratio against binomial splits).
        """
        rate = len(arrivals) / span_s
        fitted: list[Split] = []
        told = 0
        width = width_s
        while width / 2 >= finest_s:
            splits, phases = _observed(arrivals, span_s, width)
            if len(splits) < 10 and fitted:
                break
            split, gain = _fit(splits, rate * width, phases)
            sure = gain / phases > _SURE
            fitted.append(split if sure or rate * width > _FEW else _FAIR)
            if fitted[-1] is not _FAIR:
                told = len(fitted)
            width /= 2
        return cls(width_s=rounded(width_s), rate_rps=rounded(rate), splits=tuple(fitted[:told]))

    # --- another rate ----------------------------------------------------------------------------

    def busier(self, factor: float) -> Cascade:
        """Return the arrivals of the same clients, each asking `factor` times as often."""
        return msgspec.structs.replace(self, rate_rps=rounded(self.rate_rps * factor))

    def crowded(self, factor: float) -> Cascade:
        """Return the arrivals of `factor` times as many independent clients."""
        return msgspec.structs.replace(
            self,
            rate_rps=rounded(self.rate_rps * factor),
            users=rounded(self.users * factor),
        )

    def faster(self, factor: float) -> Cascade:
        """Return the same arrivals on a clock that runs `factor` times as fast."""
        return msgspec.structs.replace(
            self,
            rate_rps=rounded(self.rate_rps * factor),
            width_s=rounded(self.width_s / factor),
        )

    # --- drawing ---------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Return arrivals in [0, width_s), ascending, of windows with Poisson counts."""
        windows = max(1, int(np.ceil(width_s / self.width_s - 1e-9)))
        counts = rng.poisson(rate_rps * self.width_s, windows)
        keys = rng.integers(0, 2**64, windows, np.uint64)
        window, times = self.placed(keys, counts)
        at = window * self.width_s + times
        return at[: np.searchsorted(at, width_s)]

    def placed(self, keys: Keys, counts: Ints) -> tuple[Ints, Floats]:
        """Place the calls of windows: return the window and the time in it of every call.

        Both are in order. What a window gets depends on its key and count alone.
        """
        held = counts > 0
        cells = _Cells(np.flatnonzero(held), np.zeros(int(held.sum()), np.int64), counts[held])
        done: list[tuple[Ints, Ints, float]] = []  # windows and cells of single calls far from all
        width = self.width_s
        for scale, split in enumerate(self.splits):
            before, after = cells.neighbours()
            alone = (cells.number == 1) & (before == 0) & (after == 0)
            if alone.any():
                done.append((cells.window[alone], cells.cell[alone], width))
            left = ~alone
            cells, before, after = cells.only(left), before[left], after[left]
            drawn = _even(keys, cells, scale)
            table = _Table(split, self.rate_rps * width, self.users)
            cells = cells.split(table.left(cells.number, before, after, drawn))
            width /= 2
        window = np.repeat(cells.window, cells.number)
        first = np.repeat(cells.cell, cells.number)
        twin = np.arange(len(window)) - np.repeat(
            np.cumsum(cells.number) - cells.number, cells.number
        )
        end = _Cells(window, first, np.ones(len(window), np.int64))
        times = (first + _even(keys, end, len(self.splits), twin)) * width
        for number, (of, cell, wide) in enumerate(done):
            alone_at = _Cells(of, cell, np.ones(len(of), np.int64))
            window = np.concatenate((window, of))
            times = np.concatenate((times, (cell + _even(keys, alone_at, 100 + number)) * wide))
        order = np.argsort(window * self.width_s + times, kind="stable")
        return window[order], np.minimum(times[order], np.nextafter(self.width_s, 0))

    # --- what is said of it ----------------------------------------------------------------------

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float | None = None) -> float:
        """Return the log-likelihood (nats) of arrivals (s, ascending) in [0, span_s).

        Each window's count is Poisson around the mean rate; calls after the last whole window are
        those of a Poisson process.
        """
        rate = rate_rps or self.rate_rps
        windows = int(span_s / self.width_s + 1e-9)
        inside = arrivals[: np.searchsorted(arrivals, windows * self.width_s)]
        rest = len(arrivals) - len(inside)
        score = rest * np.log(rate) - rate * (span_s - windows * self.width_s)
        counts = np.bincount((inside / self.width_s).astype(np.int64), minlength=windows)[:windows]
        score += float(stats.poisson.logpmf(counts, rate * self.width_s).sum())
        width = self.width_s
        for split in self.splits:
            found = _cells_of(inside, width, windows * self.width_s)
            score += float(_log_pmf(split, rate * width, self.users, found).sum())
            width /= 2
        final = np.unique((inside / width).astype(np.int64), return_counts=True)[1]
        return float(score + special.gammaln(final + 1).sum() - len(inside) * np.log(width))

    def summary(self) -> str:
        """Say down to which scale calls come in bursts."""
        if not self.splits:
            return f"Within {self.width_s:g} s calls come independently of each other."
        finest = self.width_s / 2 ** len(self.splits)
        return (
            f"Calls come in bursts at every scale from {self.width_s:g} s down to {finest:.2g} s."
        )


class _Cells:
    """The cells of a scale that hold calls, in order: window, place in it, and how many."""

    __slots__ = ("cell", "number", "window")

    def __init__(self, window: Ints, cell: Ints, number: Ints) -> None:
        self.window, self.cell, self.number = window, cell, number

    def only(self, kept: npt.NDArray[np.bool_]) -> _Cells:
        return _Cells(self.window[kept], self.cell[kept], self.number[kept])

    def neighbours(self) -> tuple[Ints, Ints]:
        """Return how many calls the cells before and after hold; at an edge as many as itself."""
        near = (np.diff(self.cell) == 1) & (np.diff(self.window) == 0)
        before, after = np.zeros_like(self.number), np.zeros_like(self.number)
        before[1:] = self.number[:-1] * near
        after[:-1] = self.number[1:] * near
        first = self.cell == 0
        before[first] = after[first]
        return before, after

    def split(self, left: Ints) -> _Cells:
        """Return the halves that hold calls."""
        window, cell = np.repeat(self.window, 2), np.repeat(2 * self.cell, 2)
        cell[1::2] += 1
        number = np.empty(len(cell), np.int64)
        number[0::2], number[1::2] = left, self.number - left
        return _Cells(window, cell, number).only(number > 0)


def _even(keys: Keys, cells: _Cells, scale: int, twin: Ints | None = None) -> Floats:
    """Return a number in (0, 1) for every cell: a hash of its window's key, scale and place.

    The mixing is that of SplitMix64 (Steele et al. 2014).
    """
    mixed = keys[cells.window] + np.uint64((scale + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = _mix(mixed ^ _mix(cells.cell.astype(np.uint64)))
    if twin is not None:
        mixed = _mix(mixed + twin.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(x: Keys) -> Keys:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# --- the law of a split ------------------------------------------------------------------------


def _concentration(split: Split, mean: float, users: float, number: Floats) -> Floats:
    """Return the concentration of the share that goes left.

    Of `users` times as many independent clients, the variance of the share is as many times less.
    """
    log = split.spread + split.growth * np.log(number / (mean or 1.0))
    return np.asarray(users * (np.exp(np.clip(log, *_SPREADS)) + 1) - 1)


def _logit(split: Split, before: Ints, after: Ints) -> Floats:
    return np.asarray(split.lean * np.log((before + 0.5) / (after + 0.5)))


def _log_pmf(split: Split, mean: float, users: float, found: Floats) -> Floats:
    """Return the log-probability of splits: rows of (left, number, before, after)."""
    left, number, before, after = found.T
    share = special.expit(_logit(split, before, after))
    return _log_law(split, mean, users, left, number, share)


def _log_law(
    split: Split, mean: float, users: float, left: Floats, number: Floats, share: Floats
) -> Floats:
    if not split.even:
        spread = _concentration(split, mean, users, number)
        return _beta_binomial(left, number, share * spread, (1 - share) * spread)
    most = int(number.max(initial=0)) // 2
    if most > _TABLED:  # of so many, the sum of both is as good as normal
        pairs, sd = _evened(split, number, share)
        middle = pairs + (number - 2 * pairs) * share
        off = (np.array([0.5, -0.5])[:, None] + left - middle) / sd
        return np.log(np.maximum(special.ndtr(off[0]) - special.ndtr(off[1]), 1e-300))
    pairs = np.arange(most + 1).reshape(-1, *[1] * np.broadcast(left, share).ndim)
    apart = stats.binom.logpmf(pairs, number // 2, split.even)
    rest = stats.binom.logpmf(left - pairs, np.maximum(number - 2 * pairs, 0), share)
    return np.asarray(special.logsumexp(apart + rest, axis=0))


def _evened(split: Split, number: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Return how many pairs part on average, and the deviation of the number that goes left."""
    pairs = number // 2 * split.even
    variance = (number - 2 * pairs) * share * (1 - share)
    return pairs, np.sqrt(variance + pairs * (1 - split.even) * (1 - 2 * share) ** 2)


def _beta_binomial(left: Floats, number: Floats, a: Floats, b: Floats) -> Floats:
    law = special.betaln(left + a, number - left + b) - special.betaln(a, b)
    return np.asarray(_ways(left, number) + law)


def _ways(left: Floats, number: Floats) -> Floats:
    """Return the log of how many ways there are to choose who goes left."""
    return np.asarray(
        special.gammaln(number + 1) - special.gammaln(left + 1) - special.gammaln(number - left + 1)
    )


class _Table:
    """Draws splits of one scale: small counts from tables, large ones by quantiles."""

    def __init__(self, split: Split, mean: float, users: float) -> None:
        self._split, self._mean, self._users = split, mean, users
        leans = _LEANS if split.lean else _LEANS[15:16]
        number = np.repeat(np.arange(2, _TABLED + 1), np.arange(3, _TABLED + 2))
        first = np.concatenate(([0], np.cumsum(np.arange(3, _TABLED + 2))))
        left = np.arange(len(number)) - first[number - 2]
        share = special.expit(leans)[:, None]
        log = _log_law(split, mean, users, left, number.astype(np.float64), share)
        upto = np.cumsum(np.exp(log), axis=1)
        # each law begins where the one before ends, so that one search serves them all
        ends = upto[:, first[1:] - 1]
        begun = np.concatenate((np.zeros((len(leans), 1)), ends[:, :-1]), axis=1)
        laws = np.arange(len(leans) * (_TABLED - 1)).reshape(len(leans), -1)
        within = (upto - begun[:, number - 2]) / (ends - begun)[:, number - 2]
        self._upto = (within + laws[:, number - 2]).ravel()
        self._first = (np.arange(len(leans))[:, None] * len(number) + first[:-1]).ravel()
        self._leans = len(leans)

    def left(self, number: Ints, before: Ints, after: Ints, u: Floats) -> Ints:
        """Return how many of each count go left."""
        logit = _logit(self._split, before, after) if self._split.lean else np.zeros(len(number))
        drawn = (u < special.expit(logit)).astype(np.int64)  # of single calls
        few = np.flatnonzero((number > 1) & (number <= _TABLED))
        if len(few):
            step = _LEANS[1] - _LEANS[0]
            lean = np.clip(np.rint(logit[few] / step), -15, 15).astype(np.int64) + 15
            law = number[few] - 2
            if self._leans > 1:
                law += lean * (_TABLED - 1)
            place = np.searchsorted(self._upto, law + u[few])
            drawn[few] = np.clip(place - self._first[law], 0, number[few])
        many = np.flatnonzero(number > _TABLED)
        if len(many):
            drawn[many] = self._of_many(number[many], logit[many], u[many])
        return drawn

    def _of_many(self, number: Ints, logit: Floats, u: Floats) -> Ints:
        share = special.expit(logit)
        if self._split.even:
            pairs, sd = _evened(self._split, number.astype(np.float64), share)
            drawn = np.rint(pairs + (number - 2 * pairs) * share + sd * special.ndtri(u))
            return np.clip(drawn, 0, number).astype(np.int64)
        spread = _concentration(self._split, self._mean, self._users, number.astype(np.float64))
        # the digits of u beyond the millionth are another number, as even as the first
        one = np.floor(u * 2**26)
        other = u * 2**26 - one
        p = special.betaincinv(share * spread, (1 - share) * spread, (one + 0.5) / 2**26)
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return np.asarray(stats.binom.ppf(np.clip(other, 1e-9, 1 - 1e-9), number, p)).astype(
            np.int64
        )


# --- what a trace shows ------------------------------------------------------------------------


def _cells_of(arrivals: Floats, width: float, span_s: float, offset: float = 0.0) -> Floats:
    """Return the splits of the whole cells of a width: rows of (left, number, before, after)."""
    whole = int((span_s - offset) / width + 1e-9)
    half = np.floor((arrivals - offset) / (width / 2)).astype(np.int64)
    half = half[slice(*np.searchsorted(half, (0, 2 * whole)).tolist())]
    cell, first, number = np.unique(half >> 1, return_index=True, return_counts=True)
    gone_right = np.add.reduceat(half & 1, first) if len(cell) else np.empty(0, np.int64)
    cells = _Cells(np.zeros_like(cell), cell, number)
    before, after = cells.neighbours()
    if len(cell) and cell[-1] == whole - 1:
        after[-1] = before[-1]
    return np.stack([number - gone_right, number, before, after], axis=1).astype(np.float64)


def _observed(arrivals: Floats, span_s: float, width: float) -> tuple[Floats, int]:
    """Return the splits of a scale at several phases, each of one call or more, and the phases."""
    cells = span_s / width
    phases = _PHASES if cells < _MOST_SPLITS else 1
    found = [
        _cells_of(arrivals, width, span_s, phase * width / phases)
        for phase in range(phases)
        if span_s - phase * width / phases >= width
    ]
    return np.concatenate(found) if found else np.empty((0, 4)), max(1, len(found))


def _fit(splits: Floats, mean: float, phases: int) -> tuple[Split, float]:
    """Return the split law of a scale, and how much log-likelihood it gains over a fair coin.

    A weak prior holds lean and growth where few splits say little.
    """
    splits = splits[splits[:, 1] >= 1]
    scale = 1.0
    if len(splits) > _MOST_SPLITS:
        apart = np.linspace(0, len(splits) - 1, _MOST_SPLITS).astype(np.int64)
        scale = len(splits) / _MOST_SPLITS
        splits = splits[apart]
    if not (splits[:, 1] > 1).any():
        return _FAIR, 0.0
    rows, seen = np.unique(splits, axis=0, return_counts=True)
    left, number, before, after = rows.T
    tilt = np.log((before + 0.5) / (after + 0.5))
    size = np.log(number / (mean or 1.0))
    weight = phases / scale

    def loss(theta: Floats) -> tuple[float, Floats]:
        lean, spread, growth = theta
        share = special.expit(lean * tilt)
        log = np.clip(spread + growth * size, *_SPREADS)
        total = np.exp(log)
        a, b = share * total, (1 - share) * total
        value = special.betaln(left + a, number - left + b) - special.betaln(a, b)
        both = special.digamma(number + total) - special.digamma(total)
        by_a = special.digamma(left + a) - special.digamma(a) - both
        by_b = special.digamma(number - left + b) - special.digamma(b) - both
        by_lean = total * share * (1 - share) * tilt * (by_a - by_b)
        by_log = a * by_a + b * by_b
        slopes = np.stack([by_lean, by_log, by_log * size]) @ seen
        off = np.array([lean, 0.0, growth - _GROWTH]) / _PRIOR_SD
        return -float(value @ seen) + weight * float(
            off @ off
        ) / 2, -slopes + weight * off / _PRIOR_SD

    found = optimize.minimize(
        loss,
        np.array([0.1, 1.0, 0.5]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-2, 2), (-5, 10), (-1, 3)],
        options={"maxiter": 50},
    )
    lean, spread, growth = found.x
    share = special.expit(lean * tilt)

    def excess(spread: float) -> float:
        total = np.exp(np.clip(spread + growth * size, *_SPREADS))
        off = number * share * (1 - share) * (total + number) / (total + 1)
        expected = (number * (2 * share - 1)) ** 2 + 4 * off
        return float((expected - (2 * left - number) ** 2) @ seen)

    # The likeliest law need not have the variance that the counts have, on which all dispersion at
    # finer scales rests: so the spread is set by the variance, the rest by the likelihood.
    low, high = -12.0, 16.0
    even = 0.0
    if excess(low) <= 0:
        spread = low
    elif excess(high) < 0:
        spread = float(optimize.brentq(excess, low, high))
    else:
        lean, spread, growth = 0.0, _SPREADS[1], 0.0
        pairs = number // 2
        chance, seen_off = float(number @ seen), float((2 * left - number) ** 2 @ seen)
        even = float(np.clip((chance - seen_off) / max(2 * float(pairs @ seen), 1.0), 0.0, 0.99))
    lean, spread, growth, even = (rounded(value) for value in (lean, spread, growth, even))
    split = Split(lean=lean, spread=spread, growth=growth, even=even)
    gain = float(_log_pmf(split, mean, 1.0, rows) @ seen) + float((number * np.log(2.0)) @ seen)
    gain -= float(_ways(left, number) @ seen)
    return split, gain * scale
