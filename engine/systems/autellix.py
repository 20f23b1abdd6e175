"""Autellix (arXiv 2502.13965): calls ranked by what their program was served before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from servescope.engine.policy import Batch, Parts, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import unified
from servescope.engine.systems.continuum import Sticky

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica


@dataclass(frozen=True, slots=True)
class Autellix:
    """Queues by attained service of a program; the least served first, and preemption between them.

    `order` plas sums the service of a program's calls, atlas follows its longest path of calls (one
    number a program). A call is in the first queue up to a service of `quantum_s`, and each next
    queue ends `growth` times later; one that waited `starvation` times as long as it was served
    goes to the first. Every `every` steps waiting calls of a better queue take the place of running
    ones. Queues, quanta, starvation and steps are not in the paper and ASSUMED. Its router: prompts
    of at most `spread_tokens` to the least load, longer ones to where their program is.
    """

    order: Literal["plas", "atlas"] = "plas"
    queues: Annotated[int, Meta(ge=1)] = 8
    quantum_s: Annotated[float, Meta(gt=0)] = 1.0
    growth: Annotated[float, Meta(gt=1)] = 2.0
    starvation: Annotated[float, Meta(gt=0)] = 5.0
    every: Annotated[int, Meta(ge=1)] = 16
    spread_tokens: Annotated[int, Meta(ge=0)] = 2048
    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 2048
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the queues, the books of service, and the router."""
        books = _Service(self)
        return Parts(
            _Queues(self, books),
            annotate=books,
            dispatch=_Router(self.spread_tokens),
            prefix_cache=True,
        )


class _Service:
    """What programs were served (s), and what that makes of a call's queue."""

    def __init__(self, system: Autellix) -> None:
        self._system = system
        self._served: dict[str, float] = {}
        self._waited: dict[str, float] = {}

    def arrived(self, request: Request, now: float) -> None:
        """Give a call its program's service so far."""
        request.rank = self._served.get(request.program_id or "", 0.0)

    def prompted(self, request: Request, now: float) -> None:
        """Service counts when it is over."""

    def finished(self, request: Request, now: float) -> None:
        """Add a call's service to its program's."""
        program = request.program_id
        if program is None:
            return
        begun_s = now if request.first_scheduled_s is None else request.first_scheduled_s
        taken_s = now - begun_s
        if self._system.order == "plas":
            self._served[program] = self._served.get(program, 0.0) + taken_s
        else:
            self._served[program] = max(self._served.get(program, 0.0), request.rank + taken_s)
        self._waited[program] = self._waited.get(program, 0.0) + begun_s - request.arrival_s
        if request.last:
            self._served.pop(program, None)
            self._waited.pop(program, None)

    def queue(self, request: Request, now: float) -> int:
        """Return the queue of a call, 0 the best."""
        system, begun_s = self._system, request.first_scheduled_s
        own_s = 0.0 if begun_s is None else now - begun_s
        waited_s = (now if begun_s is None else begun_s) - request.arrival_s
        served_s = self._served.get(request.program_id or "", 0.0) + own_s
        waited_s += self._waited.get(request.program_id or "", 0.0)
        if served_s > 0 and waited_s / served_s >= system.starvation:
            return 0
        attained_s, bound, queue = request.rank + own_s, system.quantum_s, 0
        while attained_s >= bound and queue < system.queues - 1:
            bound *= system.growth
            queue += 1
        return queue


class _Queues:
    def __init__(self, system: Autellix, books: _Service) -> None:
        self._system = system
        self._books = books
        self._steps: dict[int, int] = {}

    def plan(self, view: View) -> Batch:
        steps = self._steps[view.replica] = self._steps.get(view.replica, 0) + 1

        def key(request: Request) -> tuple[int, float]:
            return self._books.queue(request, view.now), request.arrival_s

        def order(waiting: Sequence[Request]) -> Iterable[Request]:
            return sorted(waiting, key=key)

        system = self._system
        batch = unified(view, system.max_num_batched_tokens, system.max_num_seqs, order)
        if not view.waiting or batch.admit or batch.preempt or steps % system.every:
            # queues change with time: only without anybody who waits is the same plan certain
            return batch._replace(steps=1) if view.waiting else batch
        worse = self._in_the_way(view)
        if not worse:
            return batch._replace(steps=1)
        still = [(r, n) for r, n in batch.prefill if r not in worse]
        return batch._replace(preempt=worse, swap=True, prefill=still, steps=1)

    def _in_the_way(self, view: View) -> list[Request]:
        """Return running calls of a worse queue than the best that waits, enough to admit it."""
        queue, pool = self._books.queue, view.pool
        best = min(view.waiting, key=lambda each: (queue(each, view.now), each.arrival_s))
        level = queue(best, view.now)
        victims: list[Request] = []
        room = pool.room - view.decoding.growth
        running = sorted(view.decoding, key=lambda each: queue(each, view.now), reverse=True)
        for request in running:
            enough_seats = len(running) + len(view.prefilling) < self._system.max_num_seqs
            if queue(request, view.now) <= level:
                break
            if pool.cost(best, best.demand) <= room and (victims or enough_seats):
                break
            victims.append(request)
            room += request.own_blocks
        return victims if pool.cost(best, best.demand) <= room else []


class _Router:
    def __init__(self, spread_tokens: int) -> None:
        self._spread_tokens = spread_tokens
        self._sticky = Sticky()

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return the place of the least load for a short prompt, else of the program's home."""
        if request.input_tokens <= self._spread_tokens:
            return min(range(len(replicas)), key=lambda place: replicas[place].load)
        return self._sticky.pick(request, replicas, now)
