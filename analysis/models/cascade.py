"""How many calls come in each half of a window, each quarter, and so on: bursts at every scale.

A window's count is split in two again and again. What share goes left follows a beta law whose mean
leans towards the busier neighbour and whose spread is fitted for every scale, so that counts have
the dispersion of the trace from the window down to where nothing is left but chance: a conservative
cascade (Riedi et al. 1999) with beta-binomial splits.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import special, stats

from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.splits import FAIR, Seen, Split, fitted, table
from servescope.analysis.sample import Floats, Ints

Keys = npt.NDArray[np.uint64]
Above0 = Annotated[float, msgspec.Meta(gt=0)]

WINDOW_S = 600.0
_FINEST_S = 0.001
_PHASES = 8  # offsets at which windows begin, so that the few cells of a scale say more
_MOST_SPLITS = 4000  # of one scale, that a fit looks at
_SURE = 3.0  # gain of log-likelihood, below which a scale says nothing
_ROUNDS = 3  # of calibration
_DRAWN, _MOST_DRAWS = 150_000, 24  # calls of each, and how often the trace is drawn at most
_SEED = 5
_FEWEST = 10  # splits that are worth a look
_TOLD = 0.1  # of the variance by chance, above which it is told that calls come in bursts
_FEW = 2.0  # calls in a cell, above which a scale is kept whatever it says


class Cascade(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="cascade"):
    """Arrivals in windows of `width_s`; scale k splits cells of width_s / 2^k.

    Within the cells of the last scale calls are anywhere. `rate_rps` is the mean rate at which it
    was fitted. `users` is how many times as many independent clients there are than then: with more
    of them, shares vary less.
    """

    width_s: Above0
    rate_rps: Above0
    splits: tuple[Split, ...]
    users: Above0 = 1.0

    # --- fitting ---------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        arrivals: Floats,
        span_s: float,
        width_s: float = WINDOW_S,
        finest_s: float = _FINEST_S,
        *,
        calibrated: bool = True,
    ) -> Cascade:
        """Fit every scale: arrivals (s, ascending) in [0, span_s).

        Scales below `finest_s` are left out, and those whose cells hold few calls and cannot be
        told from independent ones. Unless it is `calibrated` by draws of its own, which takes most
        of the time, dispersion comes out a tenth or so off.
        """
        rate = len(arrivals) / span_s
        kept: list[Split] = []
        told = 0
        width = width_s
        while width / 2 >= finest_s:
            splits, phases = _observed(arrivals, span_s, width)
            if len(splits) < _FEWEST and rate * width < _FEW:
                break  # all finer scales have even less to say
            split = FAIR
            if len(splits) and splits[:, 1].max() > 1:
                seen = Seen(splits, rate * width)
                found = fitted(seen, phases)
                if rate * width > _FEW or seen.gain(found) / phases > _SURE:
                    split = found
            kept.append(split)
            if split is not FAIR:
                told = len(kept)
            width /= 2
        made = cls(width_s=rounded(width_s), rate_rps=rounded(rate), splits=tuple(kept[:told]))
        return _calibrated(made, arrivals, span_s) if told and calibrated else made

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return 3 * len(self.splits)

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

    def widened(self, factor: float) -> Cascade:
        """Return it with windows about as wide, `factor` times: its scales move with them."""
        return msgspec.structs.replace(self, width_s=rounded(self.width_s * factor))

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
        held = np.flatnonzero(counts > 0)
        cells = _Cells(held, np.zeros(len(held), np.int64), counts[held])
        done: list[tuple[Ints, Floats]] = []
        width = self.width_s
        for scale, split in enumerate(self.splits):
            before, after = cells.neighbours(scale)
            alone = (cells.number == 1) & (before == 0) & (after == 0)
            if alone.any():
                done.append(_anywhere(keys, cells.only(alone), scale, width))
                cells, before, after = cells.only(~alone), before[~alone], after[~alone]
            law = table(split, self.rate_rps * width, self.users)
            u = _even(keys, cells, scale)
            cells = cells.split(law.left(cells.number, before, after, u))
            width /= 2
        done.append(_anywhere(keys, cells, len(self.splits), width))
        window = np.concatenate([of for of, _ in done])
        times = np.concatenate([at for _, at in done])
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
            left, number, before, after = _cells_of(inside, width, windows * self.width_s).T
            share = split.share(before, after)
            score += float(split.log_pmf(rate * width, self.users, left, number, share).sum())
            width /= 2
        final = np.unique((inside / width).astype(np.int64), return_counts=True)[1]
        return float(score + special.gammaln(final + 1).sum() - len(inside) * np.log(width))

    def summary(self) -> str:
        """Say down to which scale calls come in bursts."""
        bursty = []
        for scale, split in enumerate(self.splits):
            mean = np.array([self.rate_rps * self.width_s / 2**scale])
            # how much more than by chance the shares of a cell of usual size vary
            more = (mean - 1) / (split.concentration(mean[0], self.users, mean) + 1)
            if not split.even and (more[0] > _TOLD or mean[0] < _FEW):
                bursty.append(scale)
        if not bursty:
            return f"Within {self.width_s:g} s calls come independently of each other."
        first, finest = (self.width_s / 2**scale for scale in (bursty[0], bursty[-1] + 1))
        return f"Calls come in bursts at scales from {first:.3g} s down to {finest:.2g} s."


class _Cells:
    """The cells of a scale that hold calls, in order: window, place in it, and how many."""

    __slots__ = ("cell", "number", "window")

    def __init__(self, window: Ints, cell: Ints, number: Ints) -> None:
        self.window, self.cell, self.number = window, cell, number

    def only(self, kept: npt.NDArray[np.bool_]) -> _Cells:
        return _Cells(self.window[kept], self.cell[kept], self.number[kept])

    def neighbours(self, scale: int) -> tuple[Ints, Ints]:
        """Return how many calls the cells before and after hold.

        The first and the last cell of a window have the one neighbour on both sides.
        """
        near = (np.diff(self.cell) == 1) & (np.diff(self.window) == 0)
        before, after = np.zeros_like(self.number), np.zeros_like(self.number)
        before[1:] = self.number[:-1] * near
        after[:-1] = self.number[1:] * near
        first, last = self.cell == 0, self.cell == 2**scale - 1
        before[first] = after[first]
        after[last] = before[last]
        if scale == 0:
            before, after = self.number, self.number
        return before, after

    def split(self, left: Ints) -> _Cells:
        """Return the halves that hold calls."""
        window, cell = np.repeat(self.window, 2), np.repeat(2 * self.cell, 2)
        cell[1::2] += 1
        number = np.empty(len(cell), np.int64)
        number[0::2], number[1::2] = left, self.number - left
        return _Cells(window, cell, number).only(number > 0)


def _anywhere(keys: Keys, cells: _Cells, scale: int, width: float) -> tuple[Ints, Floats]:
    """Return the windows and times of the calls of cells that are not split any further."""
    window, cell = np.repeat(cells.window, cells.number), np.repeat(cells.cell, cells.number)
    twin = np.arange(len(window)) - np.repeat(np.cumsum(cells.number) - cells.number, cells.number)
    each = _Cells(window, cell, twin)
    return window, (cell + _even(keys, each, scale, twin + 1)) * width


def _even(keys: Keys, cells: _Cells, scale: int, twin: Ints | None = None) -> Floats:
    """Return a number in (0, 1) for every cell: a hash of its window's key, scale and place.

    The mixing is that of SplitMix64 (Steele et al. 2014).
    """
    mixed = keys[cells.window] + np.uint64((scale + 1) * _GOLDEN % 2**64)
    mixed = _mix(mixed ^ _mix(cells.cell.astype(np.uint64)))
    if twin is not None:
        mixed = _mix(mixed + twin.astype(np.uint64) * np.uint64(_GOLDEN))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


_GOLDEN = 0x9E3779B97F4A7C15


def _mix(x: Keys) -> Keys:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# --- what a trace shows ------------------------------------------------------------------------


def _cells_of(arrivals: Floats, width: float, span_s: float, offset: float = 0.0) -> Floats:
    """Return the splits of the whole cells of a width: rows of (left, number, before, after)."""
    whole = int((span_s - offset) / width + 1e-4)
    half = np.floor((arrivals - offset) / (width / 2)).astype(np.int64)
    half = half[slice(*np.searchsorted(half, (0, 2 * whole)).tolist())]
    cell, first, number = np.unique(half >> 1, return_index=True, return_counts=True)
    right = np.add.reduceat(half & 1, first) if len(cell) else np.empty(0, np.int64)
    near = np.diff(cell) == 1
    before, after = np.zeros_like(number), np.zeros_like(number)
    before[1:], after[:-1] = number[:-1] * near, number[1:] * near
    if len(cell) and cell[0] == 0:
        before[0] = after[0]
    if len(cell) and cell[-1] == whole - 1:
        after[-1] = before[-1]
    return np.stack([number - right, number, before, after], axis=1).astype(np.float64)


def _observed(arrivals: Floats, span_s: float, width: float) -> tuple[Floats, int]:
    """Return some splits of a scale, at several phases if it has few, and the phases."""
    phases = _PHASES if span_s / width < _MOST_SPLITS else 1
    found = [
        _cells_of(arrivals, width, span_s, phase * width / phases)
        for phase in range(phases)
        if span_s - phase * width / phases >= width * (1 - 1e-4)
    ]
    splits = np.concatenate(found) if found else np.empty((0, 4))
    if len(splits) > _MOST_SPLITS:
        splits = splits[np.linspace(0, len(splits) - 1, _MOST_SPLITS).astype(np.int64)]
    return splits, max(1, len(found))


def _calibrated(cascade: Cascade, arrivals: Floats, span_s: float) -> Cascade:
    """Return the cascade whose draws have the variance of the trace's splits at every scale.

    What is split at a scale are counts of the scale before, which are not quite those of the trace.
    """
    windows = int(span_s / cascade.width_s + 1e-4)
    window = (arrivals / cascade.width_s).astype(np.int64)
    counts = np.bincount(window[window < windows], minlength=windows)
    if not counts.sum():
        return cascade
    rng = np.random.default_rng(_SEED)
    again = int(np.clip(_DRAWN // len(arrivals), 1, _MOST_DRAWS))
    scales = len(cascade.splits)
    real = _excess(arrivals, span_s, cascade.width_s, scales, _PHASES)
    for _ in range(_ROUNDS):
        keys = rng.integers(0, 2**64, windows * again, np.uint64)
        of, at = cascade.placed(keys, rng.poisson(np.tile(counts, again)))
        lasts = windows * again * cascade.width_s
        drawn = _excess(of * cascade.width_s + at, lasts, cascade.width_s, scales, 1)
        splits = []
        for split, want, have in zip(cascade.splits, real, drawn, strict=True):
            if not split.even and min(want, have) > 0:
                wider = float(np.clip(have / want, 0.5, 2.0))
                spread = np.log(max((np.exp(split.spread) + 1) * wider - 1, 1e-6))
                split = msgspec.structs.replace(split, spread=rounded(float(spread)))
            splits.append(split)
        cascade = msgspec.structs.replace(cascade, splits=tuple(splits))
    return cascade


def _excess(
    arrivals: Floats, span_s: float, width_s: float, scales: int, phases: int
) -> list[float]:
    """Return for every scale the variance of its splits beyond that of fair coins, a call."""
    found = []
    for scale in range(scales):
        width = width_s / 2**scale
        cut = phases if span_s / width < _MOST_SPLITS else 1
        rows = np.concatenate(
            [_cells_of(arrivals, width, span_s, phase * width / cut) for phase in range(cut)]
        )
        left, number = rows[:, 0], rows[:, 1]
        calls = max(float(number.sum()), 1.0)
        found.append(float(((2 * left - number) ** 2).sum() / calls) - 1.0)
    return found
