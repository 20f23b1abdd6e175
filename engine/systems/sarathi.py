"""Sarathi-Serve (Agrawal et al., OSDI 2024): chunked prefills that never stall a decode."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.policy import Batch, View
from servescope.engine.systems.admission import Admission
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
        # No more requests than tokens in the budget: each of them will want to decode.
        seats = min(self.max_num_seqs, self.chunk_tokens) - decodes - len(unfinished)
        step = Admission(view, seats, self.chunk_tokens - decodes, room)
        for request in unfinished:
            step.go_on(request)
        if not preempted:  # who was just preempted is the head of the queue, and does not fit
            for request in view.waiting:
                if not step.offer(request):
                    break
        steps = 1 if step.admit or step.prefill or preempted else STEADY
        return Batch(preempted, False, step.admit, step.prefill, decode=True, steps=steps)
