"""Which prompts share their first blocks: conversations that go on, popular prefixes, and forks.

Who goes on from whom is a marked branching process (Hawkes and Oakes 1974): every earlier prompt
calls for a next one at a rate that falls with its age, of a length near its own, beside the rate
of new conversations. Of a call that has arrived, with its length, the origin is drawn in proportion
to these rates (the stochastic declustering of Zhuang, Ogata and Vere-Jones 2002).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import numpy as np

from servescope.analysis.demand import Demand
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.growing import Growing
from servescope.analysis.models.prompts import Prompts
from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, all_rounded, rounded
from servescope.analysis.models.sharing import Chains, Forks, Popular, Steps, Turns
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError
from servescope.traces.trace import Trace

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]

_POPULAR = 5  # times min_count: visits of a prefix that is there for all
_GROWTH = 24  # blocks that a next prompt is longer or shorter, at most, and still goes on
_BINS = 16  # of ages and of lengths, at most
_SHORT = 8  # blocks dropped from which on a prompt counts as cut
_PARTS = 8  # of a trace, at most, between which rates differ
_CALIBRATED = 25_000  # calls that are drawn again to calibrate, the first ones
_DRAWN = 60_000  # calls drawn for it in all
_REDRAWS = (3, 24)  # times, at least and at most
_BY_BLOCKS = 0.75  # power of the shared blocks that ages count by there: between calls and blocks
_FEW = 0.2  # share of the prompts that go on, below which rare growths are left out
_ROUNDS = 20  # of the product of rates, by then still


Drawn: TypeAlias = Callable[[int], tuple[Floats, Ints]]


class Prefixes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How prompts share their first blocks, by rates and shares alone: no id of the source.

    New conversations, of `fresh_blocks`, begin at `fresh_rps` (1/s), times the rate of calls over
    `rate_rps`, times `fresh_trend` at a moment (s from the first call; 1 after its end), times
    `fresh_odds` of their blocks. Of those that are later turns of a program a share `again` begin
    with the popular prefix of the turn before. `hit_rate` is that of an endless cache, `reusing`
    the share of prompts that find anything, both of the source. `counted` gives the blocks of a
    prompt where they do not follow from its tokens: quantiles in equal groups of calls by tokens,
    ends in `steps`.
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
    def fit(
        cls, source: Trace | Demand, min_count: int = MIN_COUNT, drawn: Drawn | None = None
    ) -> Prefixes:
        """Learn from a trace; raises InputError of one without prefix blocks or with too few.

        `drawn` makes calls like those that prefixes will be drawn for, by a number: when they come
        (s) and their prompts (tokens). By default it is calibrated on the calls of the trace.
        """
        seen = Prompts.of(source if isinstance(source, Demand) else Demand.of(source))
        if len(seen.sizes) < min_count:
            raise InputError(
                f"Of only {len(seen.sizes)} calls prefix blocks are known.",
                f"A model of prefixes rests on {min_count} calls at least.",
            )
        return _fitted(seen, min_count, drawn)

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


def _fitted(seen: Prompts, min_count: int, drawn: Drawn | None) -> Prefixes:
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
    return _calibrated(model, seen, np.where(new, -1, owner), shared, min_count, drawn)


def _calibrated(
    model: Prefixes,
    seen: Prompts,
    owner: Ints,
    shared: Ints,
    min_count: int,
    calls: Drawn | None,
) -> Prefixes:
    """Return the model with rates at which as much is shared as was, and as soon.

    What it draws for the very calls it was fitted to, or for `calls` that are drawn themselves, is
    compared with them: the blocks shared by the length of prompts and by parts of the trace, the
    ages by parts (simulated moments, McFadden 1989). Steps grow smaller, and the later half of them
    is averaged (Polyak and Juditsky 1992).
    """
    chains = model.chains
    assert chains is not None
    count = min(len(seen.sizes), _CALIBRATED)
    sizes, when, before = seen.sizes[:count], seen.when[:count], seen.before[:count]
    owner, shared = owner[:count], shared[:count]
    edges = _edges(sizes, 5 * min_count, _BINS)
    ends = [hazard.edges for hazard in chains.hazard]
    cuts = np.cumsum([len(hazard.values) for hazard in chains.hazard])[:-1]

    def soon(when: Floats, origin: Ints, blocks: Ints) -> Floats:
        """Return how much is gone on with at each age in each part."""
        found = np.empty(0)
        period = np.searchsorted(chains.parts, when - when[0], side="right")
        for part, bounds in enumerate(ends):
            here = (origin >= 0) & (period == part)
            ages = (when - when[origin])[here]
            weights = blocks[here] ** _BY_BLOCKS
            found = np.append(found, np.histogram(ages, bounds, weights=weights)[0] + 1.0)
        return found

    def lacking(when: Floats, sizes: Ints, blocks: Ints) -> tuple[Floats, Floats]:
        """Return the log odds of sharing no block, by length and by part of the trace."""
        of_size = np.searchsorted(edges, sizes, side="right") - 1
        of_part = np.searchsorted(model.fresh_trend.edges, when - when[0], side="right") - 1
        return tuple(
            _lacking(np.clip(group, 0, many - 1), blocks, sizes, many)
            for group, many in (
                (of_size, len(edges) - 1),
                (of_part, len(model.fresh_trend.values)),
            )
        )  # type: ignore[return-value]

    def turned(logs: tuple[Floats, Floats, Floats]) -> Prefixes:
        """Return the model with these odds, trend and hazards, all as logarithms."""
        odds, trend, hazard = (np.exp(each) for each in logs)
        values = np.split(hazard, cuts)
        return msgspec.structs.replace(
            model,
            fresh_odds=_by_class(edges, odds),
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
    wanted, late = soon(when, owner, shared), []
    lacks = lacking(when, sizes, shared)
    times = int(np.clip(_DRAWN // count, *_REDRAWS))
    for turn in range(times):
        step = 0.5 / (1 + turn) ** 0.5
        now = turned(logs)
        if calls is not None:
            when, prompts = calls(turn)
            when = when[:count]
            sizes = now.blocks(prompts[:count], np.random.default_rng(turn))
            before = np.full(len(when), -1, np.int64)
        origin, drawn = now.begin(Draws(turn)).shared(when, sizes, before)
        odds, trend, hazard = logs
        got = lacking(when, sizes, drawn)
        logs = (
            odds + step * np.clip(lacks[0] - got[0], -1.5, 1.5),
            trend + step * np.clip(lacks[1] - got[1], -1.5, 1.5),
            hazard + step * np.clip(np.log(wanted / soon(when, origin, drawn)), -1.5, 1.5),
        )
        if turn >= times // 2:
            late.append(logs)
    odds, trend, hazard = (np.mean(each, axis=0) for each in zip(*late, strict=True))
    return turned((odds, trend, hazard))


def _lacking(group: Ints, shared: Ints, sizes: Ints, count: int) -> Floats:
    """Return the log odds of a block not to be shared, group by group."""
    every, found = (np.bincount(group, x, count) + 1.0 for x in (sizes, shared))
    return np.asarray(np.log((every - found + 1.0) / found))


def _forks(
    seen: Prompts, owner: Ints, shared: Ints, new: Flags, forked: Flags, min_count: int
) -> Forks:
    """Return how new conversations begin as an earlier prompt does, if not a popular one."""
    edges = _edges(seen.sizes[forked], min_count, _BINS)
    edges[0] = min(edges[0], seen.sizes[new].min())
    edges[-1] = max(edges[-1], seen.sizes[new].max() + 1)
    of = np.searchsorted(edges, seen.sizes, side="right") - 1
    count = len(edges) - 1
    among = np.bincount(of[new], minlength=count)
    share = np.bincount(of[forked], minlength=count) / np.maximum(among, 1)
    return Forks(
        share=_by_class(edges, share),
        depth=tuple(
            Quantiles.fit(shared[forked & (of == at)], min_count, whole=True) for at in range(count)
        ),
        age_s=Quantiles.fit(seen.when[forked] - seen.when[owner[forked]], min_count),
    )


def _counted(seen: Prompts, min_count: int) -> tuple[tuple[float, ...], tuple[Quantiles, ...]]:
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
    """Return the rate of these moments (s from the first call) over their mean."""
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


def _by_class(edges: Floats, values: Floats) -> Steps:
    """Return what classes have, without the least and the greatest value that any call had.

    Outside its edges a step function is what it is on the nearest step, so that nothing changes.
    """
    inner = edges[1:-1].tolist()
    return Steps(
        edges=all_rounded([0.0, *inner, (inner[-1] if inner else 0.0) + 1.0]),
        values=all_rounded(values),
    )


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
    seen: Prompts, shared: Ints, own: Ints, depth: Ints, min_count: int
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
    seen: Prompts,
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
        by_size=_by_class(classes[0], by_size),
        by_turn=_by_class(classes[1], by_turn),
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
    """Return the values, or what may be divided by where they are 0."""
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
