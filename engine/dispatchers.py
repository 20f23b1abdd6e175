"""Who serves a request: ways to choose among replicas that several systems share.

Round robin is what a cluster does by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servescope.engine.request import Request

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica


class FewestRequests:
    """Least load: the replica where the fewest requests wait and run."""

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return its place."""
        return min(range(len(replicas)), key=lambda place: replicas[place].load)


class LeastMemory:
    """The smallest share of KV blocks that are held or that the queue will need (INFaaS++)."""

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return its place."""
        return min(range(len(replicas)), key=lambda place: memory_load(replicas[place]))


@dataclass(frozen=True, slots=True)
class LongestPrefix:
    """Where most of the prompt is cached, unless the load is uneven (SGLang's router).

    A hit counts from a share of the prompt on; below, the replica whose cache is emptiest. The load
    is uneven when the most requests exceed the fewest by both bounds. The defaults are those of the
    router's later releases; the first had 0.5, 32 and 1.0001.
    """

    cache_threshold: float = 0.3
    balance_abs_threshold: int = 64
    balance_rel_threshold: float = 1.5

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return its place."""
        loads = [replica.load for replica in replicas]
        most, fewest = max(loads), min(loads)
        uneven = most - fewest > self.balance_abs_threshold
        if uneven and most > self.balance_rel_threshold * fewest:
            return loads.index(fewest)
        known = [replica.engine.pool.cached(request) for replica in replicas]
        best = max(known)
        if best > self.cache_threshold * request.input_tokens:
            return known.index(best)
        return min(range(len(replicas)), key=lambda place: _cached_blocks(replicas[place]))


class Sticky:
    """A program stays on the replica of its first call, which goes to where the least load is."""

    def __init__(self) -> None:
        self._homes: dict[str, int] = {}

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return its place."""
        numbers = [replica.number for replica in replicas]
        home = self._homes.get(request.program_id or "")
        place = numbers.index(home) if home in numbers else None
        if place is None:
            place = min(range(len(replicas)), key=lambda each: replicas[each].load)
        if request.program_id is not None:
            self._homes[request.program_id] = numbers[place]
            self.forget(request)
        return place

    def forget(self, request: Request) -> None:
        """Forget a program with its last call."""
        if request.last:
            self._homes.pop(request.program_id or "", None)


def memory_load(replica: Replica) -> float:
    """Return the share of a replica's KV blocks that requests hold or wait for."""
    view = replica.view
    queued = sum(request.demand for request in view.waiting)
    return (view.pool.used + queued) / view.pool.total


def _cached_blocks(replica: Replica) -> int:
    prefixes = replica.engine.pool.prefixes
    return 0 if prefixes is None else prefixes.blocks
