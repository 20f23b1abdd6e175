"""What policies are tried on: decodes without an engine, and programs that are served by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from servescope.engine.cluster import Cluster
from servescope.engine.decoding import Decoding
from servescope.engine.engine import Engine, Refused
from servescope.engine.kvcache import BlockPool, blocks_for
from servescope.engine.policy import System, parts_of
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.engine.virtual import run


@pytest.fixture
def decoding() -> Callable[..., Decoding]:
    """Return a function that makes a decode of each number of computed tokens."""

    def make(*computed: int) -> Decoding:
        made = Decoding()
        for number, tokens in enumerate(computed):
            request = Request(f"d{number}", tokens, 100, 0.0)
            request.status, request._computed, request._generated = Status.RUNNING, tokens, 1
            request._blocks = blocks_for(tokens)
            made.add(request)
        return made

    return make


@dataclass
class Turn:
    """New text, an answer, and the pause after it for a tool."""

    new_tokens: int
    output_tokens: int
    pause_s: float = 0.0
    tool: str | None = None


@dataclass
class Programs:
    """A source of programs, each a start and turns; `served` are its requests by name, as `a-0`."""

    programs: dict[str, tuple[float, list[Turn]]]
    due: list[Request] = field(default_factory=list)
    served: dict[str, Request] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (start_s, _) in self.programs.items():
            self._send(name, 0, start_s, (), start_s)

    def _send(
        self, name: str, turn: int, at: float, said: tuple[Segment, ...], began_s: float
    ) -> None:
        turns = self.programs[name][1]
        text = (*said, Segment(f"{name} says {turn}", turns[turn].new_tokens))
        request = Request(
            f"{name}-{turn}",
            sum(segment.tokens for segment in text),
            turns[turn].output_tokens,
            at,
            name,
            prefix=text,
            program_s=began_s,
            turn=turn,
            last=turn == len(turns) - 1,
            tool=turns[turn].tool,
            pause_s=turns[turn].pause_s,
        )
        self.served[request.id] = request
        self.due.append(request)

    def next_due_s(self) -> float | None:
        return min((request.arrival_s for request in self.due), default=None)

    def take(self, now: float) -> Iterable[Request]:
        come = [request for request in self.due if request.arrival_s <= now]
        self.due = [request for request in self.due if request.arrival_s > now]
        return come

    def refused(self, request: Request, error: Refused, now: float) -> None:
        raise error

    def finished(self, request: Request, now: float) -> None:
        name, turn = request.program_id or "", request.turn
        if not request.last:
            said = (*request.prefix, Segment(request.id, request.generated))
            back_s = now + self.programs[name][1][turn].pause_s
            self._send(name, turn + 1, back_s, said, request.program_began_s)


@dataclass
class Served:
    """Requests by name, the cluster, and every pin there was: by its call, how long it was for."""

    requests: dict[str, Request]
    cluster: Cluster
    pins_s: dict[str, float]


@pytest.fixture
def serve() -> Callable[..., Served]:
    """Return a function that serves programs, in steps of one second unless told otherwise."""

    def one_second(load: Load) -> float:
        return 1.0

    def serve(
        system: System,
        programs: dict[str, tuple[float, list[Turn]]],
        blocks: int = 1000,
        step_time: Callable[[Load], float] = one_second,
        replicas: int = 1,
    ) -> Served:
        parts = parts_of(system, replicas)
        engines = [
            Engine(
                parts.schedule,
                step_time,
                BlockPool(blocks, Prefixes() if parts.prefix_cache else None),
                10_000,
                retain=parts.retain,
                number=number,
            )
            for number in range(replicas)
        ]
        cluster, source = Cluster(parts, engines), Programs(programs)
        pins_s: dict[str, float] = {}

        def look() -> None:
            cluster.check()
            for engine in engines:
                for pin in engine.pinned.values():
                    last = max(
                        (each for each in source.served.values() if each.done),
                        key=lambda each: (each.program_id == pin.program_id, each.turn),
                    )
                    pins_s[last.id] = pin.until_s - last.token_s[-1]

        run(cluster, source, look)
        return Served(source.served, cluster, pins_s)

    return serve


@pytest.fixture
def turn() -> type[Turn]:
    """Return what a turn of a program is made by."""
    return Turn
