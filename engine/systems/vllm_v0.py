"""vLLM before chunked prefill (Kwon et al., 2023): prompts first, whole, on their own."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.kvcache import blocks_for
from servescope.engine.policy import Batch, View
from servescope.engine.request import Request
from servescope.engine.systems.preempt import STEADY, preempt_last


@dataclass(frozen=True, slots=True)
class VllmV0:
    """Prefill whatever waits and fits; decode only when nothing does.

    A prompt longer than `max_num_batched_tokens` gets a step of its own.
    """

    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def plan(self, view: View) -> Batch:
        """Return the prompts that fit, or else all decodes."""
        admit: list[tuple[Request, int]] = []
        prefill = []
        tokens = self.max_num_batched_tokens
        seats = self.max_num_seqs - len(view.decoding)
        room = view.pool.room - view.pool.watermark
        for request in view.waiting:
            blocks = blocks_for(request.remaining)
            cost = view.pool.cost(request, blocks)
            missing = request.remaining - view.pool.cached(request)
            if len(admit) >= seats or cost > room or (admit and missing > tokens):
                break
            admit.append((request, blocks))
            prefill.append((request, missing))
            tokens -= missing
            room -= cost
        if prefill:
            return Batch(admit=admit, prefill=prefill)
        kept = preempt_last(view)
        return Batch(kept.preempted, decode=True, steps=1 if kept.preempted else STEADY)
