"""SGLang (Zheng et al., 2024): the longest known prefix first, and to where it is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.dispatchers import LongestPrefix
from servescope.engine.policy import Batch, Conserving, Parts, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import chunks_first

# With a longer queue SGLang stops looking for prefixes: it would take too long.
LONGEST_QUEUE = 128


@dataclass(frozen=True, slots=True)
class Sglang:
    """Chunks of prompts before decodes, those first whose prefix is longest in the radix cache.

    Several replicas stand behind SGLang's cache-aware router. Answers' lengths are not estimated at
    admission, as SGLang does with `max_tokens`.
    """

    chunked_prefill_size: Annotated[int, Meta(ge=1)] = 8192
    max_running_requests: Annotated[int, Meta(ge=1)] = 256
    longest_prefix_first: bool = True

    def parts(self, replicas: int) -> Parts:
        """Return the scheduler, the radix cache and the router."""
        return Parts(_Scheduler(self), dispatch=LongestPrefix(), prefix_cache=True)


class _Scheduler:
    def __init__(self, system: Sglang) -> None:
        self._system = system

    @property
    def conserves(self) -> Conserving:
        system = self._system
        return Conserving(system.max_running_requests, system.chunked_prefill_size)

    def plan(self, view: View) -> Batch:
        def order(waiting: Sequence[Request]) -> Iterable[Request]:
            if not self._system.longest_prefix_first or len(waiting) > LONGEST_QUEUE:
                return waiting
            return sorted(waiting, key=view.pool.cached, reverse=True)

        system = self._system
        return chunks_first(view, system.chunked_prefill_size, system.max_running_requests, order)
