"""The virtual clock: run a cluster as fast as the host can, event by event."""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from servescope.engine.blame import blaming
from servescope.engine.cluster import Cluster, stuck
from servescope.engine.engine import Refused
from servescope.engine.request import Request


class Source(Protocol):
    """Who sends the requests, and is told what became of them; times are virtual seconds."""

    def next_due_s(self) -> float | None:
        """Return when the next request is due; None when none is, until one finishes."""
        ...

    def take(self, now: float) -> Iterable[Request]:
        """Return every request that is due by `now`, and forget it."""
        ...

    def refused(self, request: Request, error: Refused, now: float) -> None:
        """Hear that a request can never be served."""
        ...

    def finished(self, request: Request, now: float) -> None:
        """Hear that a request's last token is out."""
        ...


@blaming()
def run(cluster: Cluster, source: Source, on_event: Callable[[], None] | None = None) -> None:
    """Serve what the source sends until nothing is due and nothing is running.

    At one instant steps end first, then requests arrive, then the next steps begin; `on_event`
    hears of each. Raises Deadlock when requests are left that nothing will ever move, and
    PolicyFailed for an error that a policy raises itself.
    """
    now = 0.0
    while True:
        due = source.next_due_s()
        ends_s = cluster.next_s(due is not None)
        if ends_s < math.inf and (due is None or ends_s <= due):
            now = max(now, ends_s)
            for request in cluster.end(ends_s):
                source.finished(request, now)
            due = source.next_due_s()
        elif due is not None:
            now = max(now, due)
        elif cluster.idle:
            return
        else:
            raise stuck()
        if due is not None and due <= now:
            for request in source.take(now):
                try:
                    cluster.submit(request, now)
                except Refused as error:
                    source.refused(request, error, now)
            due = source.next_due_s()
        cluster.begin(now, math.inf if due is None else due)
        if on_event is not None:
            on_event()
