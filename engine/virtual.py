"""The virtual clock: run an engine as fast as the host can, event by event."""

import math
from collections.abc import Iterable
from typing import Protocol

from servescope.engine.engine import Engine, Refused, Step
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


def run(engine: Engine, source: Source) -> None:
    """Serve what the source sends until nothing is due and nothing is running.

    At one instant a step ends first, then requests arrive, then the next step begins.
    """
    now = 0.0
    step: Step | None = None
    while True:
        due = source.next_due_s()
        if step is not None and (due is None or step.ends_s <= due):
            now = step.ends_s
            for request in engine.finish(step).finished:
                source.finished(request, now)
            step = None
            due = source.next_due_s()
        elif due is not None:
            now = max(now, due)
        else:
            return
        if due is not None and due <= now:
            for request in source.take(now):
                try:
                    engine.submit(request, now)
                except Refused as error:
                    source.refused(request, error, now)
        if step is None:
            due = source.next_due_s()
            step = engine.begin(now, math.inf if due is None else due)
