"""Shortest first and longest first: the orders that BurstGPT's authors compared with FCFS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from servescope.engine.policy import Batch, Conserving, Parts, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import prompts_first

By = Literal["prompt", "total"]


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """Whole prompts before decodes, as vLLM 0, and the shortest request of the queue first.

    `by` total counts the answer too: an oracle, since no server knows it.
    """

    by: By = "prompt"
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the scheduler."""
        return Parts(_ByLength(self, longest=False), oracle=self.by == "total")


@dataclass(frozen=True, slots=True)
class LongestFirst:
    """The same with the longest request of the queue first."""

    by: By = "prompt"
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the scheduler."""
        return Parts(_ByLength(self, longest=True), oracle=self.by == "total")


class _ByLength:
    def __init__(self, system: ShortestFirst | LongestFirst, *, longest: bool) -> None:
        self._system = system
        self._longest = longest

    @property
    def conserves(self) -> Conserving:
        return Conserving(self._system.max_num_seqs)

    def plan(self, view: View) -> Batch:
        system = self._system
        return prompts_first(
            view, system.max_num_batched_tokens, system.max_num_seqs, self._ordered
        )

    def _ordered(self, waiting: Sequence[Request]) -> Iterable[Request]:
        return sorted(waiting, key=self._length, reverse=self._longest)

    def _length(self, request: Request) -> int:
        return request.input_tokens + (request.oracle_tokens or 0)
