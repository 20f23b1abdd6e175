"""Values of a metric in order, each with its weight and the stretch of time it belongs to.

Millions of values that repeat, or nearly do, stand as one with a weight, so that whatever is
computed from a sample costs what its distinct values cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
AnyInts = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


def in_sections(count: int, many: int) -> Ints:
    """Return the section in [0, many) of each of `count` things in their order: shape (count,)."""
    return np.arange(count) * many // max(1, count)


def sums_in(section: Ints, many: int, *columns: Floats) -> Floats:
    """Return the sum of each column in each of `many` sections: shape (sections, columns)."""
    sums = [np.bincount(section, column, many) for column in columns]
    return np.stack(sums, axis=-1).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """`values` ascending, shape (n,); `weights` how many each stands for; `block` in [0, blocks).

    Blocks are stretches of time in order, of which whole programs are parts.
    """

    values: Floats
    weights: Ints
    block: Ints
    blocks: int
    count: int = field(init=False)

    def __post_init__(self) -> None:
        """Count once what is asked at every step."""
        object.__setattr__(self, "count", int(self.weights.sum()))

    @classmethod
    def of(
        cls,
        values: npt.ArrayLike,
        block: npt.ArrayLike | None = None,
        blocks: int = 1,
        weights: npt.ArrayLike | None = None,
    ) -> Sample:
        """Put values in order; without `block` all are in one, without `weights` each counts once.

        Raises ValueError for a value that is no number, or a block that is not in [0, blocks).
        """
        unsorted = np.asarray(values, dtype=np.float64)
        if np.isnan(unsorted).any():
            raise ValueError("a sample holds what is no number")
        ones, zeros = np.ones(len(unsorted), np.int64), np.zeros(len(unsorted), np.int64)
        if block is None and weights is None:
            return cls(np.sort(unsorted), ones, zeros, blocks)
        order = np.argsort(unsorted)
        weight = ones if weights is None else np.asarray(weights, np.int64)
        within = zeros if block is None else np.asarray(block, np.int64)
        if len(within) and not (within.min() >= 0 and within.max() < blocks):
            raise ValueError(f"a block is not in [0, {blocks})")
        return cls(unsorted[order], weight[order], within[order], blocks)

    def __len__(self) -> int:
        """How many values it stands for."""
        return self.count

    @property
    def single(self) -> bool:
        """Whether each value stands for itself alone, so that its rank is its place."""
        return len(self) == len(self.values)

    def mean(self) -> float | None:
        """Return the mean; None of nothing."""
        return float(np.average(self.values, weights=self.weights)) if len(self) else None

    def sum(self) -> float:
        """Return the sum; 0 of nothing."""
        return float(np.dot(self.values, self.weights))

    def std(self, *, of_sample: bool = False) -> float | None:
        """Return the standard deviation: the population's, or the sample's estimate of it.

        None of nothing, and the estimate of one value.
        """
        count = len(self)
        if count <= of_sample:
            return None
        off = self.values - np.average(self.values, weights=self.weights)
        return float(np.sqrt(np.dot(off * off, self.weights) / (count - of_sample)))

    def min(self) -> float | None:
        """Return the smallest value; None of nothing."""
        return float(self.values[0]) if len(self.values) else None

    def max(self) -> float | None:
        """Return the largest value; None of nothing."""
        return float(self.values[-1]) if len(self.values) else None

    def quantile(self, q: float) -> float | None:
        """Return the smallest value with at least the share q at or below it; None of nothing."""
        if not len(self):
            return None
        rank = _rank(len(self), q)
        at = rank - 1 if self.single else np.searchsorted(np.cumsum(self.weights), rank)
        return float(self.values[at])

    def percentile(
        self, percent: float, method: Literal["linear", "lower", "order"] = "linear"
    ) -> float | None:
        """Return a percentile as other tools take it; None of nothing.

        `linear` (numpy's and pandas' default) interpolates between the two values around the place
        percent / 100 of the way from the first to the last, `lower` takes the one below it, and
        `order` is the order statistic of `quantile`.
        """
        if not len(self):
            return None
        if method == "order":
            return self.quantile(percent / 100)
        place = (len(self) - 1) * (percent / 100)
        below = int(place)
        upto = np.cumsum(self.weights)
        low, high = (
            float(self.values[np.searchsorted(upto, min(rank, len(self) - 1), side="right")])
            for rank in (below, below + 1)
        )
        return low if method == "lower" else low + (place - below) * (high - low)

    def share_above(self, value: float) -> float | None:
        """Return the share of values above `value`; None of nothing."""
        above = self.weights[np.searchsorted(self.values, value, side="right") :].sum()
        return float(above) / len(self) if len(self) else None

    def sizes(self) -> Ints:
        """Return how many values each block holds: shape (blocks,)."""
        return self.sizes_below(len(self.values))

    def sizes_below(self, place: int) -> Ints:
        """Return how many of the values before a place each block holds: shape (blocks,)."""
        weights = None if self.single else self.weights[:place]
        return np.bincount(self.block[:place], weights, self.blocks).astype(np.int64)

    def block_means(self) -> Floats:
        """Return the mean of each block: shape (blocks,); NaN in an empty one."""
        total = np.bincount(self.block, self.weights * self.values, self.blocks)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / self.sizes(), dtype=np.float64)

    def block_quantiles(self, *quantiles: float) -> Floats:
        """Return quantiles of each block: shape (quantiles, blocks); NaN in an empty one."""
        found = np.full((len(quantiles), self.blocks), np.nan)
        # a stable sort of small integers is a few passes, and keeps the values of a block in order
        order = np.argsort(self.block.astype(np.int16), kind="stable")
        ends = np.cumsum(np.bincount(self.block, minlength=self.blocks))
        for number, inside in enumerate(np.split(order, ends[:-1])):
            if len(inside):
                upto = None if self.single else np.cumsum(self.weights[inside])
                ranks = [_rank(len(inside) if upto is None else upto[-1], q) for q in quantiles]
                at = np.array(ranks) - 1 if upto is None else np.searchsorted(upto, ranks)
                found[:, number] = self.values[inside[at]]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Values in order, each with its `owner`: the row of a table that it is of. Shape (n,) both.

    A sample of some of the rows is a part of it, and needs no sorting.
    """

    values: Floats
    owner: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: Floats, owner: npt.ArrayLike | None = None) -> Ranked:
        """Put values in order, without those that are NaN; without `owner` each is of its row."""
        known = np.flatnonzero(~np.isnan(values))
        order = known[np.argsort(values[known])].astype(np.int32)
        return cls(values[order], order if owner is None else np.asarray(owner, np.int32)[order])

    def sample(self, chosen: Bools | None, block: AnyInts | None = None, blocks: int = 1) -> Sample:
        """Return the values of the chosen rows, None for all; `block` is that of each row."""
        values, owner = self.values, self.owner
        if chosen is not None:
            kept = np.flatnonzero(chosen.take(owner, mode="clip"))  # a third of a mask's time
            values, owner = values[kept], owner[kept] if block is not None else owner
        ones, zeros = (np.broadcast_to(np.int64(n), len(values)) for n in (1, 0))  # no memory
        within = zeros if block is None or blocks == 1 else block[owner].astype(np.int64)
        return Sample(values, ones, within, blocks)


def _rank(count: int, q: float) -> int:
    """Return which of so many values in order has the share q at or below it, from 1 on."""
    # a share such as 0.07 of 100 is 7.000000000000001, and means the seventh value
    return max(1, int(np.ceil(q * count - 1e-9)))
