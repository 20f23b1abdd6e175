"""Pins between the calls of a program: when they are over, and when they stand in the way."""

from __future__ import annotations

from servescope.engine.policy import Batch, View


def expired(view: View) -> list[str]:
    """Return the programs whose pin is over, and of which no call waits."""
    over = [pin.program_id for pin in view.pinned.values() if view.now >= pin.until_s]
    if not over:
        return over
    back = {request.program_id for request in view.waiting}
    return [program for program in over if program not in back]


def short_of_room(view: View, batch: Batch, max_tokens: int, max_seqs: int) -> bool:
    """Whether blocks are what keeps the head of the queue out, or makes a plan preempt.

    Not so if the step has no token or no seat left to give.
    """
    if batch.preempt:
        return True
    running = len(view.prefilling) + len(view.decoding)
    tokens = sum(piece for _, piece in batch.prefill) + len(view.decoding) * batch.decode
    out = bool(view.waiting) and not batch.admit
    return out and running < max_seqs and tokens < max_tokens


def stuck(view: View, batch: Batch) -> bool:
    """Whether nothing runs, or one call that a plan preempts: nobody will make room but a pin."""
    running = len(view.prefilling) + len(view.decoding)
    return running <= (1 if batch.preempt else 0)
