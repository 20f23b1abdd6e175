"""Llumnix (Sun et al., OSDI 2024): requests move between replicas while they run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from servescope.engine.kvcache import BLOCK_TOKENS
from servescope.engine.policy import Batch, Dispatcher, Migrate, Parts, Scale, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import prompts_first

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

Load = Callable[["Replica"], float]


@dataclass(frozen=True, slots=True)
class Llumnix:
    """Dispatch, migrate and scale by freeness: the blocks that are left for each running request.

    Of a queue only the head counts. Requests of high priority (below 0) count, between them, as
    all of their replica's memory but `high_priority_tokens`, under which decodes are fast. A
    replica that is to go counts as full. Every `period_s` the replicas with the least freeness, if
    that is below `migrate_below`, send a request each to those with the most, if that is above
    `migrate_above`. With `scaling` a replica comes when the mean freeness has been below
    `scale_out_below` for `scale_interval_s`, and goes when it has been above `scale_in_above`.
    The paper gives none of these figures: they are those of the authors' artifact, where a round
    is four steps of each replica (0.15 s, ASSUMED).
    """

    migration: bool = True
    period_s: Annotated[float, Meta(gt=0)] = 0.15
    migrate_below: float = 3.0
    migrate_above: float = 3.0
    high_priority_tokens: Annotated[int, Meta(ge=0)] = 1600
    scaling: bool = False
    scale_out_below: float = 10.0
    scale_in_above: float = 60.0
    scale_interval_s: Annotated[float, Meta(gt=0)] = 10.0
    most_replicas: Annotated[int, Meta(ge=1)] = 16
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return vLLM's scheduler by priority, and the global scheduler's three duties."""
        return Parts(
            _ByPriority(self.max_num_batched_tokens, self.max_num_seqs),
            dispatch=_ByClass(self),
            control=_Global(self) if self.migration or self.scaling else None,
        )

    def freeness(self, replica: Replica) -> float:
        """Return a replica's freeness in blocks a request: (M - sum of virtual usages) / B."""
        if not replica.accepting:
            return -math.inf
        return self._free(replica, urgent=has_urgent(replica))

    def normal_freeness(self, replica: Replica) -> float:
        """Return what the freeness would be if all requests were of normal priority."""
        return self._free(replica, urgent=False)

    def freeness_to(self, request: Request, replica: Replica) -> float:
        """Return the freeness that counts for a request to be dispatched.

        A request of high priority would take the headroom where no other has; where one has, it
        is no further cost (so the artifact; the paper does not say).
        """
        return self._free(replica, urgent=has_urgent(replica) != (request.priority < 0))

    def _free(self, replica: Replica, *, urgent: bool) -> float:
        view = replica.view
        used = view.pool.used
        if view.waiting:
            used += min(view.waiting, key=_priority).demand
        if urgent:
            used += max(0, view.pool.total - self.high_priority_tokens // BLOCK_TOKENS)
        return (view.pool.total - used) / max(1, replica.engine.running)


def has_urgent(replica: Replica) -> bool:
    """Return whether a request of high priority runs on a replica."""
    view = replica.view
    running = (*view.prefilling, *view.decoding, *replica.engine.receiving)
    return any(request.priority < 0 for request in running)


@dataclass(frozen=True, slots=True)
class LlumnixV0:
    """Llumnix as released (AlibabaPAI/llumnix): remaining steps instead of freeness.

    All that waits counts, priorities have no headroom, and no replica counts as full because it is
    to go. A replica that has preempted a request sends, and never receives. Migration is off there
    unless it is switched on; here it is on. `dispatch_policy` and `order` have the names of the
    code (shortest, longest or last come running), `pair` its two ways to pair replicas. Left out
    are its scaling, which raises an error as released, and migration of requests that wait (FCW).
    """

    dispatch_policy: Literal["load", "balanced", "queue", "rr", "flood"] = "load"
    enable_routine_migration: bool = True
    polling_interval_s: Annotated[float, Meta(gt=0)] = 0.05
    pair: Literal["defrag", "balanced"] = "defrag"
    migrate_out_below: float = 3.0
    order: Literal["SR", "LR", "LCR"] = "SR"
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return vLLM's scheduler, the dispatch policy and routine migration."""
        return Parts(
            _ByPriority(self.max_num_batched_tokens, self.max_num_seqs, by_priority=False),
            dispatch=_V0_DISPATCH[self.dispatch_policy](),
            control=_Routine(self) if self.enable_routine_migration else None,
        )


def remaining_steps(replica: Replica) -> float:
    """Return (free - watermark - demand of the queue) / (running + waiting), in blocks."""
    return _left(replica) / max(1, replica.load)


def _left(replica: Replica) -> int:
    view = replica.view
    return view.pool.room - view.pool.watermark - sum(each.demand for each in view.waiting)


class _ByPriority:
    """vLLM 0, with smaller priorities first and first come, first served among equals."""

    def __init__(self, max_tokens: int, max_seqs: int, *, by_priority: bool = True) -> None:
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._order = _first if by_priority else None

    def plan(self, view: View) -> Batch:
        return prompts_first(view, self._max_tokens, self._max_seqs, self._order)


def _priority(request: Request) -> int:
    return request.priority


def _first(waiting: Sequence[Request]) -> Iterable[Request]:
    return sorted(waiting, key=_priority)


class _Freest:
    """The replica with the most of something."""

    def __init__(self, freeness: Load) -> None:
        self._freeness = freeness

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return max(range(len(replicas)), key=lambda place: self._freeness(replicas[place]))


class _ByClass:
    """The replica with the most freeness for requests of a class."""

    def __init__(self, system: Llumnix) -> None:
        self._system = system

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return max(
            range(len(replicas)),
            key=lambda place: self._system.freeness_to(request, replicas[place]),
        )


class _Global:
    """The global scheduler: pairs replicas for migration, and counts them."""

    def __init__(self, system: Llumnix) -> None:
        self._system = system
        self.period_s = system.period_s
        self._outside = 0  # the mean freeness is too small (-1), too large (1)
        self._since_s = 0.0
        self._last = 0  # number of a replica: the last that was seen, and the last that is to come
        self._coming = 0

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate | Scale]:
        if self._system.migration:
            yield from self._pairs(replicas)
        if self._system.scaling:
            yield from self._scale(replicas, now)

    def _pairs(self, replicas: Sequence[Replica]) -> Iterable[Migrate]:
        system = self._system
        free = {replica.number: system.freeness(replica) for replica in replicas}
        ready = [replica for replica in replicas if not replica.moving]
        sources = sorted(
            (each for each in ready if free[each.number] < system.migrate_below),
            key=lambda each: free[each.number],
        )
        targets = sorted(
            (each for each in ready if each.accepting and free[each.number] > system.migrate_above),
            key=lambda each: -free[each.number],
        )
        for source, target in zip(sources, targets, strict=False):
            if source is not target and len(source.view.decoding):
                # the llumlet picks: low priority, then short
                chosen = min(source.view.decoding, key=lambda each: (-each.priority, each.computed))
                yield Migrate(chosen, source.number, target.number)

    def _scale(self, replicas: Sequence[Replica], now: float) -> Iterable[Scale]:
        system = self._system
        open_ = [replica for replica in replicas if replica.accepting]
        self._last = max(self._last, *(replica.number for replica in replicas))
        self._coming = max(self._coming, self._last)
        mean = sum(map(system.normal_freeness, open_)) / len(open_)
        outside = (mean > system.scale_in_above) - (mean < system.scale_out_below)
        if outside != self._outside:
            self._outside, self._since_s = outside, now
        if not outside or now - self._since_s < system.scale_interval_s:
            return
        self._since_s = now
        if outside < 0 and len(open_) + self._coming - self._last < system.most_replicas:
            self._coming += 1
            yield Scale(add=1)
        elif outside > 0 and len(open_) > 1:
            yield Scale(drain=min(open_, key=lambda each: each.engine.running).number)


