"""Continuum / CacheTTL (arXiv 2511.02230): what an agent computed waits for it, but not forever."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta

from servescope.engine.policy import Batch, Keep, Parts, View
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.batching import unified
from servescope.engine.systems.tool_pauses import Durations, Turns, best_ttl, cold_ttl

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

QUEUE_WINDOW = 256  # ASSUMED: waits of evicted calls that the mean is taken of


@dataclass(frozen=True, slots=True)
class Continuum:
    """Programs first come, first served; keys and values pinned for a time to live between turns.

    `ttl` is the paper's trade of cost and benefit, always `static_s`, or none: with none it is the
    first step of the ablation, program-level FCFS alone. `cold_pauses` is the paper's K. The wait
    before any is known, `default_wait_s`, is not in the paper and ASSUMED. With `offload`, what is
    kept is copied to host memory as well.
    """

    ttl: Literal["benefit", "static", "none"] = "benefit"
    static_s: Annotated[float, Meta(ge=0)] = 2.0
    cold_pauses: Annotated[int, Meta(ge=1)] = 100
    default_wait_s: Annotated[float, Meta(ge=0)] = 1.0
    offload: bool = False
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 2048
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the queue, the pins, and the books that both are made from."""
        books = _Books(self)
        queue = _ProgramsInOrder(self.max_num_batched_tokens, self.max_num_seqs)
        return Parts(
            queue,
            annotate=books,
            dispatch=Sticky(),
            retain=_Pins(self, books, queue),
            deployed=books.profile,
            prefix_cache=True,
        )


@dataclass(frozen=True, slots=True)
class ContinuumFixed2s:
    """Continuum as its authors released it: a pin of two seconds, unless a tool is known as slow.

    A call that names no tool is not pinned; one of an unknown tool is. The queue has pinned
    programs first, then programs by their first arrival. A pin gives way only when nothing runs.
    """

    pin_s: Annotated[float, Meta(ge=0)] = 2.0
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 2048
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the queue, the pins, and how long tools took."""
        books = _Pauses()
        queue = _ProgramsInOrder(
            self.max_num_batched_tokens, self.max_num_seqs, preempted_first=False
        )
        return Parts(
            queue,
            annotate=books,
            dispatch=Sticky(),
            retain=_FixedPins(self, books, queue),
            prefix_cache=True,
        )


class Sticky:
    """A program stays on the replica of its first call, which goes to the one with least load."""

    def __init__(self) -> None:
        self._homes: dict[str, int] = {}

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return its place."""
        numbers = [replica.number for replica in replicas]
        home = self._homes.get(request.program_id or "")
        place = numbers.index(home) if home in numbers else None
        if place is None:
            place = min(range(len(replicas)), key=lambda each: replicas[each].load)
        if request.program_id is not None:
            if request.last:
                self._homes.pop(request.program_id, None)
            else:
                self._homes[request.program_id] = numbers[place]
        return place


class _ProgramsInOrder:
    """vLLM's budget; the queue has the preempted first, then the pinned, then older programs."""

    def __init__(self, max_tokens: int, max_seqs: int, *, preempted_first: bool = True) -> None:
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._preempted_first = preempted_first

    def plan(self, view: View) -> Batch:
        def order(waiting: Sequence[Request]) -> Iterable[Request]:
            return sorted(waiting, key=lambda request: self._key(request, view))

        return unified(view, self._max_tokens, self._max_seqs, order)

    def head(self, view: View) -> Request | None:
        """Return who should be admitted next."""
        return min(view.waiting, key=lambda request: self._key(request, view), default=None)

    def _key(self, request: Request, view: View) -> tuple[bool, bool, float, float]:
        preempted = self._preempted_first and request.preemptions > 0
        pinned = request.program_id in view.pinned
        return not preempted, not pinned, request.program_began_s, request.arrival_s


class _Pauses:
    """Books of pauses: when calls of a program ended, and when its next came."""

    def __init__(self) -> None:
        self.durations = Durations()
        self.ended: dict[str, tuple[float, str | None]] = {}

    def arrived(self, request: Request, now: float) -> None:
        before = self.ended.pop(request.program_id or "", None)
        if before is not None:
            self.durations.add(before[1], now - before[0])

    def prompted(self, request: Request, now: float) -> None:
        """A first token says nothing of pauses."""

    def finished(self, request: Request, now: float) -> None:
        if request.program_id is not None and not request.last:
            self.ended[request.program_id] = now, request.tool


