"""Watches a run in virtual time: asserts at every event, and at the end, what must always hold."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from servescope.engine.cluster import Cluster
from servescope.engine.engine import Refused, Violation
from servescope.engine.request import Request
from servescope.engine.veil import Veil
from servescope.engine.virtual import Source
from servescope.traces.errors import InputError


class _Asked(NamedTuple):
    input_tokens: int
    output_tokens: int


class Watch:
    """A source around another one, which knows what was asked and sees what comes of it.

    Give it to `virtual.run` in place of that source, its `event` as `on_event`, and call `ended`
    after the run. A `veil` is put over what comes and what serves it. Each raises Violation that
    names what does not hold; with `every`, only so many events are looked at: what was broken once
    stays so. Nothing can be watched by a Python that leaves assertions out: then
    InputError is raised at once.
    """

    def __init__(
        self, cluster: Cluster, source: Source, veil: Veil | None = None, every: int = 1
    ) -> None:
        if not __debug__:
            raise InputError(
                "Python leaves assertions out, so that nothing is checked.",
                "Run it without -O, and unset PYTHONOPTIMIZE.",
            )
        if veil is not None:
            veil.cluster(cluster)
        self.events = 0
        self._cluster = cluster
        self._source = source
        self._veil = veil
        self._every = every
        self._now = 0.0
        self._left: dict[str, _Asked] = {}
        self._seen: set[str] = set()
        self._finished = 0
        self._input_tokens = self._output_tokens = 0
        self._computed = 0  # tokens that must have been computed, those of caches left out
        self._step_times = {id(each.engine): each.engine.step_time for each in cluster.all}
        self._blocks = {id(each.engine): each.engine.pool.total for each in cluster.all}

    def next_due_s(self) -> float | None:
        """Return when the next request is due."""
        return self._source.next_due_s()

    def take(self, now: float) -> Iterable[Request]:
        """Return the requests that are due by `now`, and note what they ask for."""
        self._now = now
        for request in self._source.take(now):
            self._assert(request.id not in self._seen, "a request comes once", request)
            self._seen.add(request.id)
            self._left[request.id] = _Asked(request.input_tokens, request._output_tokens)
            yield request if self._veil is None else self._veil.request(request)

    def refused(self, request: Request, error: Refused, now: float) -> None:
        """Hear that a request can never be served."""
        self._assert(request.id in self._left, "who is refused has come and not gone", request)
        del self._left[request.id]
        self._source.refused(request, error, now)

    def finished(self, request: Request, now: float) -> None:
        """Hear that a request's last token is out, and look whether it is what was asked for."""
        self._now = now
        self._assert(request.id in self._left, "who is finished has come and not gone", request)
        asked = self._left.pop(request.id)
        whole = (request.input_tokens, request.generated) == asked
        self._assert(whole, "a request has its own prompt and all tokens of its answer", request)
        times = request.token_s
        self._assert(len(times) == asked.output_tokens, "every token came at a time", request)
        in_order = all(a <= b for a, b in pairwise(times))
        within = request.arrival_s <= times[0] and times[-1] <= now
        self._assert(in_order and within, "tokens come one after the other, and not early", request)
        self._finished += 1
        self._input_tokens += asked.input_tokens
        self._output_tokens += asked.output_tokens
        self._computed += asked.input_tokens + asked.output_tokens - 1 - request.cached_tokens
        self._source.finished(request, now)

    def event(self) -> None:
        """Assert what must hold between any two events."""
        self.events += 1
        if self.events % self._every == 0:
            self._look()

    def _look(self) -> None:
        try:
            self._cluster.check()
        except AssertionError as error:
            raise self._violation(str(error) or "the prefix cache adds up") from error

    def ended(self) -> None:
        """Assert what must hold once nothing is due and nothing runs."""
        self._look()
        lost = next(iter(self._left), None)
        self._assert(lost is None, f"every request is finished or refused, and {lost!r} is not")
        engines = [replica.engine for replica in self._cluster.all]
        for engine in engines:
            for program in list(engine.pinned):
                engine._unpin(program)
            self._assert(engine.pool.used == 0, "all blocks are free in the end")
            own = self._step_times.get(id(engine), engine.step_time) is engine.step_time
            self._assert(own, "a step takes the time that it took in the beginning")
            total = self._blocks.get(id(engine), engine.pool.total) == engine.pool.total
            self._assert(total, "there are as many blocks as in the beginning")
        said = [engine.counters for engine in engines]
        self._adds_up("requests that are finished", (c.finished for c in said), self._finished)
        self._adds_up("tokens of prompts", (c.prompt_tokens for c in said), self._input_tokens)
        self._adds_up("tokens of answers", (c.generation_tokens for c in said), self._output_tokens)
        kept = (each.computed_tokens - each.recomputed_tokens for each in said)
        self._adds_up("tokens computed", kept, self._computed)

    def _adds_up(self, what: str, counted: Iterable[int], asked: int) -> None:
        found = sum(counted)
        self._assert(found == asked, f"{what} add up: {found} were counted, {asked} asked for")

    def _assert(self, holds: bool, what: str, request: Request | None = None) -> None:
        if not holds:
            raise self._violation(what, request)

    def _violation(self, what: str, request: Request | None = None) -> Violation:
        whose = f", which {request.id!r} breaks" if request is not None else ""
        return Violation(
            f"At {max(self._now, self._cluster.now):.6g} s this does not hold: {what}{whose}.",
            "A policy reads its view and changes nothing; if this one keeps to that, the engine is"
            " wrong: report it.",
        )
