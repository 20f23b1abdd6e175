"""Durations counted in buckets 2.3 % wide, so that hours of them fit in little memory.

A bucket holds what is above the bound before it and not above its own. Bounds have four digits, so
that a page of Prometheus can name some of them exactly.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from servescope.analysis.sample import Floats, Ints

LOWEST_S, HIGHEST_S, PER_DECADE = 1e-5, 1e3, 102
_STEPS = round(PER_DECADE * math.log10(HIGHEST_S / LOWEST_S))
BOUNDS_S: Floats = np.array(
    [float(f"{LOWEST_S * 10 ** (step / PER_DECADE):.4g}") for step in range(_STEPS + 1)]
)
BUCKETS = len(BOUNDS_S) + 1
# What stands for a bucket: its middle, which is 1.2 % off at most, and the outermost bounds.
_MIDDLES_S = np.concatenate([BOUNDS_S[:1], np.sqrt(BOUNDS_S[:-1] * BOUNDS_S[1:]), BOUNDS_S[-1:]])


def bucket_of(values_s: Floats) -> Ints:
    """Return the bucket of each duration, in [0, BUCKETS): shape (values,)."""
    return np.searchsorted(BOUNDS_S, values_s, side="left").astype(np.int64, copy=False)


def quantile_of(counts: npt.NDArray[np.integer], share: float) -> Floats:
    """Return a quantile of each row of counts: shape (rows,) of (rows, BUCKETS).

    It is the smallest value with its share at or below it, right to 1.2 % between the outermost
    bounds; NaN of nothing.
    """
    up_to = np.cumsum(counts, axis=-1)
    total = up_to[..., -1]
    rank = np.maximum(1, np.ceil(share * total - 1e-9))
    found: Floats = _MIDDLES_S[(up_to < rank[..., None]).sum(axis=-1).clip(0, BUCKETS - 1)]
    return np.where(total > 0, found, np.nan)


class Buckets:
    """Durations (s) that come little by little: their counts, their sum, the longest of them."""

    def __init__(self) -> None:
        self.counts: Ints = np.zeros(BUCKETS, dtype=np.int64)
        self.sum_s = 0.0
        self.longest_s = 0.0

    def __len__(self) -> int:
        return int(self.counts.sum())

    def add(self, values_s: Floats) -> None:
        """Count durations, none of them NaN."""
        if len(values_s):
            self.counts += np.bincount(bucket_of(values_s), minlength=BUCKETS)
            self.sum_s += float(values_s.sum())
            self.longest_s = max(self.longest_s, float(values_s.max()))

    def quantile(self, share: float) -> float | None:
        """Return a quantile as `quantile_of` does, the longest at most; None of nothing."""
        if not len(self):
            return None
        return min(float(quantile_of(self.counts, share)), self.longest_s)
