"""How much faster than real time the emulated engine runs.

.venv/bin/python benchmarks/virtual_time.py
"""

import time
from collections import deque
from collections.abc import Iterable

import numpy as np

from servescope.engine.engine import Refused, emulate
from servescope.engine.request import Request
from servescope.engine.systems import SYSTEMS, make_system
from servescope.engine.virtual import run

REQUESTS = 330
SPAN_S = 30.0


class Timetable:
    """Requests at given times, whatever the engine does."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self.due = deque(requests)
        self.done: list[Request] = []

    def next_due_s(self) -> float | None:
        return self.due[0].arrival_s if self.due else None

    def take(self, now: float) -> Iterable[Request]:
        while self.due and self.due[0].arrival_s <= now:
            yield self.due.popleft()

    def refused(self, request: Request, error: Refused, now: float) -> None:
        raise error

    def finished(self, request: Request, now: float) -> None:
        self.done.append(request)


def agents() -> list[Request]:
    """Return the shape of a coding-agent trace: long prompts, short outputs."""
    rng = np.random.default_rng(0)
    arrivals = np.sort(rng.uniform(0, SPAN_S, REQUESTS))
    inputs = np.minimum(rng.lognormal(np.log(17_000) - 0.5, 1.0, REQUESTS), 120_000)
    outputs = rng.geometric(1 / 140, REQUESTS)
    return [
        Request(str(i), max(1, int(inputs[i])), int(outputs[i]), float(arrivals[i]))
        for i in range(REQUESTS)
    ]


def main() -> None:
    for name in SYSTEMS:
        best = float("inf")
        for _ in range(5):
            source = Timetable(agents())
            engine = emulate(make_system(name), "Llama-3.1-8B", "H100", tp=8)
            start = time.perf_counter()
            run(engine, source)
            best = min(best, time.perf_counter() - start)
        end = max(request.token_s[-1] for request in source.done)
        counters = engine.counters
        print(
            f"{name:8}  {best * 1e3:5.0f} ms for {SPAN_S:.0f} s of arrivals ({SPAN_S / best:.0f}x),"
            f" {end:.1f} s of serving ({end / best:.0f}x), {counters.steps} steps,"
            f" {counters.generation_tokens} tokens, {counters.preemptions} preemptions"
        )


if __name__ == "__main__":
    main()
