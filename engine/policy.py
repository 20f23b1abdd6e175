"""What a serving system is made of, what each part is given, and what it gives back.

A system is a frozen dataclass of parameters. One that only schedules has a method `plan` and is
its own scheduler, and may have a parameter `prefix_cache`; any other has a method `parts`, which
composes it anew for every run:

    annotate    hears of every request that comes and goes, and may give it a rank
    dispatch    chooses the replica of a request
    schedule    plans the steps of a replica
    retain      what becomes of keys and values when a request is done
    partition   lanes of one GPU that compute side by side
    control     looks at all replicas every so often: migrates, scales
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from servescope.engine.blame import blaming, wrong_answer
from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import BlockPool, blocks_for
from servescope.engine.request import Request

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

LISTS = (list, tuple)  # what a plan's requests may stand in
WHOLE = "whole"  # the lane of a GPU that is not partitioned


class View(NamedTuple):
    """The engine as a policy sees it at the start of a step; to be read, never changed.

    Waiting requests stand in the order of the queue, unfinished prompts in the order in which they
    were admitted, decoding requests in the order in which their prompts were finished. `pinned` are
    the programs whose keys and values are kept for their next call.
    """

    waiting: Sequence[Request]
    prefilling: Sequence[Request]
    decoding: Decoding
    pool: BlockPool
    now: float = 0.0
    replica: int = 0
    lane: str = WHOLE
    pinned: Mapping[str, Pin] = {}


class Pin(NamedTuple):
    """Keys and values kept for the next call of a program, until when, and whose it is."""

    program_id: str
    until_s: float
    program_s: float
    tokens: int


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


class Conserving(NamedTuple):
    """A scheduler's promise that a step leaves nobody waiting who could run.

    Somebody is admitted whenever fewer than `seats` requests run, the plan computes fewer than
    `tokens` (None: no limit) and preempts nobody, and the blocks that can be taken, less the
    watermark and what those that run take in the step, would do for any of the waiting requests:
    for all of its text, or `reserve` tokens if that is more.
    """

    seats: int
    tokens: int | None = None
    reserve: int = 0

    def broken_by(self, plan: Batch, view: View) -> bool:
        """Whether a plan leaves all of the queue waiting without need."""
        running = len(view.prefilling) + len(view.decoding)
        if plan.admit or plan.preempt or not view.waiting or running >= self.seats:
            return False
        computed = sum(piece for _, piece in plan.prefill)
        computed += len(view.decoding) if plan.decode else 0
        if self.tokens is not None and computed >= self.tokens:
            return False
        taken = view.pool.watermark + view.decoding.growth
        for request, piece in plan.prefill:
            taken += max(0, blocks_for(request.computed + piece) - request.blocks)
        most = max(request.demand for request in view.waiting)
        return max(most, blocks_for(self.reserve)) + taken <= view.pool.room


def flaw_of(plan: object) -> str | None:
    """Say why a plan is none, whatever the engine's state; None when it is well formed."""
    if not isinstance(plan, Batch):
        return f"{type(plan).__name__} in place of a Batch"
    for name, few in (("admit", plan.admit), ("prefill", plan.prefill)):
        if not isinstance(few, LISTS):
            return f"to {name} {type(few).__name__}, which is no list"
        if not all(isinstance(each, LISTS) and len(each) == 2 for each in few):
            return f"to {name} what is no pair of a request and a number"
    if not isinstance(plan.preempt, LISTS):
        return f"to preempt {type(plan.preempt).__name__}, which is no list"
    asked: Sequence[tuple[str, Sequence[object]]] = (
        ("preempt", plan.preempt),
        ("admit", [request for request, _ in plan.admit]),
        ("prefill", [request for request, _ in plan.prefill]),
    )
    for name, requests in asked:
        if not all(isinstance(request, Request) for request in requests):
            return f"to {name} what is no request"
        if len(set(map(id, requests))) < len(requests):
            return f"to {name} a request twice"
    for request, number in (*plan.admit, *plan.prefill):
        if not isinstance(number, Integral) or number < 0:
            return f"{number!r} blocks or tokens for {request.id!r}"
    if not isinstance(plan.steps, int) or plan.steps < 1:
        return f"{plan.steps!r} steps"
    return None


