"""Gaps between chunks and tokens on their way to samples, in bounded memory.

Hundreds of millions of gaps do not fit in memory: they are held while they are few, and then
counted in buckets that are right to a twentieth of a percent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from servescope.analysis.metrics import ANSWERED, CHUNK_IS_TOKEN, METRICS
from servescope.analysis.sample import Floats, Ints, Sample

EXACT_VALUES = 4_000_000
# A bucket is a double without its last 42 bits: 1,024 buckets for each power of two, so that its
# middle is at most a twentieth of a percent off. They reach from 2^-40 s to 2^23 s, which two bytes
# can number.
_DROPPED_BITS, _LOWEST, _HIGHEST = 42, -40, 23
_BUCKETS = (_HIGHEST - _LOWEST) << 10
_FIRST_KEY = (1023 + _LOWEST) << 10
_ONE_A_CHUNK = CHUNK_IS_TOKEN.fill_null(False)


def _gaps_of(moments: pl.Series) -> tuple[Floats, Ints]:
    """Return the gaps of all calls, one call after the other, and how many each has.

    They are those of the metric `icl`, in a tenth of the time that its expression takes.
    """
    moments = moments.list.drop_nulls() if moments.explode().null_count() else moments
    sizes = moments.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = moments.drop_nulls().explode(empty_as_null=False).to_numpy()
    if len(flat) < 2:
        return np.empty(0), np.zeros(len(sizes), np.int64)
    within = np.ones(len(flat) - 1, np.bool_)
    ends = np.cumsum(sizes)[:-1]
    within[ends[(ends > 0) & (ends < len(flat))] - 1] = False  # from one call to the next
    return np.diff(flat)[within], (sizes - 1).clip(0)


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The gaps between the chunks of a batch of calls, one call after the other, `sizes` of each.

    Of calls that are `several` a chunk is not a token; `tokens` holds the gaps between theirs.
    """

    gaps: Floats
    sizes: Ints
    answered: npt.NDArray[np.bool_]
    several: npt.NDArray[np.bool_]
    tokens: pl.Series

    @classmethod
    def of(cls, batch: pl.DataFrame) -> Taken:
        """Take the gaps of calls with their lists."""
        answered, same = (
            batch.select(each).to_series().to_numpy() for each in (ANSWERED, _ONE_A_CHUNK)
        )
        several = answered & ~same
        tokens = batch.filter(several).select(METRICS["tbt"].expr).to_series()
        return cls(*_gaps_of(batch["chunk_s"]), answered, several, tokens)

    def longest(self) -> Floats:
        """Return the longest gap of each answered call, NaN where it has none: shape (calls,)."""
        longest = np.full(len(self.sizes), np.nan)
        some = self.sizes > 0
        if len(self.gaps):
            begins = (np.cumsum(self.sizes) - self.sizes)[some]
            longest[some] = np.maximum.reduceat(self.gaps, begins)
        longest[~self.answered] = np.nan
        return longest


class Gaps:
    """The gaps of calls on their way to samples: between chunks, and between tokens."""

    def __init__(self, blocks: int) -> None:
        # where a chunk is a token, a gap between chunks is one between tokens
        self._both, self._chunks, self._tokens = (Tally(blocks) for _ in range(3))

    def add(self, taken: Taken, block: Ints) -> None:
        """Take the gaps of calls, and the block of each, -1 for one that does not count."""
        counts = taken.answered & (block >= 0)
        one_a_chunk = np.where(counts & ~taken.several, block, -1)
        self._both.add(taken.gaps, taken.sizes, one_a_chunk)
        several = counts & taken.several
        if several.any():
            self._chunks.add(taken.gaps, taken.sizes, np.where(several, block, -1))
            self._tokens.add_lists(taken.tokens, block[taken.several])

    def join(self, other: Gaps) -> None:
        """Take what another one took."""
        self._both.join(other._both)
        self._chunks.join(other._chunks)
        self._tokens.join(other._tokens)

    def samples(self) -> dict[str, Sample]:
        """Return the samples by the names of their metrics."""
        both = self._both.sample()
        return {
            "tbt": joined(both, self._tokens.sample()),
            "icl": joined(both, self._chunks.sample()),
        }


class Tally:
    """Values on their way to a sample: as they are while they are few, then counted in buckets."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._held: list[tuple[Floats, int]] = []
        self._size = 0
        self._counts = np.empty((0, 0), dtype=np.int64)

    def add(self, values: Floats, sizes: Ints, block: Ints) -> None:
        """Take the values of calls, one call after the other: how many, and the block of each.

        Those of block -1 are left out.
        """
        ends = np.cumsum(sizes)
        # neighbouring calls are mostly of one block, whose values need no name of it each
        lasts = np.flatnonzero(np.diff(block, append=-2))
        begin = 0
        for last in lasts:
            end = int(ends[last])
            if end > begin and block[last] >= 0:
                self._hold(values[begin:end], int(block[last]))
            begin = end

    def add_lists(self, lists: pl.Series, block: Ints) -> None:
        """Take a list of values a call, and the block of each; what is null is left out."""
        lists = lists.list.drop_nulls()
        flat = lists.drop_nulls().explode(empty_as_null=False)
        self.add(flat.to_numpy(), lists.list.len().fill_null(0).to_numpy().astype(np.int64), block)

    def join(self, other: Tally) -> None:
        """Take what another tally of the same blocks took."""
        for values, block in other._held:
            self._hold(values, block)
        if other._counts.size:
            self._count()
            self._counts += other._counts

    def _hold(self, values: Floats, block: int) -> None:
        self._held.append((values, block))
        self._size += len(values)
        if self._counts.size or self._size > EXACT_VALUES:
            self._count()

    def _count(self) -> None:
        if not self._counts.size:
            self._counts = np.zeros((self._blocks, _BUCKETS + 1), dtype=np.int64)
        for values, block in self._held:
            self._counts[block] += np.bincount(bucket_of(values), minlength=_BUCKETS + 1)
        self._held.clear()

    def sample(self) -> Sample:
        """Return what was taken."""
        if not self._counts.size:
            values = np.concatenate([np.empty(0), *(values for values, _ in self._held)])
            blocks = [block for _, block in self._held]
            block = np.repeat(blocks, [len(v) for v, _ in self._held]).astype(np.int64)
            return Sample.of(values, block, self._blocks)
        block, key = np.nonzero(self._counts)
        return Sample.of(middle_of(key), block, self._blocks, self._counts[block, key])


def bucket_of(values: Floats) -> Ints:
    """Return the bucket of each value (s), which two bytes can hold; negative ones are in 0."""
    # what is negative is so as a whole number, too: the first bucket is no time at all
    key = values.view(np.int64) >> _DROPPED_BITS
    key -= _FIRST_KEY - 1
    return np.clip(key, 0, _BUCKETS, out=key)


def middle_of(bucket: Ints) -> Floats:
    """Return the middle of each bucket (s)."""
    low = (bucket - 1 + _FIRST_KEY) << _DROPPED_BITS
    middle = (low + (1 << (_DROPPED_BITS - 1))).view(np.float64)
    return np.where(bucket == 0, 0.0, middle)


def joined(a: Sample, b: Sample) -> Sample:
    """Put two samples of the same blocks into one."""
    if not len(b.values):
        return a
    return Sample.of(
        np.concatenate([a.values, b.values]),
        np.concatenate([a.block, b.block]),
        a.blocks,
        np.concatenate([a.weights, b.weights]),
    )