class _Books(_Pauses):
    """The same, with what a benefit is made of: waits of the evicted, turns, and reloading.

    `kept` are the programs that are pinned, `evicted` the calls that came back to nothing.
    """

    def __init__(self, system: Continuum) -> None:
        super().__init__()
        self.system = system
        self.waits_s: deque[float] = deque(maxlen=QUEUE_WINDOW)
        self.turns = Turns()
        self.kept: set[str] = set()
        self.evicted: set[str] = set()
        self._reload = (0.0, 0.0, 0.0)

    def profile(self, replicas: Sequence[Replica]) -> None:
        """Fit a quadratic to how long prompts of 1000, 2000, 4000, ... tokens take."""
        step_time, most = replicas[0].engine.step_time, replicas[0].engine.context_tokens
        sizes = [size for size in (1000 << k for k in range(8)) if size <= most] or [most]
        if self.system.offload:
            base = step_time(Load(1, 1, 0, 1.0))
            taken = [step_time(Load(1, 1, 0, 1.0, size)) - base for size in sizes]
        else:
            taken = [step_time(Load(size, 1, 0, size * (size + 1) / 2)) for size in sizes]
        fit = np.polyfit(sizes, taken, min(2, len(sizes) - 1))
        self._reload = tuple(np.concatenate([np.zeros(3 - len(fit)), fit]).tolist())

    def arrived(self, request: Request, now: float) -> None:
        if request.turn > 0 and request.program_id not in self.kept:
            self.evicted.add(request.id)
        super().arrived(request, now)

    def prompted(self, request: Request, now: float) -> None:
        if request.id in self.evicted and request.first_scheduled_s is not None:
            self.evicted.discard(request.id)
            self.waits_s.append(request.first_scheduled_s - request.arrival_s)

    def finished(self, request: Request, now: float) -> None:
        if request.last and request.program_id is not None:
            self.turns.ended(request.turn + 1)
        super().finished(request, now)

    def ttl(self, request: Request) -> float:
        """Return how long to keep a call's keys and values: the paper's tau*."""
        system, all_ = self.system, self.durations.all
        if system.ttl != "benefit":
            return system.static_s if system.ttl == "static" else 0.0
        a, b, c = self._reload
        tokens = request.computed
        reload_s = max(0.0, a * tokens * tokens + b * tokens + c)
        if len(all_) <= system.cold_pauses:
            return cold_ttl(system.default_wait_s + reload_s)
        wait_s = sum(self.waits_s) / len(self.waits_s) if self.waits_s else 0.0
        pauses = self.durations.of(request.tool)
        known = pauses if len(pauses) > system.cold_pauses else all_
        return best_ttl(known, wait_s * self.turns.eta + reload_s)


class _Pins:
    """Pins for the time to live, and unpins the latest program when the head finds no room."""

    def __init__(self, system: Continuum, books: _Books, queue: _ProgramsInOrder) -> None:
        self._offload = system.offload
        self._books = books
        self._queue = queue

    def finished(self, request: Request, view: View) -> Keep:
        if request.last:
            return Keep()
        ttl_s = self._books.ttl(request)
        if ttl_s <= 0 or request.program_id is None:
            return Keep(copy=self._offload)
        self._books.kept.add(request.program_id)
        return Keep("pin", view.now + ttl_s, copy=self._offload)

    def unpin(self, view: View) -> Iterable[str]:
        self._books.kept.intersection_update(view.pinned)
        gone = expired(view)
        self._books.kept.difference_update(gone)
        return gone

    def pressed(self, view: View, batch: Batch) -> str | None:
        if not short_of_room(view, self._queue.head(view)):
            return None
        latest = max(view.pinned.values(), key=lambda pin: pin.program_s).program_id
        self._books.kept.discard(latest)
        return latest


class _FixedPins:
    def __init__(self, system: ContinuumFixed2s, books: _Pauses, queue: _ProgramsInOrder) -> None:
        self._pin_s = system.pin_s
        self._books = books
        self._queue = queue

    def finished(self, request: Request, view: View) -> Keep:
        if request.last or request.tool is None:
            return Keep()
        pauses = self._books.durations.of(request.tool)
        if pauses and sum(pauses) / len(pauses) > self._pin_s:
            return Keep()
        return Keep("pin", view.now + self._pin_s)

    def unpin(self, view: View) -> Iterable[str]:
        return expired(view)

    def pressed(self, view: View, batch: Batch) -> str | None:
        running = len(view.prefilling) + len(view.decoding)
        if running > 1 or not short_of_room(view, self._queue.head(view)):
            return None
        return max(view.pinned.values(), key=lambda pin: pin.until_s).program_id


def expired(view: View) -> list[str]:
    """Return the programs whose pin is over, and of which no call waits."""
    over = [pin.program_id for pin in view.pinned.values() if view.now >= pin.until_s]
    if not over:
        return over
    back = {request.program_id for request in view.waiting}
    return [program for program in over if program not in back]


def short_of_room(view: View, head: Request | None) -> bool:
    """Whether blocks are what keeps the head of the queue out, or those that decode from going on.

    Not so when it is seats or tokens of the step.
    """
    pool = view.pool
    if view.decoding.growth > pool.room:
        return True
    return head is not None and pool.cost(head, head.demand) > pool.room
