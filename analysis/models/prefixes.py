"""Which prompts share their first blocks: conversations that go on, popular prefixes, and forks.

Who goes on from whom is a marked branching process (Hawkes and Oakes 1974): every earlier prompt
calls for a next one at a rate that falls with its age, of a length near its own, beside the rate
of new conversations. Of a call that has arrived, with its length, the origin is drawn in proportion
to these rates (the stochastic declustering of Zhuang, Ogata and Vere-Jones 2002).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import msgspec
import numpy as np
import polars as pl

from servescope.analysis.aspects import prefixes as aspect
from servescope.analysis.demand import Demand
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, all_rounded, rounded
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError
from servescope.traces.trace import Trace

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Ids = np.ndarray[tuple[int], np.dtype[np.uint64]]

_POPULAR = 5  # times min_count: visits of a prefix that is there for all
_GROWTH = 24  # blocks that a next prompt is longer or shorter, at most, and still goes on
_BINS = 16  # of ages and of lengths, at most
_LOOKED_AT = 8  # parents of a length that are weighed; of more, a part drawn for all
_HELD_CALLS = 1 << 17  # prompts kept from window to window, the latest ones
_HELD_BLOCKS = 1 << 23  # and blocks of them: 64 MB
_PROGRAMS = 1 << 16  # programs whose last prompt is kept, the latest ones
_NEIGHBOURS = 32  # prompts on both sides of a moment that are tried for a fork
_RECENT = 1 << 14  # prompts kept for forks, gone on from or not
_SHORT = 8  # blocks dropped from which on a prompt counts as cut
_PARTS = 8  # of a trace, at most, between which rates differ
_CALIBRATED = 25_000  # calls that are drawn again to calibrate, the first ones
_DRAWN = 60_000  # calls drawn for it in all
_REDRAWS = (3, 24)  # times, at least and at most
_BY_BLOCKS = 0.75  # power of the shared blocks that ages count by there: between calls and blocks
_FEW = 0.2  # share of the prompts that go on, below which rare growths are left out
_ROUNDS = 20
_MOST_TURNS = 1000  # of a chain; later ones count as this one
_TABLE = 1024  # steps of a quantile function in the loop over calls


class Steps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A function that is constant between `edges`: values[k] from edges[k] to edges[k + 1]."""

    edges: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.values) + 1 or list(self.edges) != sorted(self.edges):
            raise InputError(
                "The edges and values of a step function do not match.",
                "Give ascending edges, one more than values.",
            )

    def at_wholes(self, most: int) -> list[float]:
        """Return the values at 0, 1, ... most; outside the edges those of the nearest step."""
        return [self.values[place] for place in self.places(most)]

    def places(self, most: int) -> list[int]:
        """Return the steps that 0, 1, ... most are on, or nearest to."""
        place = np.searchsorted(self.edges, np.arange(most + 1), side="right") - 1
        steps: list[int] = np.clip(place, 0, len(self.values) - 1).tolist()
        return steps


