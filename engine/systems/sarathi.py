"""Sarathi-Serve (Agrawal et al., OSDI 2024): chunked prefills that never stall a decode."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.kvcache import blocks_for
from servescope.engine.policy import Batch, View
from servescope.engine.request import Request
from servescope.engine.systems.preempt import STEADY, preempt_last


@dataclass(frozen=True, slots=True)
class Sarathi:
    """Fill a budget of tokens a step: decodes, then unfinished prompts, then the queue.

    A prompt gets all its blocks when it is admitted.
    """

    chunk_tokens: Annotated[int, Meta(ge=1)] = 512
    max_num_seqs: Annotated[int, Meta(ge=1)] = 128

    def plan(self, view: View) -> Batch:
        """Return all decodes and as much of the prompts as the budget leaves room for."""
        preempted, unfinished, decodes, room = preempt_last(view)
        budget = self.chunk_tokens - decodes
        prefill = []
        for request in unfinished:
            piece = min(request.remaining, budget)
            if piece > 0:
                prefill.append((request, piece))
                budget -= piece

        admit: list[tuple[Request, int]] = []
        if not preempted:  # who was just preempted is the head of the queue, and does not fit
            # No more requests than tokens in the budget: each of them will want to decode.
            seats = min(self.max_num_seqs, self.chunk_tokens) - decodes - len(unfinished)
            room -= view.pool.watermark
            for request in view.waiting:
                if budget <= 0 or len(admit) >= seats:
                    break
                blocks = blocks_for(request.remaining)
                cost = view.pool.cost(request, blocks)
                if cost > room:
                    break
                piece = min(request.remaining - view.pool.cached(request), budget)
                admit.append((request, blocks))
                prefill.append((request, piece))
                budget -= piece
                room -= cost
        steps = 1 if prefill or preempted else STEADY
        return Batch(preempted, False, admit, prefill, decode=True, steps=steps)
