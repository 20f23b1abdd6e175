"""Prompts that grow: ids of blocks drawn from a model of prefix reuse, window after window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from servescope.analysis.models.draws import Draws
from servescope.analysis.models.quantiles import Quantiles
from servescope.analysis.models.sharing import Chains, Popular
from servescope.analysis.sample import Floats, Ints

if TYPE_CHECKING:
    from servescope.analysis.models.prefixes import Prefixes

Ids = np.ndarray[tuple[int], np.dtype[np.uint64]]

_LOOKED_AT = 8  # parents that are weighed; of more, so many stand for all
_HELD_CALLS = 1 << 17  # prompts kept from window to window, the latest ones
_HELD_BLOCKS = 1 << 23  # and blocks of them: 64 MB
_PROGRAMS = 1 << 16  # programs whose last prompt is kept, the latest ones
_NEIGHBOURS = 32  # prompts on both sides of a moment that are tried for a fork
_RECENT = 1 << 14  # prompts kept for forks, gone on from or not
_MOST_TURNS = 1000  # of a chain; later ones count as this one
_TABLE = 1024  # steps of a quantile function in the loop over calls


class Growing:
    """The prompts of one stream as they grow, window after window.

    Kept from window to window are prompts that may be gone on from, at most `_HELD_CALLS` of them
    and of the last turns of `_PROGRAMS` programs, of `_HELD_BLOCKS` blocks together, the latest.
    """

    def __init__(self, model: Prefixes, draws: Draws) -> None:
        self._model = model
        self._draws = draws
        self.popular, self._flat = self._roots()
        self.born: list[float] = []
        self._sizes: list[int] = []
        self.turned: list[int] = []
        self._starts = np.zeros(0, np.int64)
        self._live: set[int] = set()
        self._programs: dict[int, int] = {}
        self.begun: dict[int, int] = {}
        self._came = 0
        self._since: tuple[float, int] | None = None
        self.first_s = 0.0

    @property
    def held_blocks(self) -> int:
        """Blocks of the prompts that are kept."""
        return sum(self._sizes)

    def _roots(self) -> tuple[list[tuple[int, int]], Ids]:
        """Return where the blocks of each popular prefix are and how many, and their ids."""
        fresh = _ids(self._draws.rng("popular prefixes"), _total(self._model.popular))
        places: list[tuple[int, int]] = []
        lists: list[Ids] = []
        used = at = 0
        for node in self._model.popular:
            own = fresh[used : used + node.blocks]
            used += node.blocks
            lists.append(np.concatenate((lists[node.parent], own)) if node.parent >= 0 else own)
            places.append((at, len(lists[-1])))
            at += len(lists[-1])
        return places, np.concatenate(lists) if lists else fresh

    def window(self, index: int, calls: pl.DataFrame) -> pl.Series:
        """Return the ids of the prefix blocks of a window's calls: list[u64], calls.height long.

        `calls` are in order of arrival with arrival_s and input_tokens, and program and turn where
        calls belong to programs; windows are asked for in order.
        """
        if not calls.height:
            return pl.Series("prefix_blocks", [], dtype=pl.List(pl.UInt64))
        rng = self._draws.rng("prefixes", index)
        sizes = self._model.blocks(calls["input_tokens"].to_numpy().astype(np.int64), rng)
        if self._model.timed:
            when = calls["arrival_s"].to_numpy().astype(np.float64)
        else:
            when = np.arange(self._came, self._came + calls.height, dtype=np.float64)
        programs = calls["program"].to_list() if "program" in calls.columns else None
        origin, shared = self._link(
            when.tolist(), sizes.tolist(), programs, self._faster(when), Random(rng.bytes(16))
        )
        flat, starts = self._grow(sizes, np.array(origin), np.array(shared), rng)
        self._came += calls.height
        self._keep(flat, starts)
        total = int(sizes.sum())
        return _as_lists(flat[len(flat) - total :], sizes)

    def shared(self, when: Floats, sizes: Ints, before: Ints) -> tuple[Ints, Ints]:
        """Return how many blocks the prompts of one window begin as an earlier one does."""
        programs = None
        if (before >= 0).any():
            home = np.arange(len(before), dtype=np.int64)
            for row in np.flatnonzero(before >= 0).tolist():
                home[row] = home[before[row]]
            programs = home.tolist()
        random = Random(self._draws.rng("calibration").bytes(16))
        faster = self._faster(when)
        origins, shared = self._link(when.tolist(), sizes.tolist(), programs, faster, random)
        return np.array(origins), np.array(shared, np.int64)

    def _faster(self, when: Floats) -> float:
        """Return the rate of calls, of this window and the one before, over that of the source."""
        begin, count = self._since or (float(when[0]), 0)
        if self._since is None:
            self.first_s = begin
        span = float(when[-1]) - begin
        self._since = (float(when[0]), len(when))
        if span <= 0 or count + len(when) < 3:
            return 1.0
        return (count + len(when)) / span / self._model.rate_rps

    def _link(
        self,
        when: list[float],
        sizes: list[int],
        programs: Sequence[int | None] | None,
        faster: float,
        random: Random,
    ) -> tuple[list[int], list[int]]:
        """Return what each call's prompt begins as, and for how many blocks.

        A number counts prompts held and then those of the window; -1 is none, and below -1 are the
        popular prefixes.
        """
        model = self._model
        draw = random.random
        held = len(self.born)
        begins, ebbs = [*model.fresh_trend.edges[1:]], [*model.fresh_trend.values, 1.0]
        born, lengths, turned = self.born, self._sizes, self.turned
        live, last = self._live, self._programs
        longest = max(max(sizes), max(lengths, default=0)) + 1
        fresh = self._fresh(longest, faster)
        chains = _Chaining.of(model.chains, longest) if model.chains else None
        anew = _Beginning.of(model, longest)
        turns = model.turns
        dropped = _table(turns.dropped) if turns else []
        kept = _table(turns.kept) if turns and turns.kept else []
        waiting: dict[int, list[int]] = {}
        if chains:
            for number in sorted(live):
                waiting.setdefault(lengths[number], []).append(number)
        origins, shareds = [-1] * len(sizes), [0] * len(sizes)
        for row, (now, size) in enumerate(zip(when, sizes, strict=True)):
            number = held + row
            born.append(now)
            lengths.append(size)
            origin, shared, turn = -1, 0, 0
            before = None
            program = programs[row] if programs is not None else None
            if program is not None:
                before = last.pop(program, None)
                last[program] = number
            if before is not None and turns and draw() < turns.share:
                most = min(size, lengths[before])
                cut = turns.cut_grown if size >= lengths[before] else turns.cut_shrunk
                if kept and draw() < cut:
                    shared = round(kept[int(draw() * _TABLE)] * most)
                else:
                    shared = max(0, most - int(dropped[int(draw() * _TABLE)]))
                origin = before
                live.discard(before)
            elif size:
                found = None
                if chains:
                    ebb = ebbs[bisect_right(begins, now - self.first_s)]
                    found = chains.find(now, size, fresh[size] * ebb, waiting, self, draw)
                if chains and found:
                    origin, at, group, place = found
                    shared = min(size, max(1, lengths[origin] - chains.drop(at, draw)))
                    group[place] = group[-1]
                    group.pop()
                    live.discard(origin)
                    turn = min(turned[origin] + 1, _MOST_TURNS)
                else:
                    origin, shared = anew.draw(now, size, program, self, draw)
                if chains and chains.by_size[size]:
                    live.add(number)
                    waiting.setdefault(size, []).append(number)
            turned.append(turn)
            origins[row], shareds[row] = origin, shared
        return origins, shareds

    def _fresh(self, longest: int, faster: float) -> list[float]:
        """Return the rate (1/s) of new conversations of 0, 1, ... longest blocks."""
        model = self._model
        counts = np.arange(longest + 1, dtype=np.float64)
        mass = model.fresh_blocks.rank(counts, 1.0) - model.fresh_blocks.rank(counts, 0.0)
        odds = np.array(model.fresh_odds.at_wholes(longest))
        rates: list[float] = (np.maximum(mass, 1e-9) * model.fresh_rps * faster * odds).tolist()
        return rates

    def nearest(self, moment: float, blocks: int) -> int:
        """Return the prompt with so many blocks or more that came nearest to a moment, or -1.

        The last one, which is to begin as another does, is left out.
        """
        if moment < self.first_s:
            return -1
        last = len(self.born) - 1
        at = bisect_right(self.born, moment, 0, last)
        for step in range(_NEIGHBOURS):
            for near in (at - 1 - step, at + step):
                if 0 <= near < last and self._sizes[near] >= blocks:
                    return near
        return -1

    def _grow(
        self, sizes: Ints, origin: Ints, shared: Ints, rng: np.random.Generator
    ) -> tuple[Ids, Ints]:
        """Return the ids of all prompts, held and new, end to end, and where each begins."""
        old = len(self._flat)
        flat = np.concatenate((self._flat, _ids(rng, int(sizes.sum()))))
        starts = np.concatenate((self._starts, old + np.cumsum(sizes) - sizes))
        roots = np.array([place for place, _ in self.popular][::-1], np.int64)
        begins = np.concatenate((starts, roots, [0]))  # so that -2 - k is popular prefix k
        rows = np.flatnonzero(shared)
        to = starts[len(self._starts) + rows]
        for at, source, count in zip(
            to.tolist(), begins[origin[rows]].tolist(), shared[rows].tolist(), strict=True
        ):
            flat[at : at + count] = flat[source : source + count]
        return flat, starts

    def _keep(self, flat: Ids, starts: Ints) -> None:
        """Forget the prompts that none goes on from any more, and the oldest beyond the limits."""
        count = len(self.born)
        sizes = np.array(self._sizes, np.int64)
        horizon = self._model.horizon_s
        wanted = np.zeros(count, np.bool_)
        wanted[list(self._live)] = True
        wanted &= np.array(self.born) >= self.born[-1] - horizon
        if self._model.forks:
            wanted[-_RECENT:] = True
        for kept in (self._programs, self.begun):
            while len(kept) > _PROGRAMS:
                kept.pop(next(iter(kept)))
        if self._model.turns:
            wanted[list(self._programs.values())] = True
        rows = np.flatnonzero(wanted)
        later = np.cumsum(sizes[rows][::-1])
        rows = rows[max(0, len(rows) - int((later <= _HELD_BLOCKS).sum())) :][-_HELD_CALLS:]
        new = dict(zip(rows.tolist(), range(len(rows)), strict=True))
        self._live = {new[number] for number in self._live if number in new}
        self._programs = {
            program: new[number] for program, number in self._programs.items() if number in new
        }
        self.born = [self.born[row] for row in rows.tolist()]
        self._sizes = sizes[rows].tolist()
        self.turned = [self.turned[row] for row in rows.tolist()]
        base = sum(size for _, size in self.popular)
        size = sizes[rows]
        self._starts = base + np.cumsum(size) - size
        place = np.repeat(starts[rows] - (np.cumsum(size) - size), size) + np.arange(size.sum())
        self._flat = np.concatenate((flat[:base], flat[place]))


@dataclass(frozen=True, slots=True)
class _Beginning:
    """How new conversations begin, as tables for the loop over calls."""

    popular: list[float]
    again: float
    forking: list[float]
    kinds: list[int]
    depths: list[list[float]]
    backs: list[float]

    @classmethod
    def of(cls, model: Prefixes, longest: int) -> _Beginning:
        forks = model.forks
        return cls(
            popular=np.cumsum([node.share for node in model.popular]).tolist(),
            again=model.again,
            forking=forks.share.at_wholes(longest) if forks else [0.0] * (longest + 1),
            kinds=forks.share.places(longest) if forks else [],
            depths=[_table(depth) for depth in forks.depth] if forks else [],
            backs=_table(forks.age_s) if forks else [],
        )

    def draw(
        self, now: float, size: int, program: int | None, held: Growing, draw: Callable[[], float]
    ) -> tuple[int, int]:
        """Draw what a new prompt begins as, and for how many blocks; numbers as in `_link`."""
        if self.forking[size] and draw() < self.forking[size]:
            moment = now - self.backs[int(draw() * _TABLE)]
            blocks = min(size, int(self.depths[self.kinds[size]][int(draw() * _TABLE)]))
            origin = held.nearest(moment, blocks)
            if origin >= 0:
                return origin, blocks
        if not self.popular:
            return -1, 0
        node = bisect_right(self.popular, draw())
        if program is not None:
            if self.again and draw() < self.again:
                node = held.begun.get(program, node)
            held.begun[program] = node
        if node == len(self.popular):
            return -1, 0
        return -2 - node, min(size, held.popular[node][1])


@dataclass(frozen=True, slots=True)
class _Chaining:
    """Chains as tables for the loop over calls."""

    ends: list[list[float]]
    rates: list[list[float]]
    by_size: list[float]
    by_turn: list[float]
    parts: list[float]
    growth: list[tuple[int, float, int]]
    drops: list[list[float]]

    @classmethod
    def of(cls, chains: Chains, longest: int) -> _Chaining:
        return cls(
            parts=list(chains.parts),
            ends=[list(hazard.edges[1:]) for hazard in chains.hazard],
            rates=[[*hazard.values, 0.0] for hazard in chains.hazard],
            by_size=chains.by_size.at_wholes(longest),
            by_turn=chains.by_turn.at_wholes(_MOST_TURNS),
            growth=[
                (grown, share, at)
                for at, (grown, share) in enumerate(zip(chains.growth, chains.shares, strict=True))
            ],
            drops=[_table(dropped) for dropped in chains.dropped],
        )

    def drop(self, at: int, draw: Callable[[], float]) -> int:
        """Draw how many blocks of the parent a prompt of this growth drops."""
        return max(int(self.drops[at][int(draw() * _TABLE)]), -self.growth[at][0])

    def find(
        self,
        now: float,
        size: int,
        fresh: float,
        waiting: dict[int, list[int]],
        held: Growing,
        draw: Callable[[], float],
    ) -> tuple[int, int, list[int], int] | None:
        """Draw the prompt that one of `size` blocks goes on from; None for a new conversation.

        Returned with the place of its growth, and its group and the place there.
        """
        by_size, by_turn = self.by_size, self.by_turn
        part = bisect_right(self.parts, now - held.first_s)
        ends, rates = self.ends[part], self.rates[part]
        born, turned = held.born, held.turned
        groups: list[tuple[list[int], int, float]] = []
        sums: list[float] = []
        many, weight = 0, 0.0
        for grown, share, at in self.growth:
            group = waiting.get(size - grown)
            if group:
                each = share * by_size[size - grown]
                many += len(group)
                weight += each * len(group)
                groups.append((group, at, each))
                sums.append(weight)
        if many > _LOOKED_AT:  # equally spaced, from the first group to the last
            looked = []
            step = weight / _LOOKED_AT
            mark = draw() * step
            begin = 0.0
            for (group, at, each), end in zip(groups, sums, strict=True):
                while mark < end:
                    looked.append(
                        (group, at, step, min(int((mark - begin) / each), len(group) - 1))
                    )
                    mark += step
                begin = end
        else:
            looked = [
                (group, at, each, place)
                for group, at, each in groups
                for place in range(len(group))
            ]
        total = fresh
        sums.clear()
        for group, _at, each, place in looked:
            number = group[place]
            rate = rates[bisect_right(ends, now - born[number])]
            total += rate * each * by_turn[turned[number]]
            sums.append(total)
        pick = draw() * total
        if pick < fresh or total == fresh:
            return None
        group, at, _each, place = looked[bisect_right(sums, pick, 0, len(sums) - 1)]
        return group[place], at, group, place


def _table(quantiles: Quantiles) -> list[float]:
    """Return the quantile function at the middles of `_TABLE` equal steps."""
    values: list[float] = quantiles.at((np.arange(_TABLE) + 0.5) / _TABLE).tolist()
    return values


def _total(popular: tuple[Popular, ...]) -> int:
    return sum(node.blocks for node in popular)


def _ids(rng: np.random.Generator, count: int) -> Ids:
    """Return ids that no other generator is likely to give: a bijection of numbers from a key on.

    The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    key = rng.integers(0, 1 << 64, dtype=np.uint64, endpoint=False)
    mixed = np.arange(count, dtype=np.uint64) + key
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _as_lists(flat: Ids, sizes: Ints) -> pl.Series:
    """Return the values end to end as lists of these sizes."""
    rows = pl.Series("row", np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)).set_sorted()
    lists = (
        pl.DataFrame({"row": rows, "prefix_blocks": flat})
        .group_by("row", maintain_order=True)
        .agg("prefix_blocks")
    )
    if lists.height < len(sizes):
        every = pl.DataFrame({"row": pl.Series(np.arange(len(sizes), dtype=np.uint32))})
        lists = every.join(lists, on="row", how="left", maintain_order="left")
        return lists["prefix_blocks"].fill_null(pl.Series([[]], dtype=pl.List(pl.UInt64)))
    return lists["prefix_blocks"]