class Popular(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A prefix that new conversations begin with: `blocks` more than its parent's (-1 for none).

    `share` of the new conversations leave the tree of popular prefixes here.
    """

    parent: int
    blocks: int
    share: float


class Forks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """New conversations that begin as an earlier prompt does, popular or not.

    They are a `share` of the new ones, by the blocks of the prompt; those of the k-th class share
    `depth[k]` blocks with a prompt `age_s` back.
    """

    share: Steps
    depth: tuple[Quantiles, ...]
    age_s: Quantiles


class Chains(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prompts that go on from an earlier one, each at most once.

    `hazard[k]` is the rate (1/s) at which a prompt of an age (s) is gone on from in the k-th of the
    `parts` (their ends, s from the first call) of the trace, the last at any later time. It is
    multiplied by
    `by_size`, of the prompt's blocks, and by `by_turn`, of how many prompts it went on from itself.
    A next prompt is `growth` blocks longer with the chance in `shares`, and keeps all but `dropped`
    of the blocks before.
    """

    parts: tuple[float, ...]
    hazard: tuple[Steps, ...]
    by_size: Steps
    by_turn: Steps
    middle_s: float
    growth: tuple[int, ...]
    shares: tuple[float, ...]
    dropped: tuple[Quantiles, ...]


class Turns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a next call of a program has of the call before.

    A `share` of them keep all but `dropped` blocks, `cut` of them only the part `kept` of those;
    the rest begin as a new conversation does.
    """

    share: float
    dropped: Quantiles
    cut_grown: float
    cut_shrunk: float
    kept: Quantiles | None


class Prefixes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How prompts share their first blocks, by rates and shares alone: no id of the source.

    `fresh` is the rate (1/s) of new conversations by the blocks of their prompt, a block each; it
    grows with the rate of calls over `rate_rps`. `counted` gives the blocks of a prompt where they
    do not follow from its tokens: quantiles in equal groups of calls by tokens, ends in `steps`.
    """

    block_tokens: int | None
    rule: str
    timed: bool
    rate_rps: float
    hit_rate: float
    reusing: float
    steps: tuple[float, ...]
    counted: tuple[Quantiles, ...]
    fresh_rps: float
    fresh_blocks: Quantiles
    fresh_trend: Steps
    fresh_odds: Steps
    popular: tuple[Popular, ...]
    again: float
    forks: Forks | None
    chains: Chains | None
    turns: Turns | None

    @classmethod
    def fit(cls, source: Trace | Demand, min_count: int = MIN_COUNT) -> Prefixes:
        """Learn from a trace; raises InputError of one without prefix blocks or with too few."""
        seen = _Seen.of(source if isinstance(source, Demand) else Demand.of(source))
        if len(seen.sizes) < min_count:
            raise InputError(
                f"Of only {len(seen.sizes)} calls prefix blocks are known.",
                f"A model of prefixes rests on {min_count} calls at least.",
            )
        return _fitted(seen, min_count)

    def begin(self, draws: Draws) -> Growing:
        """Return prompts before the first window."""
        return Growing(self, draws)

    @property
    def horizon_s(self) -> float:
        """Age from which on no prompt is gone on from."""
        if self.chains is None:
            return 0.0
        return max(hazard.edges[-1] for hazard in self.chains.hazard)

    def blocks(self, input_tokens: Ints, rng: np.random.Generator) -> Ints:
        """Return how many blocks prompts of these lengths have: shape of input_tokens."""
        if self.block_tokens and not self.counted:
            up = self.block_tokens - 1 if self.rule == "ceil" else 0
            return np.asarray((input_tokens + up) // self.block_tokens)
        group = np.searchsorted(self.steps, input_tokens)
        sizes = np.zeros(len(input_tokens), np.int64)
        for at, counted in enumerate(self.counted):
            here = group == at
            sizes[here] = counted.sample(rng, int(here.sum())).astype(np.int64)
        return sizes

    def summary(self) -> list[str]:
        """Say what was learnt."""
        says = [
            f"{self.reusing:.1%} of the prompts begin as an earlier one does; an endless cache has"
            f" {self.hit_rate:.1%} of the blocks."
        ]
        if self.turns:
            says.append(
                f"{self.turns.share:.1%} of the later turns of programs go on from the turn before."
            )
        if self.chains:
            says.append(
                "Half of the prompts that go on from an earlier one do so within"
                f" {self.chains.middle_s:.3g} s."
            )
        if self.popular:
            some = sum(node.share for node in self.popular)
            says.append(
                f"{some:.1%} of the new conversations begin with one of"
                f" {len(self.popular)} popular prefixes."
            )
        return says


# --- what is learnt -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """The prompts of a trace in order of arrival, as numbers of blocks end to end in `flat`.

    `before` is the row of the call before in the same program, -1 for none; `timed` says whether
    `when` (s) is a clock of all calls, `local` whether blocks are shared within programs only.
    """

    flat: Ints
    sizes: Ints
    when: Floats
    tokens: Ints
    before: Ints
    most: int
    timed: bool
    local: bool
    block_tokens: int | None
    rule: str

    @classmethod
    def of(cls, demand: Demand) -> _Seen:
        trace, about = demand.trace, demand.about
        if "prefix_blocks" not in trace.columns:
            raise InputError(
                "The trace does not say which prompts share a prefix.",
                "Fit a model without prefixes, or take a trace with prefix blocks.",
            )
        there = [
            name
            for name in ("arrival_s", "program_id", "turn", "input_tokens", "prefix_blocks")
            if name in trace.columns
        ]
        rows = pl.concat(list(trace.batches(*there)))
        rows = rows.filter(pl.col("prefix_blocks").is_not_null())
        rows = rows.with_columns(pl.col("prefix_blocks").list.unique(maintain_order=True))
        local = about.block_scope == "program" and "program_id" in there
        timed = demand.timed and not local and rows["arrival_s"].null_count() == 0
        if timed:
            rows = rows.sort("arrival_s", maintain_order=True)
        count = rows.height
        sizes = rows["prefix_blocks"].list.len().to_numpy().astype(np.int64)
        ids = rows["prefix_blocks"].filter(rows["prefix_blocks"].list.len() > 0).explode()
        if not len(ids):
            raise InputError(
                "No prompt of the trace has a prefix block.",
                "Fit a model without prefixes, or take a trace with prefix blocks.",
            )
        flat, most = aspect._numbered(ids.to_numpy())
        before = np.full(count, -1, np.int64)
        if "program_id" in there and rows["program_id"].null_count() < count:
            home = rows["program_id"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
            if local:
                flat, most = aspect._numbered(np.repeat(home, sizes) * most + flat)
            order = np.argsort(home, kind="stable")
            same = (home[order][1:] == home[order][:-1]) & (home[order][1:] > 0)
            before[order[1:][same]] = order[:-1][same]
        return cls(
            flat=flat,
            sizes=sizes,
            when=rows["arrival_s"].to_numpy() if timed else np.arange(count, dtype=np.float64),
            tokens=rows["input_tokens"].fill_null(0).to_numpy().astype(np.int64),
            before=before,
            most=most,
            timed=timed,
            local=local,
            block_tokens=about.block_tokens,
            rule=about.block_rule or "ceil",
        )

    def origins(self) -> tuple[Ints, Ints, Ints]:
        """Return which earlier prompt had the last block that was hit, and how many were.

        Rows of -1 and 0 for none; third, how many blocks a prompt shares with `before`.
        """
        last = np.full(self.most, -1, np.int64)
        count = len(self.sizes)
        owner = np.full(count, -1, np.int64)
        shared, own = np.zeros(count, np.int64), np.zeros(count, np.int64)
        ends = np.cumsum(self.sizes)
        begins = (ends - self.sizes).tolist()
        before = self.before.tolist()
        flat = self.flat
        for row, (begin, end) in enumerate(zip(begins, ends.tolist(), strict=True)):
            prompt = flat[begin:end]
            found = last[prompt]
            hit = _leading(found >= 0)
            if hit:
                owner[row], shared[row] = found[hit - 1], hit
            if before[row] >= 0:
                start = begins[before[row]]
                most = min(end - begin, int(self.sizes[before[row]]))
                own[row] = _leading(flat[start : start + most] == prompt[:most])
            last[prompt] = row
        return owner, shared, own

    def popular(self, min_visits: int) -> tuple[list[tuple[int, int]], Ints, Ints]:
        """Return the tree of the prefixes with so many visits or more, level by level.

        Its nodes as (parent, level from 1), and of every prompt the last node and its level.
        """
        begins = np.cumsum(self.sizes) - self.sizes
        at = np.full(len(self.sizes), -1, np.int64)
        depth = np.zeros(len(self.sizes), np.int64)
        nodes: list[tuple[int, int]] = []
        alive = np.arange(len(self.sizes))
        level = 0
        while len(alive := alive[self.sizes[alive] > level]) >= min_visits:
            key = (at[alive] + 1) * self.most + self.flat[begins[alive] + level]
            _, first, place, visits = np.unique(
                key, return_index=True, return_inverse=True, return_counts=True
            )
            often = visits >= min_visits
            number = np.where(often, np.cumsum(often) - 1 + len(nodes), -1)
            level += 1
            nodes += [(int(at[alive[first[k]]]), level) for k in np.flatnonzero(often).tolist()]
            alive, node = alive[often[place]], number[place][often[place]]
            at[alive], depth[alive] = node, level
        return nodes, at, depth


def _leading(same: Flags) -> int:
    """Return the length of the leading run of True."""
    if not len(same):
        return 0
    first = int(same.argmin())
    return first if not same[first] else len(same)


def _fitted(seen: _Seen, min_count: int) -> Prefixes:
    owner, shared, own = seen.origins()
    count = len(seen.sizes)
    nodes: list[tuple[int, int]] = []
    node, depth = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    if not seen.local:
        nodes, node, depth = seen.popular(_POPULAR * min_count)
    turns, going = _turns(seen, shared, own, depth, min_count)
    # what is no turn goes on from another prompt, or begins anew
    span = float(seen.when[-1] - seen.when[0]) if count > 1 else 0.0
    chains = None
    chained = np.zeros(count, np.bool_)
    if not seen.local and span > 0:
        chains, chained = _chains(seen, owner, shared, (shared > depth) & ~going, span, min_count)
    new = ~going & ~chained
    forked = new & (shared > depth)
    forks = None
    if not seen.local and forked.sum() >= min_count:
        forks = _forks(seen, owner, shared, new, forked, min_count)
    steps, counted = _counted(seen, min_count)
    model = Prefixes(
        block_tokens=seen.block_tokens,
        rule=seen.rule,
        timed=seen.timed,
        rate_rps=rounded(count / span if span else 1.0),
        hit_rate=rounded(float(shared.sum() / seen.sizes.sum())),
        reusing=rounded(float((shared > 0).mean())),
        steps=steps,
        counted=counted,
        fresh_rps=rounded(float(new.sum() / (span or 1.0))),
        fresh_blocks=Quantiles.fit(seen.sizes[new], min_count, whole=True),
        fresh_trend=_trend(seen.when[new] - seen.when[0], span, min_count),
        fresh_odds=Steps(edges=(0.0, 1.0), values=(1.0,)),
        popular=_compressed(nodes, node[new], min_count),
        again=_again(node, new & (seen.before >= 0), seen.before, min_count),
        forks=forks,
        chains=chains,
        turns=turns,
    )
    if chains is None:
        return model
    return _calibrated(model, seen, np.where(new, -1, owner), shared, min_count)


def _calibrated(
    model: Prefixes, seen: _Seen, owner: Ints, shared: Ints, min_count: int
) -> Prefixes:
    """Return the model with rates at which as much is shared as was, and as soon.

    What it draws for the very calls it was fitted to is compared with them: the blocks shared by
    the length of prompts and by parts of the trace, the ages by parts (simulated moments, McFadden
    1989). Steps grow smaller, and the later half of them is averaged (Polyak and Juditsky 1992).
    """
    chains = model.chains
    assert chains is not None
    count = min(len(seen.sizes), _CALIBRATED)
    sizes, when, before = seen.sizes[:count], seen.when[:count], seen.before[:count]
    owner, shared = owner[:count], shared[:count]
    since = when - when[0]
    edges = _edges(sizes, 5 * min_count, _BINS)
    of_size = np.searchsorted(edges, sizes, side="right") - 1
    of_part = np.searchsorted(model.fresh_trend.edges, since, side="right") - 1
    period = np.searchsorted(chains.parts, since, side="right")
    ends = [hazard.edges for hazard in chains.hazard]
    cuts = np.cumsum([len(hazard.values) for hazard in chains.hazard])[:-1]

    def soon(origin: Ints, blocks: Ints) -> Floats:
        found = np.empty(0)
        for part, edges in enumerate(ends):
            here = (origin >= 0) & (period == part)
            ages = (when - when[origin])[here]
            weights = blocks[here] ** _BY_BLOCKS
            found = np.append(found, np.histogram(ages, edges, weights=weights)[0] + 1.0)
        return found

    def turned(logs: tuple[Floats, Floats, Floats]) -> Prefixes:
        odds, trend, hazard = (np.exp(each) for each in logs)
        values = np.split(hazard, cuts)
        return msgspec.structs.replace(
            model,
            fresh_odds=Steps(edges=all_rounded(edges), values=all_rounded(odds)),
            fresh_trend=Steps(edges=model.fresh_trend.edges, values=all_rounded(trend)),
            chains=msgspec.structs.replace(
                chains,
                hazard=tuple(
                    Steps(edges=old.edges, values=all_rounded(new))
                    for old, new in zip(chains.hazard, values, strict=True)
                ),
            ),
        )

    hazards = np.concatenate([hazard.values for hazard in chains.hazard])
    logs = (
        np.zeros(len(edges) - 1),
        np.log(_some(np.array(model.fresh_trend.values))),
        np.log(_some(hazards)),
    )
    wanted, late = soon(owner, shared), []
    times = int(np.clip(_DRAWN // count, *_REDRAWS))
    for turn in range(times):
        step = 0.5 / (1 + turn) ** 0.5
        origin, drawn = turned(logs).begin(Draws(turn)).shared(when, sizes, before)
        odds, trend, hazard = logs
        logs = (
            odds + step * _odds(of_size, shared, drawn, sizes, len(odds)),
            trend + step * _odds(of_part, shared, drawn, sizes, len(trend)),
            hazard + step * np.clip(np.log(wanted / soon(origin, drawn)), -1.5, 1.5),
        )
        if turn >= times // 2:
            late.append(logs)
    odds, trend, hazard = (np.mean(each, axis=0) for each in zip(*late, strict=True))
    return turned((odds, trend, hazard))


def _odds(group: Ints, real: Ints, drawn: Ints, sizes: Ints, count: int) -> Floats:
    """Return the logarithm of what the odds of sharing no block lack, group by group."""
    every, wanted, got = (np.bincount(group, x, count) + 1.0 for x in (sizes, real, drawn))
    ratio = (every - wanted + 1.0) / wanted * got / (every - got + 1.0)
    return np.asarray(np.clip(np.log(ratio), -1.5, 1.5))


def _forks(
    seen: _Seen, owner: Ints, shared: Ints, new: Flags, forked: Flags, min_count: int
) -> Forks:
    edges = _edges(seen.sizes[forked], min_count, _BINS)
    edges[0] = min(edges[0], seen.sizes[new].min())
    edges[-1] = max(edges[-1], seen.sizes[new].max() + 1)
    of = np.searchsorted(edges, seen.sizes, side="right") - 1
    count = len(edges) - 1
    among = np.bincount(of[new], minlength=count)
    share = np.bincount(of[forked], minlength=count) / np.maximum(among, 1)
    return Forks(
        share=Steps(edges=all_rounded(edges), values=all_rounded(share)),
        depth=tuple(
            Quantiles.fit(shared[forked & (of == at)], min_count, whole=True) for at in range(count)
        ),
        age_s=Quantiles.fit(seen.when[forked] - seen.when[owner[forked]], min_count),
    )


def _counted(seen: _Seen, min_count: int) -> tuple[tuple[float, ...], tuple[Quantiles, ...]]:
    """Return the quantiles of the blocks of prompts, unless their tokens say how many."""
    if seen.block_tokens and seen.rule in ("ceil", "floor"):
        return (), ()
    groups = max(1, min(_BINS, len(seen.sizes) // (10 * min_count)))
    ends = np.unique(np.quantile(seen.tokens, np.arange(1, groups) / groups)).tolist()
    group = np.searchsorted(ends, seen.tokens)
    kinds = [seen.sizes[group == at] for at in range(len(ends) + 1)]
    return all_rounded(ends), tuple(
        Quantiles.fit(sizes if len(sizes) else seen.sizes, min_count, whole=True) for sizes in kinds
    )


def _trend(when: Floats, span: float, min_count: int) -> Steps:
    parts = _parts(when, span, min_count)
    came, _ = np.histogram(when, parts)
    rates = came / np.diff(parts)
    return Steps(
        edges=all_rounded(parts), values=all_rounded(rates * (span or 1.0) / max(1, came.sum()))
    )


def _edges(sizes: Ints, min_count: int, most: int) -> Floats:
    """Return whole edges of classes with `min_count` values or more in each, `most` at most."""
    if not len(sizes):
        return np.array([0.0, 1.0])
    each = max(min_count, -(-len(sizes) // most))
    values, counts = np.unique(sizes, return_counts=True)
    edges, held = [float(values[0])], 0
    for value, number in zip(values.tolist(), counts.tolist(), strict=True):
        held += number
        if held >= each:
            edges.append(float(value + 1))
            held = 0
    top = float(values[-1] + 1)
    if held and len(edges) > 1:  # too few for a class of their own
        edges[-1] = top
    elif held:
        edges.append(top)
    return np.array(edges)


def _compressed(nodes: list[tuple[int, int]], at: Ints, min_count: int) -> tuple[Popular, ...]:
    """Return the tree without the nodes at which few leave and that have one next one."""
    left = np.bincount(at[at >= 0], minlength=len(nodes)) if nodes else np.zeros(0, np.int64)
    few = left < min_count
    for node in range(len(nodes) - 1, -1, -1):  # children come after parents
        parent = nodes[node][0]
        if few[node] and parent >= 0:
            left[parent] += left[node]
            left[node] = 0
            few[parent] = left[parent] < min_count
    children = np.bincount([parent for parent, _ in nodes if parent >= 0], minlength=len(nodes))
    kept: dict[int, int] = {-1: -1}
    levels = {-1: 0}
    popular: list[Popular] = []
    for node, (parent, level) in enumerate(nodes):
        if left[node] == 0 and children[node] == 1:
            kept[node] = kept[parent]  # its child begins where its parent ends
            levels[node] = levels[parent]
            continue
        popular.append(
            Popular(
                parent=kept[parent],
                blocks=level - levels[parent],
                share=rounded(float(left[node] / max(1, len(at)))),
            )
        )
        kept[node], levels[node] = len(popular) - 1, level
    return tuple(popular)


def _again(node: Ints, later: Flags, before: Ints, min_count: int) -> float:
    """Return the share of later turns that begin as the turn before beyond what chance does."""
    rows = np.flatnonzero(later)
    if len(rows) < min_count:
        return 0.0
    same = float((node[rows] == node[before[rows]]).mean())
    shares = np.unique(node[rows], return_counts=True)[1] / len(rows)
    chance = float((shares**2).sum())
    return rounded(max(0.0, (same - chance) / (1 - chance))) if chance < 1 else 0.0


def _turns(
    seen: _Seen, shared: Ints, own: Ints, depth: Ints, min_count: int
) -> tuple[Turns | None, Flags]:
    """Return how turns go on, and which calls do: those that share most with the turn before."""
    later = seen.before >= 0
    going = later & (own >= shared) & (own > depth) if not seen.local else later
    if going.sum() < 2 * min_count:
        return None, np.zeros(len(shared), np.bool_)
    least = np.minimum(seen.sizes, seen.sizes[seen.before])
    lost = least - own
    cut = going & (lost > _SHORT)
    near = going & ~cut
    kept = own[cut] / np.maximum(least[cut], 1)
    enough = len(kept) >= min_count
    grown = seen.sizes >= seen.sizes[seen.before]
    return Turns(
        share=rounded(float(going.sum() / later.sum())),
        dropped=Quantiles.fit(lost[near], min_count, whole=True),
        cut_grown=rounded(_share(cut & grown, going & grown)) if enough else 0.0,
        cut_shrunk=rounded(_share(cut & ~grown, going & ~grown)) if enough else 0.0,
        kept=Quantiles.fit(kept, min_count) if enough else None,
    ), going


def _share(
    part: Flags,
    whole: Flags,
) -> float:
    return float(part.sum() / max(1, whole.sum()))


def _chains(
    seen: _Seen,
    owner: Ints,
    shared: Ints,
    may: Flags,
    span: float,
    min_count: int,
) -> tuple[Chains | None, Flags]:
    """Return the law of going on, and which calls do; `may` tells which others could."""
    sizes, when = seen.sizes, seen.when - seen.when[0]
    near = may & (np.abs(sizes - sizes[owner]) <= _GROWTH) & (2 * shared >= sizes[owner])
    grown = sizes - sizes[owner]
    values, counts = np.unique(grown[near], return_counts=True)
    often = np.isin(grown, values[counts >= 2 * min_count])
    if (near & ~often).sum() < _FEW * near.sum():
        near &= often  # what is rare counts as a fork, or every length would be looked at
    child = np.flatnonzero(near)
    _, first = np.unique(owner[child], return_index=True)
    child = child[first]  # each prompt is gone on from once
    chained = np.zeros(len(sizes), np.bool_)
    if len(child) < 2 * min_count:
        return None, chained
    chained[child] = True
    parent = owner[child]
    ages = when[child] - when[parent]
    alive = when[-1] - when  # how long each prompt could be gone on from
    alive[parent] = ages
    edges = _age_edges(ages, min_count)
    events, _ = np.histogram(np.minimum(ages, edges[-1]), edges)
    turn = np.zeros(len(sizes), np.int64)
    for row, came in sorted(zip(child.tolist(), parent.tolist(), strict=True)):
        turn[row] = turn[came] + 1
    classes = _edges(sizes, 2 * min_count, 3 * _BINS), _edges(turn, 2 * min_count, len(sizes))
    kinds = tuple(len(each) - 1 for each in classes)
    kind = np.ravel_multi_index(
        [
            np.searchsorted(each, values, side="right") - 1
            for each, values in zip(classes, (sizes, turn), strict=True)
        ],
        kinds,
    )
    went_on = np.bincount(kind[parent], minlength=np.prod(kinds)).reshape(kinds)
    parts = _parts(when[child], span, min_count)
    happened, _ = np.histogram(when[child], parts)
    # time that all prompts of a class spent at an age in a part of the trace
    spent = _spent(when, alive, kind, edges, parts, kinds)
    by_size, by_turn, trend = (np.ones(number) for number in (*kinds, len(happened)))
    hazard = np.zeros(len(events))
    for _ in range(_ROUNDS):  # a product of the four, by maximum likelihood
        hazard = events / _some(np.einsum("s,t,stap,p", by_size, by_turn, spent, trend))
        by_size = went_on.sum(1) / _some(np.einsum("t,stap,a,p", by_turn, spent, hazard, trend))
        by_turn = went_on.sum(0) / _some(np.einsum("s,stap,a,p", by_size, spent, hazard, trend))
        trend = happened / _some(np.einsum("s,t,stap,a", by_size, by_turn, spent, hazard))
    level = float((trend * np.diff(parts)).sum() / span)
    hazard, trend = hazard * level, trend / level
    usual = Steps(edges=all_rounded(edges), values=all_rounded(hazard))
    of_part = np.searchsorted(parts, when[child], side="right") - 1
    hazards = [
        _regrouped(usual, flow, _age_edges(ages[of_part == part], min_count))
        for part, flow in enumerate(trend.tolist())
    ]
    growth, shares, dropped = _growth(
        sizes[child] - sizes[parent], sizes[parent] - shared[child], min_count
    )
    return Chains(
        parts=all_rounded(parts[1:]),
        hazard=(*hazards, usual),
        by_size=Steps(edges=all_rounded(classes[0]), values=all_rounded(by_size)),
        by_turn=Steps(edges=all_rounded(classes[1]), values=all_rounded(by_turn)),
        middle_s=rounded(float(np.median(ages))),
        growth=growth,
        shares=shares,
        dropped=dropped,
    ), chained


def _regrouped(steps: Steps, times: float, edges: Floats) -> Steps:
    """Return a multiple of a step function, its means between other edges."""
    widths = np.diff(steps.edges)
    sums = np.interp(edges, steps.edges, np.concatenate(([0.0], np.cumsum(steps.values * widths))))
    return Steps(
        edges=all_rounded(edges), values=all_rounded(np.diff(sums) / np.diff(edges) * times)
    )


def _some(values: Floats) -> Floats:
    return np.maximum(values, 1e-12)


def _spent(
    when: Floats, alive: Floats, kind: Ints, ages: Floats, parts: Floats, kinds: tuple[int, ...]
) -> Floats:
    """Return the time that prompts spent: shape (*kinds, ages, parts)."""
    spent = np.zeros((int(np.prod(kinds)), len(ages) - 1, len(parts) - 1))
    for age in range(len(ages) - 1):
        begin, end = when + ages[age], when + np.minimum(ages[age + 1], alive)
        for part in range(len(parts) - 1):
            inside = np.minimum(end, parts[part + 1]) - np.maximum(begin, parts[part])
            spent[:, age, part] = np.bincount(kind, np.maximum(inside, 0), len(spent))
    return spent.reshape(*kinds, len(ages) - 1, len(parts) - 1)


def _age_edges(ages: Floats, min_count: int) -> Floats:
    """Return ends of classes of ages, ever smaller ones of the oldest, of `min_count` or more.

    The last ends as far from its begin as an exponential tail has all but one in a hundred.
    """
    count = len(ages)
    groups = max(1, min(_BINS, count // (2 * min_count)))
    levels = [*(np.arange(1, groups) / groups)]
    left = 1 / groups
    while left * count >= 2 * min_count:
        left /= 2
        levels.append(1 - left)
    inner = np.quantile(ages, levels)
    low = float(inner[-1]) if len(inner) else 0.0
    beyond = ages[ages >= low] - low
    end = max(low + 4.6 * float(beyond.mean()), float(np.nextafter(low, np.inf)), 1e-6)
    return np.unique(np.concatenate(([0.0], all_rounded(inner), [rounded(end)])))


def _parts(when: Floats, span: float, min_count: int) -> Floats:
    """Return ends of parts of a trace with as many of these moments (s from its begin) in each."""
    groups = max(1, min(_PARTS, len(when) // (10 * min_count)))
    inner = np.quantile(when, np.arange(1, groups) / groups) if groups > 1 else np.zeros(0)
    return np.unique(np.concatenate(([0.0], all_rounded(inner), [rounded(span) * 1.00001])))


def _growth(
    grown: Ints, lost: Ints, min_count: int
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[Quantiles, ...]]:
    """Return by how many blocks prompts grow, the share of each, and the blocks dropped then.

    What is rare is spread evenly over all that is rare, on its side of none.
    """
    pooled = Quantiles.fit(lost, min_count, whole=True)
    values, counts = np.unique(grown, return_counts=True)
    often = {
        value: number
        for value, number in zip(values.tolist(), counts.tolist(), strict=True)
        if number >= min_count
    }
    held: dict[int, tuple[float, Quantiles]] = {
        value: (number, Quantiles.fit(lost[grown == value], min_count, whole=True))
        for value, number in often.items()
    }
    for side in (range(-_GROWTH, 1), range(1, _GROWTH + 1)):
        rare = [value for value in side if value not in often]
        number = int(np.isin(grown, rare).sum())
        if number >= min_count:
            held |= {value: (number / len(rare), pooled) for value in rare}
    total = sum(number for number, _ in held.values())
    order = sorted(held, key=lambda value: -held[value][0])
    return (
        tuple(order),
        all_rounded([held[value][0] / total for value in order]),
        tuple(held[value][1] for value in order),
    )


# --- what is drawn --------------------------------------------------------------------------------


class Growing:
    """The prompts of one stream as they grow, window after window.

    Kept from window to window are prompts that may be gone on from, at most `_HELD_CALLS` of them
    and of the last turns of `_PROGRAMS` programs, of `_HELD_BLOCKS` blocks together, the latest.
    """

    def __init__(self, model: Prefixes, draws: Draws) -> None:
        self._model = model
        self._draws = draws
        self._popular, self._flat = self._roots()
        self.born: list[float] = []
        self._sizes: list[int] = []
        self.turned: list[int] = []
        self._starts = np.zeros(0, np.int64)
        self._live: set[int] = set()
        self._programs: dict[int, int] = {}
        self._begun: dict[int, int] = {}
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
        live, last, begun = self._live, self._programs, self._begun
        longest = max(max(sizes), max(lengths, default=0)) + 1
        counts = np.arange(longest + 1, dtype=np.float64)
        mass = model.fresh_blocks.rank(counts, 1.0) - model.fresh_blocks.rank(counts, 0.0)
        odds = np.array(model.fresh_odds.at_wholes(longest))
        fresh = (np.maximum(mass, 1e-9) * model.fresh_rps * faster * odds).tolist()
        chains = _Chaining.of(model.chains, longest) if model.chains else None
        turns, forks = model.turns, model.forks
        dropped = _table(turns.dropped) if turns else []
        kept = _table(turns.kept) if turns and turns.kept else []
        depths = [_table(depth) for depth in forks.depth] if forks else []
        backs = _table(forks.age_s) if forks else []
        forking = forks.share.places(longest) if forks else []
        popular = np.cumsum([node.share for node in model.popular]).tolist()
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
                found = (
                    chains.find(
                        now,
                        size,
                        fresh[size] * ebbs[bisect_right(begins, now - self.first_s)],
                        waiting,
                        self,
                        draw,
                    )
                    if chains
                    else None
                )
                if chains and found:
                    origin, at, group, place = found
                    shared = min(size, max(1, lengths[origin] - chains.drop(at, draw)))
                    group[place] = group[-1]
                    group.pop()
                    live.discard(origin)
                    turn = min(turned[origin] + 1, _MOST_TURNS)
                elif forks and draw() < forks.share.values[forking[size]]:
                    spot = int(draw() * _TABLE)
                    wanted = min(size, int(depths[forking[size]][int(draw() * _TABLE)]))
                    origin = self._nearest(now - backs[spot], wanted, number)
                    shared = wanted if origin >= 0 else 0
                if origin < 0 and popular:
                    node = bisect_right(popular, draw())
                    if program is not None:
                        if model.again and draw() < model.again:
                            node = begun.get(program, node)
                        begun[program] = node
                    if node < len(popular):
                        origin = -2 - node
                        shared = min(size, self._popular[node][1])
                if chains and chains.by_size[size]:
                    live.add(number)
                    waiting.setdefault(size, []).append(number)
            turned.append(turn)
            origins[row], shareds[row] = origin, shared
        return origins, shareds

    def _nearest(self, moment: float, blocks: int, number: int) -> int:
        """Return the prompt with so many blocks or more that came nearest to a moment, or -1."""
        if moment < self.first_s:
            return -1
        at = bisect_right(self.born, moment, 0, number)
        for step in range(_NEIGHBOURS):
            for near in (at - 1 - step, at + step):
                if 0 <= near < number and self._sizes[near] >= blocks:
                    return near
        return -1

    def _grow(
        self, sizes: Ints, origin: Ints, shared: Ints, rng: np.random.Generator
    ) -> tuple[Ids, Ints]:
        """Return the ids of all prompts, held and new, end to end, and where each begins."""
        old = len(self._flat)
        flat = np.concatenate((self._flat, _ids(rng, int(sizes.sum()))))
        starts = np.concatenate((self._starts, old + np.cumsum(sizes) - sizes))
        roots = np.array([place for place, _ in self._popular][::-1], np.int64)
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
        for kept in (self._programs, self._begun):
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
        base = sum(size for _, size in self._popular)
        size = sizes[rows]
        self._starts = base + np.cumsum(size) - size
        place = np.repeat(starts[rows] - (np.cumsum(size) - size), size) + np.arange(size.sum())
        self._flat = np.concatenate((flat[:base], flat[place]))


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
