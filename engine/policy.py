"""What a scheduling policy is given, and what it gives back."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from servescope.engine.kvcache import BlockPool
from servescope.engine.request import Request


class View(NamedTuple):
    """The engine as a policy sees it at the start of a step; to be read, never changed.

    Waiting requests stand in the order of the queue, unfinished prompts in the order in which they
    were admitted, decoding requests in the order in which their prompts were finished.
    """

    waiting: Sequence[Request]
    prefilling: Sequence[Request]
    decoding: Sequence[Request]
    pool: BlockPool


class Batch(NamedTuple):
    """One step's plan; the engine carries it out from top to bottom."""

    preempt: Sequence[Request] = ()  # drop their KV and put them at the front of the queue
    admit: Sequence[tuple[Request, int]] = ()  # out of the queue, with so many blocks at once
    prefill: Sequence[tuple[Request, int]] = ()  # compute so many tokens of their prompt
    decode: Sequence[Request] = ()  # compute their last token


class System(Protocol):
    """A scheduling policy: a pure function of the view."""

    def plan(self, view: View) -> Batch:
        """Return what the next step does."""
        ...
