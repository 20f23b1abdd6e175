"""Llumnix (Sun et al., OSDI 2024): requests move between replicas while they run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from servescope.engine.policy import Batch, Dispatcher, Migrate, Parts, Scale, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import prompts_first

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

Load = Callable[["Replica"], float]


@dataclass(frozen=True, slots=True)
class Llumnix:
    """Dispatch, migrate and scale by freeness: the blocks that are left for each running request.

    Of a queue only the head counts. Requests of high priority (below 0) count as if they held
    `headroom` of their replica's blocks between them, and a replica that is to go counts as full.
    Every `period_s` the replica with the least freeness, if that is below `migrate_below`, sends
    a request to the one with the most, if that is above `migrate_above`. With `scaling` the mean
    freeness is kept between `scale_out_below` and `scale_in_above` (10 and 60 in the released
    code). Bounds of migration and headroom are not in the paper and ASSUMED.
    """

    migration: bool = True
    period_s: Annotated[float, Meta(gt=0)] = 0.5
    migrate_below: float = 3.0
    migrate_above: float = 10.0
    headroom: Annotated[float, Meta(ge=0, le=1)] = 0.3
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
            dispatch=_Freest(self.freeness),
            control=_Global(self) if self.migration or self.scaling else None,
        )

    def freeness(self, replica: Replica) -> float:
        """Return a replica's freeness in blocks a request: (M - sum of virtual usages) / B."""
        view = replica.view
        if not replica.accepting:
            return -math.inf
        used: float = view.pool.used
        if view.waiting:
            used += view.waiting[0].demand
        if any(request.priority < 0 for request in (*view.prefilling, *view.decoding)):
            used += self.headroom * view.pool.total
        running = len(view.prefilling) + len(view.decoding)
        return (view.pool.total - used) / max(1, running)


@dataclass(frozen=True, slots=True)
class LlumnixV0:
    """Llumnix as released (AlibabaPAI/llumnix): remaining steps instead of freeness.

    All that waits counts, priorities have no headroom, and no replica counts as full because it is
    to go. Migration is off there unless it is switched on; here it is on, since the system is
    nothing else than vLLM without it. `dispatch_policy` and `order` have the names of the code,
    `pair` its two ways to pair replicas. Its scaling, which raises an error as released, is left
    out.
    """

    dispatch_policy: Literal["load", "balanced", "queue", "rr", "flood"] = "load"
    enable_routine_migration: bool = True
    polling_interval_s: Annotated[float, Meta(gt=0)] = 0.05
    pair: Literal["defrag", "balanced"] = "defrag"
    migrate_out_below: float = 3.0
    order: Literal["SR", "LR", "LCR", "FCW"] = "SR"
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
    view = replica.view
    free = view.pool.room - view.pool.watermark - sum(each.demand for each in view.waiting)
    return free / max(1, replica.load)


class _ByPriority:
    """vLLM 0, with smaller priorities first and first come, first served among equals."""

    def __init__(self, max_tokens: int, max_seqs: int, *, by_priority: bool = True) -> None:
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._order = _first if by_priority else None

    def plan(self, view: View) -> Batch:
        return prompts_first(view, self._max_tokens, self._max_seqs, self._order)


def _first(waiting: Sequence[Request]) -> Iterable[Request]:
    return sorted(waiting, key=lambda request: request.priority)


class _Freest:
    """The replica with the most of something."""

    def __init__(self, freeness: Load) -> None:
        self._freeness = freeness

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return max(range(len(replicas)), key=lambda place: self._freeness(replicas[place]))


class _Global:
    """The global scheduler: pairs replicas for migration, and counts them."""

    def __init__(self, system: Llumnix) -> None:
        self._system = system
        self.period_s = system.period_s
        self._scaled_s = 0.0

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate | Scale]:
        system = self._system
        free = {replica.number: system.freeness(replica) for replica in replicas}
        if system.migration:
            yield from self._pairs(replicas, free)
        if system.scaling and now - self._scaled_s >= system.scale_interval_s:
            self._scaled_s = now
            yield from self._scale(replicas, free)

    def _pairs(self, replicas: Sequence[Replica], free: dict[int, float]) -> Iterable[Migrate]:
        system = self._system
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

    def _scale(self, replicas: Sequence[Replica], free: dict[int, float]) -> Iterable[Scale]:
        system = self._system
        open_ = [replica for replica in replicas if replica.accepting]
        mean = sum(free[replica.number] for replica in open_) / len(open_)
        if mean < system.scale_out_below and len(open_) < system.most_replicas:
            yield Scale(add=1)
        elif mean > system.scale_in_above and len(open_) > 1:
            yield Scale(drain=min(open_, key=lambda each: each.load).number)


class _Routine:
    """Routine migration as released: one request at a time from each replica of a pair."""

    def __init__(self, system: LlumnixV0) -> None:
        self._system = system
        self.period_s = system.polling_interval_s

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate]:
        left = {replica.number: remaining_steps(replica) for replica in replicas}
        ready = sorted((each for each in replicas if not each.moving), key=lambda r: left[r.number])
        bound = self._system.migrate_out_below
        sources = [each for each in ready if left[each.number] < bound]
        targets = [each for each in reversed(ready) if left[each.number] > bound]
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
        if order == "LCR":  # last come running
            return max(running, key=lambda each: each.arrival_s)
        return running[0]  # FCW: as they came


def _evens_out(source: Replica, target: Replica, request: Request, bound: float) -> bool:
    """Whether a migration makes two replicas more alike, and leaves the target above the bound."""
    before = remaining_steps(target) - remaining_steps(source)
    rooms = [
        replica.view.pool.room - sum(each.demand for each in replica.view.waiting)
        for replica in (source, target)
    ]
    after_source = (rooms[0] + request.blocks) / max(1, source.load - 1)
    after_target = (rooms[1] - request.blocks) / (target.load + 1)
    return 0 < after_target - after_source < before and after_target >= bound


class _Fewest:
    def __init__(self, count: Callable[[Replica], int]) -> None:
        self._count = count

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return min(range(len(replicas)), key=lambda place: self._count(replicas[place]))


class _RoundRobin:
    def __init__(self) -> None:
        self._turn = -1

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        self._turn += 1
        return self._turn % len(replicas)


class _Flood:
    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return max(range(len(replicas)), key=lambda place: replicas[place].load)


_V0_DISPATCH: dict[str, Callable[[], Dispatcher]] = {
    "load": lambda: _Freest(remaining_steps),
    "balanced": lambda: _Fewest(lambda replica: replica.load),
    "queue": lambda: _Fewest(lambda replica: replica.engine.waiting),
    "rr": _RoundRobin,
    "flood": _Flood,
}
