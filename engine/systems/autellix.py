"""Autellix (arXiv 2502.13965): calls ranked by what their program was served before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from servescope.engine.dispatchers import Sticky
from servescope.engine.policy import Batch, Parts, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import unified

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica


@dataclass(frozen=True, slots=True)
class Autellix:
    """Queues by attained service of a program; the least served first, and preemption between them.

    `order` plas sums the service of a program's calls, atlas follows its longest path of calls (one
    number a program). A call is in the first queue up to a service of `quantum_s`, and each next
    queue ends `growth` times later. Once its program and it waited `starvation` times as long as
    they were served, it goes to the first and begins anew. Every `every` steps waiting calls of a
    better queue take the place of running ones, which are swapped out. `queues`, `quantum_s`,
    `growth`, `starvation` and `every` are not given in the paper and ASSUMED. Its router: prompts
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


@dataclass(slots=True)
class _Call:
    """A call's service: what it began with, and what it ran and waited since it did (s)."""

    begins_with_s: float  # the service of its program, 0 once it has starved
    since_s: float  # when it began to run or to wait
    runs: bool = False
    ran_s: float = 0.0
    waited_s: float = 0.0
    before_s: tuple[float, float] = 0.0, 0.0  # run and waited before it starved

    def passed(self, now: float) -> None:
        """Let time pass."""
        if self.runs:
            self.ran_s += now - self.since_s
        else:
            self.waited_s += now - self.since_s
        self.since_s = now


class _Service:
    """What programs and their calls were served (s), and which queue that makes of a call."""

    def __init__(self, system: Autellix) -> None:
        self._system = system
        self._calls: dict[str, _Call] = {}
        self._attained: dict[str, float] = {}  # the p of a program
        self._ran: dict[str, float] = {}
        self._waited: dict[str, float] = {}

    def arrived(self, request: Request, now: float) -> None:
        """Give a call its program's service so far."""
        request.rank = self._attained.get(request.program_id or "", 0.0)
        self._calls[request.id] = _Call(request.rank, now)

    def prompted(self, request: Request, now: float) -> None:
        """Service counts when it is over."""

    def finished(self, request: Request, now: float) -> None:
        """Add a call's service to its program's."""
        call, program = self._calls.pop(request.id), request.program_id
        if program is None:
            return
        if request.last:
            for books in (self._attained, self._ran, self._waited):
                books.pop(program, None)
            return
        call.passed(now)
        ran_s, waited_s = call.before_s[0] + call.ran_s, call.before_s[1] + call.waited_s
        before_s = self._attained.get(program, 0.0)
        plas = self._system.order == "plas"
        self._attained[program] = before_s + ran_s if plas else max(before_s, request.rank + ran_s)
        self._ran[program] = self._ran.get(program, 0.0) + ran_s
        self._waited[program] = self._waited.get(program, 0.0) + waited_s

    def planned(self, batch: Batch, now: float) -> None:
        """Take in who runs from now on, and who does no more."""
        for request in batch.preempt:
            self._calls[request.id].passed(now)
            self._calls[request.id].runs = False
        for request, _ in batch.admit:
            self._calls[request.id].passed(now)
            self._calls[request.id].runs = True

    def lift(self, waiting: Iterable[Request], now: float) -> None:
        """Let calls that starve begin anew, in the first queue."""
        for request in waiting:
            call, program = self._calls[request.id], request.program_id or ""
            call.passed(now)
            ran_s = self._ran.get(program, 0.0) + call.ran_s
            waited_s = self._waited.get(program, 0.0) + call.waited_s
            if ran_s > 0 and waited_s / ran_s >= self._system.starvation:
                call.begins_with_s = 0.0
                call.before_s = call.before_s[0] + call.ran_s, call.before_s[1] + call.waited_s
                call.ran_s = call.waited_s = 0.0

    def queue(self, request: Request, now: float) -> int:
        """Return the queue of a call, 0 the best."""
        call, system = self._calls[request.id], self._system
        attained_s = call.begins_with_s + call.ran_s + call.runs * (now - call.since_s)
        bound_s, queue = system.quantum_s, 0
        while attained_s >= bound_s and queue < system.queues - 1:
            bound_s *= system.growth
            queue += 1
        return queue


class _Queues:
    def __init__(self, system: Autellix, books: _Service) -> None:
        self._system = system
        self._books = books
        self._steps: dict[int, int] = {}  # of a replica, since running calls were last replaced

    def plan(self, view: View) -> Batch:
        system, books, now = self._system, self._books, view.now

        def order(waiting: Sequence[Request]) -> Iterable[Request]:
            return sorted(waiting, key=lambda each: (books.queue(each, now), each.arrival_s))

        books.lift(view.waiting, now)
        batch = unified(view, system.max_num_batched_tokens, system.max_num_seqs, order)
        if view.waiting:
            batch = batch._replace(steps=1)  # queues change with time
            steps = self._steps.get(view.replica, 0) + 1
            if steps >= system.every and not batch.admit and not batch.preempt:
                steps = 0
                worse = self._in_the_way(view, order(view.waiting))
                left = [(request, n) for request, n in batch.prefill if request not in worse]
                batch = batch._replace(preempt=worse, swap=True, prefill=left)
            self._steps[view.replica] = steps
        books.planned(batch, now)
        return batch

    def _in_the_way(self, view: View, waiting: Iterable[Request]) -> list[Request]:
        """Return running calls of worse queues whose room those that wait before them need."""
        queue, pool, now = self._books.queue, view.pool, view.now
        running = sorted([*view.decoding, *view.prefilling], key=lambda each: queue(each, now))
        room = pool.room - view.decoding.growth
        seats = self._system.max_num_seqs - len(running)
        victims: list[Request] = []
        for request in waiting:
            needed, level = pool.cost(request, request.demand), queue(request, now)
            more: list[Request] = []
            freed = 0
            while (needed > room + freed or seats + len(more) < 1) and len(more) < len(running):
                victim = running[-1 - len(more)]
                if queue(victim, now) <= level:
                    break
                more.append(victim)
                freed += victim.own_blocks
            if needed > room + freed or seats + len(more) < 1:
                break
            del running[len(running) - len(more) :]
            victims += more
            room += freed - needed
            seats += len(more) - 1
        return victims


class _Router:
    def __init__(self, spread_tokens: int) -> None:
        self._spread_tokens = spread_tokens
        self._sticky = Sticky()

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return the place of the least load for a short prompt, else of the program's home."""
        if request.input_tokens > self._spread_tokens:
            return self._sticky.pick(request, replicas, now)
        self._sticky.forget(request)
        return min(range(len(replicas)), key=lambda place: replicas[place].load)