class Scheduler(Protocol):
    """Decides what each step of a replica computes.

    One that has `conserves`, a Conserving, is held to it by a run that is checked.
    """

    def plan(self, view: View) -> Batch:
        """Return what the next step does."""
        ...


class Annotator(Protocol):
    """Keeps the books of all requests, so that they can be ranked."""

    def arrived(self, request: Request, now: float) -> None:
        """Hear of a request before it is dispatched, and set its rank or its deadline."""
        ...

    def prompted(self, request: Request, now: float) -> None:
        """Hear of a request whose prompt is computed, at a step's end; it may be finished too."""
        ...

    def finished(self, request: Request, now: float) -> None:
        """Hear of a request whose last token is out."""
        ...


class Dispatcher(Protocol):
    """Chooses where a request goes."""

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return the place among `replicas` of the one that serves a request that has arrived."""
        ...


class Keep(NamedTuple):
    """What becomes of the keys and values of a request that is done.

    `cache` leaves them to the prefix cache, `pin` keeps them there until a moment, `drop` forgets
    them. A `copy` goes to host memory besides.
    """

    mode: Literal["cache", "pin", "drop"] = "cache"
    until_s: float = 0.0
    copy: bool = False


class Retention(Protocol):
    """Decides what stays in the KV cache between the calls of a program."""

    def finished(self, request: Request, view: View) -> Keep:
        """Say what becomes of a request's keys and values, once its last token is out."""
        ...

    def unpin(self, view: View) -> Iterable[str]:
        """Return the programs to unpin before a step is planned."""
        ...

    def pressed(self, view: View, batch: Batch) -> str | None:
        """Return a program to unpin, now that `batch` admits nobody or preempts; None: none.

        Asked again and again, with a new plan each time, until that is no longer so.
        """
        ...


class Partition(Protocol):
    """Splits a GPU into `lanes` that compute side by side over one KV cache.

    Where the shares of those that compute come to more than 1, each is slowed down as if they took
    turns, but for the `overlap` (0 to 1).
    """

    lanes: Sequence[str]
    overlap: float

    def shares(self, view: View) -> Mapping[str, float]:
        """Return the share of each lane, 0 to 1, for the steps that begin from now on."""
        ...


class Migrate(NamedTuple):
    """Move a request that decodes to another replica, live."""

    request: Request
    source: int
    target: int


class Scale(NamedTuple):
    """Add replicas, or let one run empty and go."""

    add: int = 0
    drain: int | None = None


class Controller(Protocol):
    """Looks at all replicas every `period_s` seconds."""

    period_s: float

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate | Scale]:
        """Return what to change."""
        ...


@dataclass(frozen=True)
class Parts:
    """A system, composed. None stands for the plain way.

    Plain are: no annotation, round robin, the prefix cache's own order (least recently used), one
    lane, no control. `handover` says where a request goes on once its prompt is computed, as a
    place among the replicas; None: where it is. `deployed` is shown the replicas before the first
    request, as a server that profiles itself. `oracle` lets policies see answer lengths and pauses.
    """

    schedule: Scheduler
    annotate: Annotator | None = None
    dispatch: Dispatcher | None = None
    retain: Retention | None = None
    partition: Partition | None = None
    control: Controller | None = None
    handover: Callable[[Request, Sequence[Replica], float], int] | None = None
    deployed: Callable[[Sequence[Replica]], None] | None = None
    prefix_cache: bool = False
    oracle: bool = False


class Composed(Protocol):
    """A system of several parts."""

    def parts(self, replicas: int) -> Parts:
        """Return the parts for a run on so many replicas, with no memory of any other run."""
        ...


System: TypeAlias = Scheduler | Composed


def parts_of(system: System, replicas: int = 1) -> Parts:
    """Return a system's parts; one that only plans is its own scheduler.

    Raises BadPlan for what are none, and PolicyFailed for what a stranger's system raises.
    """
    if hasattr(system, "parts"):
        with blaming():
            parts = system.parts(replicas)
        if not isinstance(parts, Parts):
            raise wrong_answer(system, "parts", parts, "a Parts, of servescope.engine")
        return parts
    return Parts(system, prefix_cache=getattr(system, "prefix_cache", False))
