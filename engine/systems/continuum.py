"""Continuum / CacheTTL (arXiv 2511.02230): what an agent computed waits for it, but not forever."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta

from servescope.engine.dispatchers import Sticky
from servescope.engine.policy import Batch, Keep, Parts, View
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.batching import unified
from servescope.engine.systems.pins import expired, short_of_room, stuck
from servescope.engine.systems.tool_pauses import Durations, Turns, best_ttl, cold_ttl

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

QUEUE_WINDOW = 256  # ASSUMED: waits of evicted calls that the mean is taken of


@dataclass(frozen=True, slots=True)
class Continuum:
    """Programs first come, first served; keys and values pinned for a time to live between turns.

    `ttl` is the paper's trade of cost and benefit, always `static_s`, or none: with none it is the
    first step of the ablation, program-level FCFS alone. `cold_pauses` is the paper's K. The wait
    before any is known, `default_wait_s`, and the two seconds of `static_s` are not in the paper
    and ASSUMED. With `offload`, what a call computed is copied to host memory as well, and comes
    back from there.
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
            retain=_Pins(books, queue),
            deployed=books.profile,
            prefix_cache=True,
        )


@dataclass(frozen=True, slots=True)
class ContinuumFixed2s:
    """Continuum as its authors released it: a pin of two seconds, unless a tool is known as slow.

    A call that names no tool is not pinned; one of an unknown tool is. The queue has pinned
    programs first, then programs by their first arrival. A pin gives way only when nothing runs, or
    one call that cannot go on.
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
            retain=_FixedPins(self.pin_s, books, queue),
            prefix_cache=True,
        )


class _ProgramsInOrder:
    """vLLM's budget; the queue has the preempted first, then the pinned, then older programs."""

    def __init__(self, max_tokens: int, max_seqs: int, *, preempted_first: bool = True) -> None:
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._preempted_first = preempted_first

    def plan(self, view: View) -> Batch:
        def key(request: Request) -> tuple[bool, bool, float, float]:
            preempted = self._preempted_first and request.preemptions > 0
            pinned = request.program_id in view.pinned
            return not preempted, not pinned, request.program_began_s, request.arrival_s

        def order(waiting: Sequence[Request]) -> Iterable[Request]:
            return sorted(waiting, key=key)

        batch = unified(view, self._max_tokens, self._max_seqs, order)
        # the end of a pin may let somebody in
        return batch._replace(steps=1) if view.waiting and view.pinned else batch

    def short_of_room(self, view: View, batch: Batch) -> bool:
        """Whether blocks are what keeps the head of the queue out, or makes a plan preempt."""
        return short_of_room(view, batch, self._max_tokens, self._max_seqs)


class _Pauses:
    """Books of pauses: when calls of a program ended, and when its next came."""

    def __init__(self) -> None:
        self.durations = Durations()
        self._ended: dict[str, tuple[float, str | None]] = {}

    def arrived(self, request: Request, now: float) -> None:
        before = self._ended.pop(request.program_id or "", None)
        if before is not None:
            self.durations.add(before[1], now - before[0])

    def prompted(self, request: Request, now: float) -> None:
        """A first token says nothing of pauses."""

    def finished(self, request: Request, now: float) -> None:
        if request.program_id is not None and not request.last:
            self._ended[request.program_id] = now, request.tool


class _Books(_Pauses):
    """The same, with what a benefit is made of: waits of the evicted, turns, and reloading.

    `kept` are the programs whose last call was pinned, as long as nobody unpinned it.
    """

    def __init__(self, system: Continuum) -> None:
        super().__init__()
        self.system = system
        self.kept: set[str] = set()
        self._waits_s: deque[float] = deque(maxlen=QUEUE_WINDOW)
        self._turns = Turns()
        self._reload = np.poly1d([0.0])

    def profile(self, replicas: Sequence[Replica]) -> None:
        """Fit a quadratic to how long prompts of 1000, 2000, 4000, ... tokens take.

        With offloading, to how long it takes to bring them back. The first replica stands for all.
        """
        step_time, most = replicas[0].engine.step_time, replicas[0].engine.context_tokens
        sizes = [size for size in (1000 << k for k in range(8)) if size <= most] or [most]
        if self.system.offload:
            base = step_time(Load(1, 1, 0, 1.0))
            taken = [step_time(Load(1, 1, 0, 1.0, size)) - base for size in sizes]
        else:
            taken = [step_time(Load(size, 1, 0, size * (size + 1) / 2)) for size in sizes]
        self._reload = np.poly1d(np.polyfit(sizes, taken, min(2, len(sizes) - 1)))

    def prompted(self, request: Request, now: float) -> None:
        """Take in how long a call waited whose program had been evicted, once it was served."""
        came_back = request.turn > 0 and request.generated == 1  # not: computed again
        if came_back and request.program_id not in self.kept:
            assert request.first_scheduled_s is not None
            self._waits_s.append(request.first_scheduled_s - request.arrival_s)

    def finished(self, request: Request, now: float) -> None:
        if request.last and request.program_id is not None:
            self._turns.ended(request.turn + 1)
        super().finished(request, now)

    def ttl_s(self, request: Request) -> float:
        """Return how long to keep a call's keys and values: the paper's tau*."""
        system, seen = self.system, self.durations.all
        if system.ttl != "benefit":
            return system.static_s if system.ttl == "static" else 0.0
        reload_s = max(0.0, float(self._reload(request.computed)))
        if len(seen) <= system.cold_pauses:
            return cold_ttl(system.default_wait_s + reload_s)
        wait_s = sum(self._waits_s) / len(self._waits_s) if self._waits_s else 0.0
        of_tool = self.durations.of(request.tool)
        known = of_tool if len(of_tool) > system.cold_pauses else seen
        return best_ttl(known, wait_s * self._turns.eta + reload_s)


class _Pins:
    """Pins for the time to live, and unpins the latest program when the head finds no room."""

    def __init__(self, books: _Books, queue: _ProgramsInOrder) -> None:
        self._books = books
        self._queue = queue

    def finished(self, request: Request, view: View) -> Keep:
        program, kept = request.program_id, self._books.kept
        if program is None:
            return Keep()
        kept.discard(program)
        if request.last:
            return Keep()
        ttl_s, copy = self._books.ttl_s(request), self._books.system.offload
        if ttl_s <= 0:
            return Keep(copy=copy)
        kept.add(program)
        return Keep("pin", view.now + ttl_s, copy=copy)

    def unpin(self, view: View) -> Iterable[str]:
        gone = expired(view)
        self._books.kept.difference_update(gone)
        return gone

    def pressed(self, view: View, batch: Batch) -> str | None:
        if not self._queue.short_of_room(view, batch):
            return None
        latest = max(view.pinned.values(), key=lambda pin: pin.program_s).program_id
        self._books.kept.discard(latest)
        return latest


class _FixedPins:
    def __init__(self, pin_s: float, books: _Pauses, queue: _ProgramsInOrder) -> None:
        self._pin_s = pin_s
        self._books = books
        self._queue = queue

    def finished(self, request: Request, view: View) -> Keep:
        if request.last or request.tool is None:
            return Keep()
        mean_s = self._books.durations.mean_s(request.tool)
        if mean_s is not None and mean_s > self._pin_s:
            return Keep()
        return Keep("pin", view.now + self._pin_s)

    def unpin(self, view: View) -> Iterable[str]:
        return expired(view)

    def pressed(self, view: View, batch: Batch) -> str | None:
        if not stuck(view, batch) or not self._queue.short_of_room(view, batch):
            return None
        return max(view.pinned.values(), key=lambda pin: pin.until_s).program_id
