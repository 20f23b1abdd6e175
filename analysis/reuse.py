"""What a prefix cache would find: exactly, for every size of cache, in one pass over the calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from servescope.analysis.sample import Ints

Blocks = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(eq=False)
class Reuse:
    """Prompts in the order in which they come, and what each finds of the earlier ones.

    All of them are added before anything is asked.

    A prompt is the ids of its prefix blocks, as numbers from 0. It hits the leading run of its
    blocks that were seen before. In a cache of C blocks under LRU it hits those of them whose stack
    distance is below C: how many distinct blocks were touched since, a prompt touching its own from
    the last to the first, so that the root of a prefix outlives its leaves (as vLLM frees blocks).

    `hit_blocks`, `blocks` and `age` (calls back to the latest prompt that shares anything; -1 for
    none) have an entry a prompt; `distances` and `lengths` one a run of blocks that were last
    touched by the same prompt: run k hits from a cache of distances[k] + 1 blocks on, and each next
    block of it from one more.
    """

    most_blocks: int
    hit_blocks: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    age: list[int] = field(default_factory=list)
    distances: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = np.full(self.most_blocks, -1, np.int64)
        self._visits = np.zeros(self.most_blocks, np.int32)
        self._parent = np.full(self.most_blocks, -2, np.int64)
        self._tree = [0] * 1024  # Fenwick's: how many blocks were last touched by each prompt
        self._held = 0

    def add_all(self, prompts: Iterable[Blocks]) -> Reuse:
        """Add prompts in order."""
        for prompt in prompts:
            self.add(prompt)
        return self

    def add(self, ids: Blocks) -> None:
        """Add the next prompt."""
        now = len(self.blocks)
        last = self._last[ids]
        hit = leading(last >= 0)
        self.blocks.append(len(ids))
        self.hit_blocks.append(hit)
        self.age.append(now - int(last[0]) if hit else -1)
        if hit:
            found = last[:hit]
            edges = np.flatnonzero(np.diff(found, prepend=-1))
            for first, end in zip(edges.tolist(), [*edges.tolist()[1:], hit], strict=True):
                self.distances.append(self._held - self._upto(int(found[first])))
                self.lengths.append(end - first)
        # what is touched again, behind a gap as well, moves to this prompt
        again = last[last >= 0]
        if len(again):
            order = np.sort(again)
            steps = np.flatnonzero(np.diff(order, prepend=-1))
            sizes = np.diff(steps, append=len(order))
            for prompt, size in zip(order[steps].tolist(), sizes.tolist(), strict=True):
                self._put(prompt, -size)
        fresh = ids if hit == 0 else ids[hit:]
        if len(fresh):
            unknown = self._parent[fresh] == -2
            before = np.concatenate((ids[hit - 1 : hit] if hit else [-1], fresh[:-1]))
            self._parent[fresh[unknown]] = before[unknown]
        self._last[ids] = now
        self._visits[ids] += 1
        self._put(now, len(ids))

    def _put(self, prompt: int, size: int) -> None:
        self._held += size
        while prompt >= len(self._tree) - 1:
            self._grow()
        at = prompt + 1
        while at < len(self._tree):
            self._tree[at] += size
            at += at & -at

    def _grow(self) -> None:
        """Double the tree; the node at the old end holds the sum of all that is below it."""
        old = len(self._tree)
        self._tree += [0] * old
        self._tree[old] = self._prefix(old - 1)

    def _prefix(self, at: int) -> int:
        total = 0
        while at > 0:
            total += self._tree[at]
            at -= at & -at
        return total

    def _upto(self, prompt: int) -> int:
        """Return how many blocks were last touched by this prompt or an earlier one."""
        return self._prefix(prompt + 1)

    # --- what was found --------------------------------------------------------------------------

    @property
    def hit_rate(self) -> float | None:
        """Share of all blocks that an endless cache has; None without blocks."""
        total = sum(self.blocks)
        return sum(self.hit_blocks) / total if total else None

    @property
    def distinct(self) -> int:
        """Distinct blocks: what an endless cache holds."""
        return int((self._visits > 0).sum())

    def hits(self, cache_blocks: Ints) -> Ints:
        """Return how many blocks LRU caches of these sizes hit, exactly: shape (sizes,)."""
        start, end = self._runs
        # the hits of a run grow by one a block of cache between its start and its end
        begun = np.searchsorted(start, cache_blocks, side="left")
        over = np.searchsorted(end, cache_blocks, side="left")
        first = np.concatenate(([0], np.cumsum(start)))[begun]
        last = np.concatenate(([0], np.cumsum(end)))[over]
        return np.asarray(cache_blocks * (begun - over) - first + last)

    @cached_property
    def _runs(self) -> tuple[Ints, Ints]:
        start = np.array(self.distances, np.int64)
        return np.sort(start), np.sort(start + np.array(self.lengths, np.int64))

    def size_for(self, share: float) -> int | None:
        """Return the smallest LRU cache with this share of the hits of an endless one."""
        wanted = share * sum(self.hit_blocks)
        if not wanted:
            return None
        low, high = 1, self.distinct
        while low < high:
            middle = (low + high) // 2
            enough = self.hits(np.array([middle]))[0] >= wanted
            low, high = (low, middle) if enough else (middle + 1, high)
        return low

    def curve(self) -> pl.DataFrame:
        """Return the hit rate of LRU caches of 60 sizes up to the distinct blocks.

        Columns: cache_blocks, hit_rate.
        """
        total = sum(self.blocks)
        if not total:
            return pl.DataFrame(schema={"cache_blocks": pl.Int64, "hit_rate": pl.Float64})
        sizes = np.unique(np.geomspace(1, max(2, self.distinct), 60).round().astype(np.int64))
        return pl.DataFrame({"cache_blocks": sizes, "hit_rate": self.hits(sizes) / total})

    def popularity(self) -> Ints:
        """Return how often each distinct block was asked for, most asked first."""
        return np.sort(self._visits[self._visits > 0].astype(np.int64))[::-1]

    def tree(self) -> dict[str, float]:
        """Return the shape of the tree of prefixes: nodes, roots, leaves, forks, mean branching.

        A fork is a block with several different next ones; `branching` is how many those have, and
        `shared` the share of blocks that were asked for more than once.
        """
        parents = self._parent[self._visits > 0]
        children = np.bincount(parents[parents >= 0], minlength=1)
        inner = children[children > 0]
        nodes = len(parents)
        forks = inner[inner > 1]
        return {
            "nodes": float(nodes),
            "roots": float((parents == -1).sum()),
            "leaves": float(nodes - len(inner)),
            "forks": float(len(forks)),
            "branching": float(forks.mean()) if len(forks) else 0.0,
            "shared": float((self._visits > 1).sum() / nodes) if nodes else 0.0,
        }


def leading(seen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """Return the length of the leading run of True."""
    if not len(seen) or not seen[0]:
        return 0
    first = int(seen.argmin())
    return first if not seen[first] else len(seen)


def numbered(ids: Ints) -> tuple[Ints, int]:
    """Return ids as numbers from 0 in their order, and how many different ones there are."""
    if not len(ids):
        return ids.astype(np.int64), 0
    if int(ids.max()) < 4 * len(ids) + 1_000_000:  # a table of flags is far faster than a sort
        held = np.zeros(int(ids.max()) + 1, np.int32)
        held[ids] = 1
        number = np.cumsum(held, dtype=np.int32) - 1
        return number[ids].astype(np.int64), int(number[-1]) + 1
    distinct, place = np.unique(ids, return_inverse=True)
    return place, len(distinct)
