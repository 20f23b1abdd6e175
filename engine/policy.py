"""What a scheduling policy is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import BlockPool
from servescope.engine.request import Request


class View(NamedTuple):
    """The engine as a policy sees it at the start of a step; to be read, never changed.

    Waiting requests stand in the order of the queue, unfinished prompts in the order in which they
    were admitted, decoding requests in the order in which their prompts were finished.
    """

    waiting: Sequence[Request]
    prefilling: Sequence[Request]
    decoding: Decoding
    pool: BlockPool
    now: float = 0.0


class Batch(NamedTuple):
    """One step's plan; the engine carries it out from top to bottom.

    `steps` is a promise: a batch of decodes alone would be planned again so many times, as long as
    nothing arrives or leaves and the blocks suffice. The engine then runs them at one go.
    """

    preempt: Sequence[Request] = ()  # put them at the front of the queue, without their KV blocks
    swap: bool = False  # preempt by a copy to host memory, instead of computing again
    admit: Sequence[tuple[Request, int]] = ()  # out of the queue, with so many blocks at once
    prefill: Sequence[tuple[Request, int]] = ()  # compute so many tokens of their prompt
    decode: bool = False  # compute the last token of every request that decodes
    steps: int = 1


class System(Protocol):
    """A scheduling policy."""

    def plan(self, view: View) -> Batch:
        """Return what the next step does."""
        ...
