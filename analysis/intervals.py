"""How sure a number is, when the calls behind it are not independent.

Calls that are near in time share a queue, so an interval that treats them as independent is far too
narrow. Here time is cut into blocks, programs stay whole, and whole blocks are drawn again: once
block by block, once in pairs of neighbours, in case a queue outlasts a block. The wider one counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]

RESAMPLES = 1000  # of each kind
BLOCKS = 8
TOGETHER = (1, 2)  # neighbouring blocks that are drawn as one
PROGRAMS_A_BLOCK = 5
FEWEST_PROGRAMS = BLOCKS * PROGRAMS_A_BLOCK


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between its bounds at a confidence level."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside."""
        return value < self.low or value > self.high


def blocks_of(starts: npt.ArrayLike) -> Ints | None:
    """Cut programs into BLOCKS of equal number by the order of their starts.

    Returns the block of each program, shape (programs,), or None for fewer than FEWEST_PROGRAMS.
    """
    times = np.asarray(starts, dtype=np.float64)
    if len(times) < FEWEST_PROGRAMS:
        return None
    ranks = np.argsort(np.argsort(times, kind="stable"), kind="stable")
    return (ranks * BLOCKS // len(times)).astype(np.intp)


def resampled_counts(seed: int, resamples: int = RESAMPLES) -> Counts:
    """Return how often each block is drawn in each resample: shape (2 * resamples, BLOCKS).

    The first half draws single blocks, the second pairs.
    """
    rng = np.random.default_rng(seed)
    draws = []
    for together in TOGETHER:
        units = BLOCKS // together
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
        draws.append(drawn.repeat(together, axis=1))
    return np.concatenate(draws)


def quantiles(values: Floats, block: Ints, counts: Counts, q: float) -> Floats:
    """Return the q-quantile of the values in every resample: shape (resamples,).

    `block` names the block of each value. It is the smallest value with at least the share q of the
    resample at or below it, found by halving for all resamples at once; NaN in an empty resample.
    """
    order = np.argsort(values, kind="stable")
    ranks = [np.flatnonzero(block[order] == b) for b in range(counts.shape[1])]
    sizes = counts @ np.array([len(of_block) for of_block in ranks])
    low = np.zeros(len(counts), dtype=np.intp)
    high = np.full(len(counts), max(len(values) - 1, 0), dtype=np.intp)
    while (low < high).any():
        middle = (low + high) // 2
        upto = sum(
            counts[:, b] * np.searchsorted(of_block, middle, side="right")
            for b, of_block in enumerate(ranks)
        )
        enough = upto >= q * sizes
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    found = np.full(len(counts), np.nan)
    found[sizes > 0] = values[order][low[sizes > 0]]
    return found


def means(values: Floats, block: Ints, counts: Counts) -> Floats:
    """Return the mean of the values in every resample: shape (resamples,); NaN in an empty one."""
    blocks = counts.shape[1]
    total = np.bincount(block, values, minlength=blocks)
    size = np.bincount(block, minlength=blocks)
    with np.errstate(invalid="ignore"):
        return np.asarray((counts @ total) / (counts @ size), dtype=np.float64)


def ratio(a: float, b: float, resampled_a: Floats, resampled_b: Floats) -> Interval | None:
    """Return b / a with its interval, made on the log scale; None if any of them is not above 0."""
    if not (a > 0 and b > 0):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(resampled_b) - np.log(resampled_a)
    inside = around(math.log(b / a), logs)
    return inside and Interval(b / a, math.exp(inside.low), math.exp(inside.high))


def around(estimate: float, resampled: Floats, level: float = 0.95) -> Interval | None:
    """Return estimate -/+ t x the bootstrap's standard error, the wider of singles and pairs.

    The t quantile (units - 1 degrees of freedom) and the factor sqrt(units / (units - 1)) widen
    what few units make too narrow (Hesterberg 2015, section 3.2). `resampled` is of the counts of
    `resampled_counts`; None where it is not finite throughout.
    """
    from scipy import stats  # takes a third of a second to load, and only intervals need it

    if not np.isfinite(estimate) or not np.isfinite(resampled).all():
        return None
    reach = 0.0
    for together, drawn in zip(TOGETHER, np.split(resampled, len(TOGETHER)), strict=True):
        units = BLOCKS // together
        error = float(np.std(drawn, ddof=1)) * math.sqrt(units / (units - 1))
        reach = max(reach, float(stats.t.ppf((1 + level) / 2, units - 1)) * error)
    return Interval(estimate, estimate - reach, estimate + reach)
