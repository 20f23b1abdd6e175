"""Replicas of an engine behind a dispatcher, as one thing that has no clock.

Whoever has one tells it the time: `submit` and `begin` start what can start, `next_s` says when the
next thing ends, `end` ends it. Between replicas, keys and values take the time of a copy.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from numbers import Integral

from servescope.engine.blame import BadPlan, blaming, wrong_answer
from servescope.engine.engine import Deadlock, Engine, Refused, Step
from servescope.engine.kvcache import blocks_for
from servescope.engine.policy import Migrate, Parts, Scale, View
from servescope.engine.request import Request

# ASSUMED where nothing is said. Llumnix reports 20 to 30 ms of downtime, whatever the length.
DOWNTIME_S = 0.025
START_UP_S = 30.0
_ACTIONS = "what to change: a list of Migrate and Scale, of replicas that there are"


@dataclass(slots=True, eq=False)
class Replica:
    """One engine of a cluster, as a policy sees it; to be read, never changed."""

    engine: Engine
    gpu: str = ""
    accepting: bool = True
    begins_s: float = 0.0
    ends_s: float | None = None  # when it had run empty and went
    moving: int = 0  # migrations from here and to here

    @property
    def number(self) -> int:
        """Its number, which no other replica ever has."""
        return self.engine.number

    @property
    def view(self) -> View:
        """What its scheduler would see now."""
        return self.engine.view

    @property
    def load(self) -> int:
        """Requests that wait or run here."""
        return self.engine.waiting + self.engine.running


@dataclass(slots=True, eq=False)
class _Migration:
    """A request whose keys and values are being copied while it goes on."""

    request: Request
    source: Replica
    target: Replica
    blocks: int  # reserved at the target
    last: bool = False  # stage: the request stops at the end of its step


@dataclass
class Cluster:
    """Engines, and the parts of a system that stand above them.

    `copy_s` says how long a copy of so many tokens' keys and values takes between replicas;
    `another` makes one more engine of a number, for controllers that scale. `on_step` hears of
    every step's requests that got a token, before anything else happens to them.
    """

    parts: Parts
    engines: Sequence[Engine]
    gpus: Sequence[str] = ()
    copy_s: Callable[[int], float] = lambda tokens: 0.0
    downtime_s: float = DOWNTIME_S
    start_up_s: float = START_UP_S
    another: Callable[[int], Engine] | None = None
    on_step: Callable[[list[Request]], None] | None = None
    migrations: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        gpus = self.gpus or [""] * len(self.engines)
        self.replicas = [Replica(e, gpu) for e, gpu in zip(self.engines, gpus, strict=True)]
        self._alone = self.replicas[0].engine if len(self.replicas) == 1 else None
        self._all = list(self.replicas)
        self._turn = 0
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._pushed = count()
        self._moving: dict[Request, _Migration] = {}
        self._sources: dict[Request, Replica] = {}  # of requests that wait to be copied
        self._tick_s = math.inf
        control = self.parts.control
        if control is not None:
            self._tick_s = control.period_s
            self._alone = None
        if self.parts.deployed is not None:
            with blaming():
                self.parts.deployed(self.replicas)

    @classmethod
    def of(cls, engine: Engine) -> Cluster:
        """Return a cluster of one engine, which needs no more than its scheduler."""
        return cls(Parts(engine.system), [engine])

    @property
    def now(self) -> float:
        """The last moment that it was told (s)."""
        return self._now

    @property
    def all(self) -> Sequence[Replica]:
        """Every replica there has been, those that are gone included."""
        return self._all

    def name_of(self, number: int) -> str:
        """Return what a replica is called in records: its number and its GPU."""
        return f"{number} {self._all[number].gpu}".strip()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._events and all(replica.engine.idle for replica in self.replicas)

    @property
    def ready(self) -> bool:
        """Whether some lane has no step on its way: what comes now could begin at once."""
        return any(not all(map(r.engine.computing, r.engine.lanes)) for r in self.replicas)

    def require_fit(self, request: Request) -> None:
        """Raise Refused when no replica can ever serve the request."""
        for replica in self.replicas[1:]:
            try:
                replica.engine.require_fit(request)
            except Refused:
                continue
            return
        self.replicas[0].engine.require_fit(request)

    def submit(self, request: Request, now: float) -> None:
        """Send a request to the replica that the system picks, or raise Refused."""
        if self.parts.oracle:
            request.oracle_tokens, request.oracle_pause_s = request._output_tokens, request._pause_s
        annotate = self.parts.annotate
        if annotate is not None:
            self.require_fit(request)
            annotate.arrived(request, now)
        if self._alone is not None:
            self._alone.submit(request, now)
            return
        self.require_fit(request)
        open_ = [replica for replica in self.replicas if replica.accepting]
        for replica in open_:
            replica.engine.advance(now)
        chosen = open_[self._pick(request, open_, now)]
        request.replica = chosen.number
        chosen.engine.submit(request, now)

    def abort(self, request_id: str, now: float | None = None) -> bool:
        """Drop a request wherever it is; False when it is not here (any more)."""
        now = self._now if now is None else now
        for request, migration in list(self._moving.items()):
            if request.id == request_id:
                self._give_up(migration, now)
        for request in [each for each in self._sources if each.id == request_id]:
            self._sources.pop(request).engine.copied(request, now)
        return any(replica.engine.abort(request_id, now) for replica in self.replicas)

    def next_s(self, expecting: bool = True) -> float:
        """Return when the next thing ends; endless if nothing will.

        `expecting` says that more is to come: then a controller looks on even when all is idle.
        """
        if self._alone is not None and not self._events:
            engine = self._alone
            return min([step.ends_s for step in engine.steps] or [engine.wakes_s])
        soonest = self._events[0][0] if self._events else math.inf
        for replica in self.replicas:
            engine = replica.engine
            if engine.busy:
                for step in engine.steps:
                    soonest = min(soonest, step.ends_s)
            else:
                soonest = min(soonest, engine.wakes_s)
        if self._tick_s < soonest and (expecting or soonest < math.inf):
            return self._tick_s
        return soonest

    def end(self, now: float) -> list[Request]:
        """End all that ends at `now`; returns the requests that are done."""
        self._now = now
        done: list[Request] = []
        for replica in list(self.replicas):
            for step in list(replica.engine.steps):
                if step.ends_s <= now:
                    self._end_step(replica, step, done)
        while self._events and self._events[0][0] <= now:
            heapq.heappop(self._events)[2](now)
        if self._tick_s <= now:
            self._tick(now)
        annotate = self.parts.annotate
        if annotate is not None:
            for request in done:
                annotate.finished(request, now)
        return done

    def begin(self, now: float, until: float = math.inf) -> None:
        """Start a step wherever none is on its way and there is work."""
        self._now = now
        if self._alone is not None:
            engine = self._alone
            for lane in engine.lanes:
                if not engine.computing(lane):
                    engine.begin(now, until, lane)
            return
        # What comes goes to one of the replicas: the others run on.
        until = now + (until - now) * len(self.replicas)
        for replica in self.replicas:
            engine = replica.engine
            for lane in engine.lanes:
                if not engine.computing(lane):
                    engine.begin(now, until, lane)
            if self._sources:
                for request in engine.receiving:
                    source = self._sources.pop(request, None)
                    if source is not None:
                        self._copy(request, source, replica, now, self.copy_s(request.computed))

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        for replica in self.replicas:
            replica.engine.check()
        here = [id for replica in self.replicas for id in replica.engine._requests]
        assert len(here) == len(set(here)), "a request is at one replica"
        reserved = sum(replica.engine._reserved for replica in self.replicas)
        expected = sum(migration.blocks for migration in self._moving.values())
        assert reserved == expected, "what is reserved is for a request that is to come"

    def _pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        dispatch = self.parts.dispatch
        if dispatch is None:
            self._turn += 1
            return (self._turn - 1) % len(replicas)
        place = dispatch.pick(request, replicas, now)
        _require_place(place, replicas, f"{type(dispatch).__name__} picks")
        return place

    def _end_step(self, replica: Replica, step: Step, done: list[Request]) -> None:
        engine = replica.engine
        if self.on_step is not None:
            decoded = engine.decoding(step)
            tokens = engine.finish(step)
            self.on_step([*decoded, *tokens.prompted])
        else:
            tokens = engine.finish(step)
        done += tokens.finished
        now = step.ends_s
        if self.parts.annotate is not None:
            for request in tokens.prompted:
                self.parts.annotate.prompted(request, now)
        if self.parts.handover is not None:
            for request in tokens.prompted:
                if not request.done:
                    self._hand_over(request, replica, now)
        if self._moving:
            for migration in [m for m in self._moving.values() if m.source is replica]:
                self._end_stage(migration, now)
        self._close(replica, now)

    def _hand_over(self, request: Request, source: Replica, now: float) -> None:
        assert self.parts.handover is not None
        place = self.parts.handover(request, self.replicas, now)
        _require_place(place, self.replicas, "The system hands over to")
        target = self.replicas[place]
        if target is not source:
            source.engine.hand_over(request, now)
            target.engine.receive(request, now)
            self._sources[request] = source

    def _copy(
        self, request: Request, source: Replica, target: Replica, now: float, copy_s: float
    ) -> None:
        """Let a request go on at the target once its keys and values are there."""

        def copied(now: float) -> None:
            source.engine.copied(request, now)
            if request in target.engine.receiving:  # else aborted meanwhile
                target.engine.received(request, now)
            self._close(source, now)

        self._at(now + copy_s, copied)

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._pushed), what))

    def _tick(self, now: float) -> None:
        control = self.parts.control
        assert control is not None
        self._tick_s = now + control.period_s
        for replica in self.replicas:
            replica.engine.advance(now)
        actions = control.tick(self.replicas, now)
        if not isinstance(actions, Iterable):
            raise wrong_answer(control, "tick", actions, _ACTIONS)
        for action in list(actions):
            if not self._possible(action):
                raise wrong_answer(control, "tick", action, _ACTIONS)
            if isinstance(action, Migrate):
                self._migrate(action, now)
            else:
                self._scale(action, now)

    def _possible(self, action: object) -> bool:
        """Whether it is an action, of replicas and a request that there are."""
        numbers = range(len(self._all))
        if isinstance(action, Migrate):
            between = action.source in numbers and action.target in numbers
            return between and isinstance(action.request, Request)
        if isinstance(action, Scale):
            drained = action.drain is None or action.drain in numbers
            return drained and isinstance(action.add, Integral)
        return False

    def _migrate(self, asked: Migrate, now: float) -> None:
        """Begin to copy a request that decodes, if the target has room for it now."""
        request = asked.request
        source, target = self._all[asked.source], self._all[asked.target]
        if request in self._moving or request not in source.engine.view.decoding:
            return
        blocks = blocks_for(request.computed + 1)
        if not target.engine.reserve(blocks, now):
            return
        migration = _Migration(request, source, target, blocks)
        self._moving[request] = migration
        source.moving += 1
        target.moving += 1

        def copied(now: float) -> None:
            if self._moving.get(request) is not migration:
                return
            migration.last = True
            source.engine.cut(now)
            if not source.engine.computes(request):
                self._end_stage(migration, now)

        self._at(now + self.copy_s(request.computed), copied)

    def _end_stage(self, migration: _Migration, now: float) -> None:
        """Give up on a request that runs no more, or stop it and copy what came meanwhile."""
        request, source, target = migration.request, migration.source, migration.target
        if request not in source.engine.view.decoding:
            self._give_up(migration, now)
            return
        if not migration.last:
            return
        more = blocks_for(request.computed + 1) - migration.blocks
        if more > 0 and not target.engine.reserve(more, now):
            self._give_up(migration, now)
            return
        blocks = migration.blocks + max(0, more)
        self._forget(migration)
        self.migrations += 1
        source.engine.hand_over(request, now)
        target.engine.receive(request, now, reserved=blocks)

        self._copy(request, source, target, now, self.downtime_s)

    def _give_up(self, migration: _Migration, now: float) -> None:
        migration.target.engine.unreserve(migration.blocks, now)
        self._forget(migration)
        self._close(migration.target, now)

    def _forget(self, migration: _Migration) -> None:
        del self._moving[migration.request]
        migration.source.moving -= 1
        migration.target.moving -= 1

    def _scale(self, asked: Scale, now: float) -> None:
        for _ in range(asked.add if self.another is not None else 0):
            assert self.another is not None
            replica = Replica(self.another(len(self._all)), self._all[0].gpu, begins_s=now)
            self._all.append(replica)
            self._at(now + self.start_up_s, partial(self._start, replica))
        if asked.drain is not None and sum(each.accepting for each in self.replicas) > 1:
            replica = self._all[asked.drain]
            replica.accepting = False
            self._close(replica, now)

    def _start(self, replica: Replica, now: float) -> None:
        self.replicas.append(replica)

    def _close(self, replica: Replica, now: float) -> None:
        """Let a replica go that takes nothing more and has run empty."""
        left = replica.accepting or replica.moving or not replica.engine.idle
        if not left and replica in self.replicas:
            replica.ends_s = now
            self.replicas.remove(replica)


def _require_place(place: object, replicas: Sequence[Replica], who: str) -> None:
    if not isinstance(place, Integral) or int(place) not in range(len(replicas)):
        raise BadPlan(
            f"{who} replica {place!r} of {len(replicas)}.",
            "It must return a place in the list that it is given.",
        )


def stuck() -> Deadlock:
    """Return the error of requests that are left when nothing is on its way."""
    return Deadlock(
        "Requests are left, and nothing is on its way that would move them.",
        "The system's parts wait for each other: look at what it pins and hands over.",
    )
