"""The gaps of every call, kept so that those of any part of a run can be had at once.

While they are few they stay as they are. Of more, the bucket of each is kept (two bytes, right to a
twentieth of a percent), and beside them the counts of buckets of stretches of calls, of all and of
every large class, client and the like. Then a part costs what lies at its edges.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from servescope.analysis import gaps
from servescope.analysis.cut import Group
from servescope.analysis.gaps import Taken, bucket_of, joined, middle_of
from servescope.analysis.sample import AnyInts, Bools, Floats, Ints, Ranked, Sample

Values = Floats | npt.NDArray[np.uint16]
STRETCHES = 128
# Fewer gaps than that are counted as they are asked for, in some ten milliseconds.
LARGE = 2_000_000
_AT_ONCE = 1_000_000


class Keeper:
    """Takes the gaps of calls as they are read, and says where each call stands."""

    def __init__(self) -> None:
        self._chunks, self._tokens = _Heap(), _Heap()
        self._several: list[Ints] = []

    def add(self, taken: Taken, at: Ints) -> None:
        """Take the gaps of calls, and the place of each."""
        sizes = np.where(taken.answered, taken.sizes, 0)
        of_answered = np.repeat(taken.answered, taken.sizes)
        self._chunks.add(taken.gaps if of_answered.all() else taken.gaps[of_answered], sizes, at)
        if taken.several.any():
            self._several.append(at[taken.several])
            lists = taken.tokens.list.drop_nulls()
            flat = lists.drop_nulls().explode(empty_as_null=False).to_numpy()
            self._tokens.add(
                flat,
                lists.list.len().fill_null(0).to_numpy().astype(np.int64),
                at[taken.several],
            )

    def join(self, other: Keeper) -> None:
        """Take what another one took."""
        self._chunks.join(other._chunks)
        self._tokens.join(other._tokens)
        self._several += other._several

    def kept(self, calls: int) -> Kept:
        """Return the gaps of so many calls, in the order of their places."""
        several = np.zeros(calls, np.bool_)
        for at in self._several:
            several[at] = True
        return Kept(self._chunks.stream(calls), self._tokens.stream(calls), several)


class Kept:
    """The gaps of calls in their order: between chunks, and between tokens where that differs."""

    def __init__(self, chunks: Stream, tokens: Stream, several: Bools) -> None:
        self._chunks, self._tokens, self._several = chunks, tokens, several

    @property
    def exact(self) -> bool:
        """Whether the gaps are as they were, and not in buckets."""
        return isinstance(self._chunks, Exact) and isinstance(self._tokens, Exact)

    def sample(
        self,
        name: str,
        chosen: Bools,
        block: AnyInts,
        blocks: int,
        groups: tuple[Group, ...] = (),
    ) -> Sample:
        """Return the values of tbt or icl of chosen calls, by the block of each call.

        All of the chosen calls are of every group of `groups`.
        """
        if name == "icl":
            return self._chunks.sample(chosen, block, blocks, groups)
        if not (chosen & self._several).any():
            return self._chunks.sample(chosen, block, blocks, groups)
        return joined(
            self._chunks.sample(chosen & ~self._several, block, blocks, groups),
            self._tokens.sample(chosen, block, blocks, groups),
        )

    def count(self, groups: Mapping[Group, Bools]) -> None:
        """Count the buckets of large groups beforehand, by which calls are of each."""
        for stream in (self._chunks, self._tokens):
            if isinstance(stream, Counted):
                for group, members in groups.items():
                    stream.count(group, members)


class _Heap:
    """Values of calls in the order in which they were read."""

    def __init__(self) -> None:
        self._parts: list[tuple[Values, Ints, Ints]] = []
        self._held = 0
        self._exact = True

    def add(self, values: Values, sizes: Ints, at: Ints) -> None:
        """Take the values of calls, one call after the other: how many, and the place of each."""
        self._held += len(values)
        self._parts.append((values if self._exact else _in_buckets(values), sizes, at))
        if self._exact and self._held > gaps.EXACT_VALUES:
            self._exact = False
            self._parts = [(_in_buckets(v), sizes, at) for v, sizes, at in self._parts]

    def join(self, other: _Heap) -> None:
        """Take what another one took."""
        for part in other._parts:
            self.add(*part)

    def stream(self, calls: int) -> Stream:
        """Put the values in the order of calls."""
        size = np.zeros(calls, np.int64)
        for _, sizes, at in self._parts:
            size[at] = sizes
        ends = np.cumsum(size)
        begins = ends - size
        total = int(size.sum())
        flat: Values = np.empty(total, np.float64) if self._exact else np.empty(total, np.uint16)
        while self._parts:  # what was put in its place is let go
            values, sizes, at = self._parts.pop()
            flat[_places(begins[at], sizes)] = values
        if flat.dtype == np.float64:
            return Exact(flat.astype(np.float64, copy=False), size)
        return Counted(flat.astype(np.uint16, copy=False), begins, size)


class Exact:
    """Few values: each as it is, in order."""

    def __init__(self, values: Floats, size: Ints) -> None:
        owner = np.repeat(np.arange(len(size), dtype=np.int32), size)
        self._ranked = Ranked.of(values, owner)

    def sample(
        self, chosen: Bools, block: AnyInts, blocks: int, groups: tuple[Group, ...]
    ) -> Sample:
        """Return the values of chosen calls."""
        return self._ranked.sample(chosen, block, blocks)


class Counted:
    """Many values: the bucket of each, and the counts of buckets of stretches of calls.

    The array that is given is kept, each bucket renumbered.
    """

    def __init__(self, buckets: npt.NDArray[np.uint16], begins: Ints, size: Ints) -> None:
        # few of all buckets are in use, and only those have a number
        used = np.zeros(1 << 16, np.bool_)
        used[buckets] = True
        self._used = np.flatnonzero(used).astype(np.int64)
        number = np.zeros(1 << 16, np.uint16)
        number[self._used] = np.arange(len(self._used))
        for first in range(0, len(buckets), _AT_ONCE):
            part = buckets[first : first + _AT_ONCE]
            part[:] = number[part]
        self._number = buckets
        self._begins, self._size = begins, size
        calls = len(size)
        self._edges = np.unique(np.linspace(0, calls, STRETCHES + 1).astype(np.int64))
        self._members: dict[Group | None, Bools] = {}
        self._counts: dict[Group | None, npt.NDArray[np.int32]] = {}
        self._count(None, np.ones(calls, np.bool_))

    def count(self, group: Group, members: Bools) -> None:
        """Keep the counts of a group if it is large, by which calls are of it."""
        if LARGE < self._size[members].sum() < self._size.sum():
            self._count(group, members)

    def sample(
        self, chosen: Bools, block: AnyInts, blocks: int, groups: tuple[Group, ...]
    ) -> Sample:
        """Return the values of chosen calls, each the middle of its bucket."""
        known = [group for group in groups if group in self._members]
        group = min(known, key=lambda g: int(self._members[g].sum()), default=None)
        if blocks == 1:
            counts = self._counts_of(chosen, group)[None, :]
        else:
            parts = [self._counts_of(chosen & (block == n), group) for n in range(blocks)]
            counts = np.stack(parts)
        within, number = np.nonzero(counts)
        values = middle_of(self._used[number])
        return Sample.of(values, within, blocks, counts[within, number])

    def _count(self, group: Group | None, members: Bools) -> None:
        stretches = zip(self._edges[:-1].tolist(), self._edges[1:].tolist(), strict=True)
        counts = [self._directly(a + np.flatnonzero(members[a:b])) for a, b in stretches]
        self._members[group] = members
        self._counts[group] = np.array(counts, np.int32).reshape(-1, len(self._used))

    def _counts_of(self, chosen: Bools, group: Group | None) -> Ints:
        """Return how many values each bucket in use holds of calls that are all of a group."""
        members, counts = self._members[group], self._counts[group]
        if not len(counts):
            return np.zeros(len(self._used), np.int64)
        asked, there = (
            np.add.reduceat(m, self._edges[:-1], dtype=np.int64) for m in (chosen, members)
        )
        found: Ints = counts[(asked == there) & (there > 0)].sum(axis=0, dtype=np.int64)
        for n in np.flatnonzero((asked > 0) & (asked < there)).tolist():
            first, last = self._edges[n], self._edges[n + 1]
            part = chosen[first:last]
            if 2 * asked[n] <= there[n]:
                found += self._directly(first + np.flatnonzero(part))
            else:  # fewer are left out than are in it
                rest = members[first:last] & ~part
                found += counts[n] - self._directly(first + np.flatnonzero(rest))
        return found

    def _directly(self, calls: Ints) -> Ints:
        """Count the buckets of calls, by their places in ascending order."""
        numbers = self._number[_places(self._begins[calls], self._size[calls])]
        return np.bincount(numbers, minlength=len(self._used))


Stream = Exact | Counted


def _in_buckets(values: Values) -> Values:
    return values if values.dtype == np.uint16 else bucket_of(values).astype(np.uint16)  # type: ignore[arg-type]


def _places(begins: Ints, sizes: Ints) -> slice | Ints:
    """Return where the values of calls stand, whose first one's place and number are known."""
    ends = np.cumsum(sizes)
    if not len(sizes) or (begins[1:] == begins[0] + ends[:-1]).all():
        first = int(begins[0]) if len(sizes) else 0
        return slice(first, first + int(sizes.sum()))
    return np.repeat(begins - (ends - sizes), sizes) + np.arange(ends[-1])
