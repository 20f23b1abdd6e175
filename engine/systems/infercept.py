"""InferCept (arXiv 2402.01869): keep, swap or recompute what a tool's call interrupts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from servescope.engine.policy import Batch, Keep, Parts, View
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.batching import unified
from servescope.engine.systems.pins import expired, short_of_room, stuck

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

Way = Literal["preserve", "swap", "discard"]


@dataclass(frozen=True, slots=True)
class InferCept:
    """Do with a paused program's keys and values what wastes the least memory over time.

    `policy` min_waste weighs the three ways when a pause begins, with an oracle of its length;
    preserve, swap and discard always do the same. What is preserved gives way only when nothing
    runs, or one call that cannot go on. The budget of tokens is the code's 384.
    """

    policy: Literal["min_waste", "preserve", "swap", "discard"] = "min_waste"
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 384
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the queue, and what becomes of a paused program."""
        queue = _ByFirstArrival(self.max_num_batched_tokens, self.max_num_seqs)
        waste = _MinWaste(self, queue)
        return Parts(
            queue,
            retain=waste,
            deployed=waste.profile,
            prefix_cache=True,
            oracle=self.policy == "min_waste",
        )


class _ByFirstArrival:
    """A program is one request, which goes on where it was: kept, then swapped, then the rest."""

    def __init__(self, max_tokens: int, max_seqs: int) -> None:
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs

    def plan(self, view: View) -> Batch:
        def key(request: Request) -> tuple[bool, bool, float, float]:
            program, host = request.program_id, view.pool.host
            kept, swapped = program in view.pinned, program in host
            return not kept, not swapped, request.program_began_s, request.arrival_s

        def order(waiting: Sequence[Request]) -> Iterable[Request]:
            return sorted(waiting, key=key)

        batch = unified(view, self._max_tokens, self._max_seqs, order)
        return batch._replace(swap=True) if batch.preempt else batch

    def short_of_room(self, view: View, batch: Batch) -> bool:
        """Whether blocks are what keeps the head of the queue out, or makes a plan preempt."""
        return short_of_room(view, batch, self._max_tokens, self._max_seqs)


class _MinWaste:
    def __init__(self, system: InferCept, queue: _ByFirstArrival) -> None:
        self._system = system
        self._queue = queue
        self._step = 0.0, 0.0  # seconds of a step: each token, and at all
        self._swap_token_s = 0.0

    def profile(self, replicas: Sequence[Replica]) -> None:
        """Take a step's time as a line in its tokens, as the authors' profile does."""
        step_time, most = replicas[0].engine.step_time, self._system.max_num_batched_tokens
        one, all_ = (step_time(Load(n, 1, 0, n * n / 2)) for n in (1, most))
        slope = (all_ - one) / max(1, most - 1)
        self._step = slope, one - slope
        self._swap_token_s = (step_time(Load(1, 1, 0, 0.5, 1000)) - one) / 1000

    def finished(self, request: Request, view: View) -> Keep:
        way: str = self._system.policy
        if request.last or request.program_id is None:
            return Keep("drop")
        if way == "min_waste":
            running, held = len(view.decoding), view.decoding.kv_tokens
            way = self.least(request.computed, request.oracle_pause_s or 0.0, running, held)
        if way == "preserve":
            return Keep("pin", math.inf)
        return Keep("drop", copy=way == "swap")

    def least(
        self, context_tokens: int, pause_s: float, running_tokens: int, held_tokens: int
    ) -> Way:
        """Return what wastes the fewest token-seconds of memory."""
        most = self._system.max_num_batched_tokens
        waste: dict[Way, float] = {
            "preserve": pause_s * context_tokens,
            "discard": discard_waste(
                context_tokens, running_tokens, held_tokens, most, *self._step
            ),
            "swap": swap_waste(context_tokens, held_tokens, self._swap_token_s),
        }
        return min(waste, key=lambda way: waste[way])

    def unpin(self, view: View) -> Iterable[str]:
        return expired(view)

    def pressed(self, view: View, batch: Batch) -> str | None:
        if not stuck(view, batch) or not self._queue.short_of_room(view, batch):
            return None
        return max(view.pinned.values(), key=lambda pin: pin.tokens).program_id


def discard_waste(
    context_tokens: int,
    running_tokens: int,
    held_tokens: int,
    max_tokens: int,
    token_s: float,
    step_s: float,
) -> float:
    """Return the token-seconds that computing a context again wastes, chunk by chunk.

    A chunk is what `running_tokens` leave of a step's `max_tokens`. While it is computed the chunks
    before it wait, and so do the `held_tokens` of those that run, for what it adds to a step (the
    authors' `discard_waste`).
    """
    chunk = max(max_tokens - running_tokens, 1)
    whole = max(math.ceil(context_tokens / chunk) - 1, 0)
    full_s = token_s * max_tokens + step_s
    waste = full_s * (whole + 1) * whole / 2 * chunk
    waste += token_s * chunk * whole * held_tokens
    last = context_tokens % chunk
    return waste + token_s * last * (held_tokens + last)


def swap_waste(context_tokens: int, held_tokens: int, swap_token_s: float) -> float:
    """Return the token-seconds that a swap out and in wastes, while all that is held waits."""
    return 2 * swap_token_s * context_tokens * (context_tokens + held_tokens)