class _Routine:
    """Routine migration as released: one request at a time from each replica of a pair."""

    def __init__(self, system: LlumnixV0) -> None:
        self._system = system
        self.period_s = system.polling_interval_s

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate]:
        left = {replica.number: remaining_steps(replica) for replica in replicas}
        ready = sorted((each for each in replicas if not each.moving), key=lambda r: left[r.number])
        bound = self._system.migrate_out_below
        killed = {each.number for each in ready if _has_preempted(each)}
        sources = [each for each in ready if left[each.number] < bound or each.number in killed]
        targets = [
            each
            for each in reversed(ready)
            if left[each.number] > bound and each.number not in killed
        ]
        for source, target in zip(sources, targets, strict=False):
            chosen = self._chosen(source.view)
            if chosen is None:
                continue
            if self._system.pair == "balanced" and not _evens_out(source, target, chosen, bound):
                continue
            yield Migrate(chosen, source.number, target.number)

    def _chosen(self, view: View) -> Request | None:
        running = list(view.decoding)
        if not running:
            return None
        order = self._system.order
        if order == "SR":  # shortest running
            return min(running, key=lambda each: each.computed)
        if order == "LR":  # longest running
            return max(running, key=lambda each: each.computed)
        return running[-1]  # last come running


def _has_preempted(replica: Replica) -> bool:
    """Whether a request waits that ran before."""
    return any(request.generated for request in replica.view.waiting)


def _evens_out(source: Replica, target: Replica, request: Request, bound: float) -> bool:
    """Whether a migration makes two replicas more alike, and leaves the target above the bound."""
    before = remaining_steps(target) - remaining_steps(source)
    after_source = (_left(source) + request.blocks) / max(1, source.load - 1)
    after_target = (_left(target) - request.blocks) / (target.load + 1)
    return 0 < after_target - after_source < before and after_target >= bound


class _FewestWaiting:
    """The replica with the shortest queue."""

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return min(range(len(replicas)), key=lambda place: replicas[place].engine.waiting)


class _BySent:
    """The replica that was sent the fewest requests, or the most, since the start."""

    def __init__(self, choose: Callable[..., int]) -> None:
        self._choose = choose
        self._sent: Counter[int] = Counter()

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        place = self._choose(
            range(len(replicas)), key=lambda place: self._sent[replicas[place].number]
        )
        self._sent[replicas[place].number] += 1
        return place


class _RoundRobin:
    def __init__(self) -> None:
        self._turn = -1

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        self._turn = (self._turn + 1) % len(replicas)
        return self._turn


_V0_DISPATCH: dict[str, Callable[[], Dispatcher]] = {
    "load": lambda: _Freest(remaining_steps),
    "balanced": lambda: _BySent(min),
    "queue": _FewestWaiting,
    "rr": _RoundRobin,
    "flood": lambda: _BySent(max),
}
