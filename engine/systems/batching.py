"""Ways to fill a step, for any order of the queue.

`order` is given the waiting requests only when some could be admitted, and returns them as they
shall come; the first that cannot be admitted ends it. None is first come, first served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from servescope.engine.kvcache import blocks_for
from servescope.engine.policy import Batch, View
from servescope.engine.request import Request
from servescope.engine.systems.admission import Admission
from servescope.engine.systems.preempt import STEADY, preempt_last

Order = Callable[[Sequence[Request]], Iterable[Request]]


def prompts_first(
    view: View, max_tokens: int | None, max_seqs: int, order: Order | None = None
) -> Batch:
    """Return the whole prompts that fit into `max_tokens`, on their own; else all decodes.

    The way of vLLM before chunked prefill. A longer prompt gets a step of its own.
    """
    step = Admission(view, max_seqs - len(view.decoding), max_tokens, view.pool.room)
    _admit(step, view, order, whole=True)
    if step.admit:
        return Batch(admit=step.admit, prefill=step.prefill)
    return decodes_alone(view)


def chunks_first(view: View, chunk_tokens: int, max_seqs: int, order: Order | None = None) -> Batch:
    """Return up to `chunk_tokens` of prompts, on their own; else all decodes. The way of SGLang."""
    seats = max_seqs - len(view.decoding) - len(view.prefilling)
    step = Admission(view, seats, chunk_tokens, view.pool.room)
    for request in view.prefilling:
        step.go_on(request)
    _admit(step, view, order)
    if step.admit or step.prefill:
        return Batch(admit=step.admit, prefill=step.prefill)
    return decodes_alone(view)


def stall_free(
    view: View,
    chunk_tokens: int | None,
    max_seqs: int,
    order: Order | None = None,
    withheld: Callable[[Request], int] = lambda request: 0,
) -> Batch:
    """Return all decodes, and prompts in what they leave of `chunk_tokens`.

    The way of Sarathi-Serve: a prompt gets all its blocks when it is admitted. Without a limit,
    prompts are computed whole beside the decodes. So many tokens of the limit as are `withheld`
    from an unfinished prompt are left to those after it.
    """
    preempted, unfinished, decodes, room = preempt_last(view)
    seats = max_seqs - decodes - len(unfinished)
    tokens = None
    if chunk_tokens is not None:
        # No more requests than tokens in the budget: each of them will want to decode.
        seats = min(seats, chunk_tokens - decodes - len(unfinished))
        tokens = chunk_tokens - decodes
    step = Admission(view, seats, tokens, room)
    for request in unfinished:
        step.go_on(request, withheld(request))
    if not preempted:  # who was just preempted is the head of the queue, and does not fit
        _admit(step, view, order)
    return _with_decodes(step, preempted)


def unified(view: View, max_tokens: int, max_seqs: int, order: Order | None = None) -> Batch:
    """Return all decodes, and chunks of prompts as far as `max_tokens` reach.

    The way of vLLM 1: a prompt gets blocks only for the tokens that are computed, so prompts may
    outgrow the cache; then the last admitted is preempted.
    """
    victims, prefilling, decodes, room = preempt_last(view)
    preempted, unfinished = list(victims), list(prefilling)
    step = Admission(
        view, max_seqs - decodes - len(unfinished), max_tokens - decodes, room, paged=True
    )
    for place, request in enumerate(prefilling):
        if place >= len(unfinished):
            break  # preempted, and so are all after it
        missing = _missing(request, step.tokens or 0)
        while missing > room and unfinished[-1] is not request:
            victim = unfinished.pop()
            preempted.append(victim)
            room += victim.own_blocks
        if missing > room:
            unfinished.pop()
            preempted.append(request)
            room += request.own_blocks
            break
        step.go_on(request)
        room -= missing
    step.room = room - step.watermark
    if not preempted:
        _admit(step, view, order)
    return _with_decodes(step, preempted)


def decodes_alone(view: View) -> Batch:
    """Return all decodes, without those that must be preempted."""
    kept = preempt_last(view)
    return Batch(kept.preempted, decode=True, steps=1 if kept.preempted else STEADY)


def _missing(request: Request, tokens: int) -> int:
    """Return the blocks that the next piece of a prompt needs beyond those that it holds."""
    piece = min(request.remaining, tokens)
    return max(0, blocks_for(request.computed + piece) - request.blocks)


def _admit(step: Admission, view: View, order: Order | None, *, whole: bool = False) -> None:
    if not step.open or not view.waiting:
        return
    for request in view.waiting if order is None else order(view.waiting):
        if not step.offer(request, whole=whole):
            break


def _with_decodes(step: Admission, preempted: Sequence[Request]) -> Batch:
    changes = step.admit or step.prefill or preempted
    return Batch(
        preempted, False, step.admit, step.prefill, decode=True, steps=1 if changes else STEADY
    )
