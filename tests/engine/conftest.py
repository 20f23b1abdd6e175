"""A source of given requests, and a run of them in virtual time."""

from collections import deque
from collections.abc import Callable, Iterable

import pytest

from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine, Refused
from servescope.engine.request import Request
from servescope.engine.virtual import run


class Timetable:
    def __init__(self, requests: Iterable[Request]) -> None:
        self.due = deque(requests)
        self.done: list[Request] = []
        self.turned_away: list[Request] = []
        self.log: list[tuple[float, int]] = []  # when one came (+1) or went (-1)

    def next_due_s(self) -> float | None:
        return self.due[0].arrival_s if self.due else None

    def take(self, now: float) -> Iterable[Request]:
        while self.due and self.due[0].arrival_s <= now:
            self.log.append((now, 1))
            yield self.due.popleft()

    def refused(self, request: Request, error: Refused, now: float) -> None:
        self.turned_away.append(request)

    def finished(self, request: Request, now: float) -> None:
        self.log.append((now, -1))
        self.done.append(request)


@pytest.fixture
def simulate() -> Callable[[Engine | Cluster, Iterable[Request]], Timetable]:
    """Serve the requests in virtual time and return their source."""

    def simulate(served: Engine | Cluster, requests: Iterable[Request]) -> Timetable:
        source = Timetable(requests)
        run(Cluster.of(served) if isinstance(served, Engine) else served, source)
        return source

    return simulate
