"""Systems of before paged memory: they reserve room for the longest answer there could be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.kvcache import blocks_for
from servescope.engine.policy import Batch, Conserving, View
from servescope.engine.systems.admission import Admission
from servescope.engine.systems.batching import decodes_alone
from servescope.engine.systems.preempt import STEADY, preempt_last


@dataclass(frozen=True, slots=True)
class FasterTransformer:
    """Admit a batch only when the one before is done with its longest answer.

    Every request reserves `max_tokens` of the KV cache (NVIDIA FasterTransformer, as in Sarathi's
    repository).
    """

    max_num_seqs: Annotated[int, Meta(ge=1)] = 16
    max_tokens: Annotated[int, Meta(ge=1)] = 2048

    def plan(self, view: View) -> Batch:
        """Return a new batch of whole prompts, or else all decodes."""
        if view.decoding or view.prefilling:
            return decodes_alone(view)
        step = _reserving(view, self.max_num_seqs, self.max_tokens, view.pool.room)
        return Batch(admit=step.admit, prefill=step.prefill)


@dataclass(frozen=True, slots=True)
class Orca:
    """Decode all, and compute whole prompts beside them as seats come free.

    Every request reserves `max_tokens` of the KV cache (Yu et al., OSDI 2022; the batch of 16 as in
    Sarathi's repository).
    """

    max_num_seqs: Annotated[int, Meta(ge=1)] = 16
    max_tokens: Annotated[int, Meta(ge=1)] = 2048

    @property
    def conserves(self) -> Conserving:
        """What a checked run holds it to."""
        return Conserving(self.max_num_seqs, reserve=self.max_tokens)

    def plan(self, view: View) -> Batch:
        """Return all decodes, and the prompts that find a seat."""
        kept = preempt_last(view)
        seats = self.max_num_seqs - kept.decoding
        step = _reserving(view, 0 if kept.preempted else seats, self.max_tokens, kept.room)
        steps = 1 if kept.preempted or step.admit else STEADY
        return Batch(kept.preempted, False, step.admit, step.prefill, decode=True, steps=steps)


def _reserving(view: View, seats: int, max_tokens: int, room: int) -> Admission:
    """Admit whole prompts, each with blocks for the longest answer.

    What is reserved is not outgrown, so no watermark is left free.
    """
    step = Admission(view, seats, None, room + view.pool.watermark)
    most = min(blocks_for(max_tokens), view.pool.total)
    for request in view.waiting:
        if not step.offer(request, blocks=most):
            break
    return step
