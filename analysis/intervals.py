"""How sure a number is, when the calls behind it are not independent.

Calls that are near in time share a queue, so an interval that treats them as independent is far too
narrow. Here time is cut into blocks, programs stay whole, and whole blocks are drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]

RESAMPLES = 1000
FEWEST_BLOCKS, MOST_BLOCKS = 8, 20
PROGRAMS_A_BLOCK = 5
FEWEST_PROGRAMS = FEWEST_BLOCKS * PROGRAMS_A_BLOCK


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
    """Cut programs into blocks of equal number by the order of their starts.

    Returns the block of each program, shape (programs,), or None for fewer than FEWEST_PROGRAMS.
    """
    times = np.asarray(starts, dtype=np.float64)
    count = min(MOST_BLOCKS, len(times) // PROGRAMS_A_BLOCK)
    if count < FEWEST_BLOCKS:
        return None
    ranks = np.argsort(np.argsort(times, kind="stable"), kind="stable")
    return (ranks * count // len(times)).astype(np.intp)


def resampled_counts(blocks: int, seed: int, resamples: int = RESAMPLES) -> Counts:
    """Return how often each block is drawn in each resample: shape (resamples, blocks)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples)


def quantiles(values: Floats, block: Ints, counts: Counts, q: float) -> Floats:
    """Return the q-quantile of the values in every resample: shape (resamples,).

    `block` names the block of each value. A resample without a value has NaN.
    """
    order = np.argsort(values, kind="stable")
    ranked, owner = values[order], block[order]
    found = np.full(len(counts), np.nan)
    for row, drawn in enumerate(counts):
        weight = np.cumsum(drawn[owner])
        if len(weight) and weight[-1]:
            found[row] = ranked[np.searchsorted(weight, q * weight[-1])]
    return found


def means(values: Floats, block: Ints, counts: Counts) -> Floats:
    """Return the mean of the values in every resample: shape (resamples,)."""
    blocks = counts.shape[1]
    total = np.bincount(block, values, minlength=blocks)
    size = np.bincount(block, minlength=blocks)
    with np.errstate(invalid="ignore"):
        return np.asarray((counts @ total) / (counts @ size), dtype=np.float64)


def around(estimate: float, resampled: Floats, blocks: int, level: float = 0.95) -> Interval | None:
    """Return estimate -/+ t x the bootstrap's standard error, with blocks - 1 degrees of freedom.

    The t quantile and the factor sqrt(blocks / (blocks - 1)) widen what few blocks make too narrow
    (Hesterberg 2015, section 3.2). None where the resamples are not all finite.
    """
    if not np.isfinite(estimate) or not np.isfinite(resampled).all():
        return None
    error = float(np.std(resampled, ddof=1)) * np.sqrt(blocks / (blocks - 1))
    reach = float(stats.t.ppf((1 + level) / 2, blocks - 1)) * error
    return Interval(estimate, estimate - reach, estimate + reach)
