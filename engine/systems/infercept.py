"""InferCept (Abhyankar et al., ICML 2024): keep, swap or recompute what a pause interrupts."""

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
from servescope.engine.systems.continuum import expired, short_of_room

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica


Way = Literal["preserve", "swap", "discard"]


@dataclass(frozen=True, slots=True)
class InferCept:
    """Do with a paused program's keys and values what wastes the least memory over time.

    `policy` min_waste weighs the three for each pause, when it begins, with an oracle of its
    length; preserve, swap and discard always do the same. The paper weighs again in every step and
    bounds what is swapped in one; here the three are weighed once, and a swap blocks the step that
    brings it back. `chunk_tokens` is the paper's 384, into which a recomputation is cut.
    """

    policy: Literal["min_waste", "preserve", "swap", "discard"] = "min_waste"
    chunk_tokens: Annotated[int, Meta(ge=1)] = 384
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 2048
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return vLLM's budget, and what becomes of a paused program."""
        waste = _MinWaste(self)
        return Parts(
            _Budget(self),
            retain=waste,
            deployed=waste.profile,
            prefix_cache=True,
            oracle=self.policy == "min_waste",
        )


class _Budget:
    def __init__(self, system: InferCept) -> None:
        self._system = system

    def plan(self, view: View) -> Batch:
        return unified(view, self._system.max_num_batched_tokens, self._system.max_num_seqs)


class _MinWaste:
    def __init__(self, system: InferCept) -> None:
        self._system = system
        self._step = 0.0, 0.0  # seconds of a step: each token, and at all
        self._swap_token_s = 0.0

    def profile(self, replicas: Sequence[Replica]) -> None:
        """Take a step's time as a line in its tokens, as the authors' profile does."""
        step_time, chunk = replicas[0].engine.step_time, self._system.chunk_tokens
        least, most = (step_time(Load(n, 1, 0, n * n / 2)) for n in (1, chunk))
        slope = (most - least) / max(1, chunk - 1)
        self._step = slope, least - slope
        self._swap_token_s = (step_time(Load(1, 1, 0, 1.0, 1000)) - least) / 1000

    def finished(self, request: Request, view: View) -> Keep:
        policy = self._system.policy
        if request.last or request.program_id is None:
            return Keep("drop")
        if policy == "min_waste":
            policy = self.least(request.computed, request.oracle_pause_s or 0.0, len(view.decoding))
        if policy == "preserve":
            return Keep("pin", math.inf)
        return Keep("drop", copy=policy == "swap")

    def least(self, context_tokens: int, pause_s: float, running_tokens: int) -> Way:
        """Return what wastes the fewest token-seconds of memory."""
        waste: dict[Way, float] = {
            "preserve": pause_s * context_tokens,
            "discard": recompute_waste(
                context_tokens, running_tokens, self._system.chunk_tokens, *self._step
            ),
            # out and in again, while the batch waits and holds its memory
            "swap": 2 * self._swap_token_s * context_tokens * (context_tokens + running_tokens),
        }
        return min(waste, key=lambda way: waste[way])

    def unpin(self, view: View) -> Iterable[str]:
        return expired(view)

    def pressed(self, view: View, batch: Batch) -> str | None:
        if not short_of_room(view, next(iter(view.waiting), None)):
            return None
        return max(view.pinned.values(), key=lambda pin: pin.tokens).program_id


def recompute_waste(
    context_tokens: int, running_tokens: int, chunk_tokens: int, slope_s: float, fixed_s: float
) -> float:
    """Return the token-seconds that computing a context again wastes, chunk by chunk.

    Each chunk holds what was computed before it for a step, and holds up those that run (equation
    of the paper's section 4, as its code has it).
    """
    chunk = max(chunk_tokens - running_tokens, 1)
    whole = math.ceil(context_tokens / chunk) - 1
    full_s = slope_s * chunk_tokens + fixed_s
    last = context_tokens - whole * chunk
    last_s = slope_s * (last + running_tokens) + fixed_s
    waste = full_s * (whole + 1) * whole / 2 * chunk
    waste += slope_s * chunk * whole * running_tokens
    return waste + last_s * context_tokens + slope_s * last * running_tokens
