"""Replicas behind a dispatcher that looks at their load: what migration is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from servescope.engine.dispatchers import FewestRequests, LeastMemory, memory_load
from servescope.engine.policy import Parts, Scale
from servescope.engine.systems.vllm_v0 import VllmV0

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica


@dataclass(frozen=True, slots=True)
class LeastLoad:
    """vLLM 0 on every replica; a request goes to where the fewest wait and run."""

    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the scheduler and the dispatcher."""
        return Parts(
            VllmV0(self.max_num_batched_tokens, self.max_num_seqs), dispatch=FewestRequests()
        )


@dataclass(frozen=True, slots=True)
class Infaas:
    """INFaaS++, the strongest baseline of Llumnix: the least memory load, counting the queue.

    With `scaling`, a replica comes when the mean memory load is above `high`, and goes when it is
    below `low` (the bounds are ASSUMED).
    """

    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256
    scaling: bool = False
    low: float = 0.3
    high: float = 0.8
    interval_s: Annotated[float, Meta(gt=0)] = 10.0
    most_replicas: Annotated[int, Meta(ge=1)] = 16

    def parts(self, replicas: int) -> Parts:
        """Return the scheduler, the dispatcher and what scales."""
        scheduler = VllmV0(self.max_num_batched_tokens, self.max_num_seqs)
        control = _LoadThresholds(self, replicas) if self.scaling else None
        return Parts(scheduler, dispatch=LeastMemory(), control=control)


class _LoadThresholds:
    def __init__(self, system: Infaas, replicas: int) -> None:
        self._system = system
        self.period_s = system.interval_s
        self._asked = replicas  # how many replicas there have been, with those that still start
        self._seen: set[int] = set()

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Scale]:
        system = self._system
        self._seen.update(replica.number for replica in replicas)
        starting = self._asked - len(self._seen)
        open_ = [replica for replica in replicas if replica.accepting]
        mean = sum(map(memory_load, open_)) / len(open_)
        if mean > system.high and len(open_) + starting < system.most_replicas:
            self._asked += 1
            yield Scale(add=1)
        elif mean < system.low and len(open_) > 1:
            yield Scale(drain=min(open_, key=lambda replica: replica.load).number)
