"""The host of an engine with asynchronous scheduling: it launches a step while the one before runs.

As vLLM does since its V1 engine: when the tokens of step i - 1 are in, step i + 1 is planned and
launched, and only then are the tokens of step i asked for. So

- who arrives while a step runs takes part in the step after the next;
- a step cannot end before its own launch has, nor be seen to end before the next one's has;
- an idle engine's first step waits for its launch.

Launching takes long where a step has a piece of a prompt, and longest without CUDA graphs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from servescope.engine.catalog import Overhead
from servescope.engine.request import Request
from servescope.engine.step_time import Load


class Host:
    """What the host of one engine does, and when (s)."""

    __slots__ = ("_arrived", "_budget", "_ended_s", "_gpu_s", "_launches_s", "overhead")

    def __init__(self, overhead: Overhead) -> None:
        self.overhead = overhead
        self._arrived: deque[tuple[float, Request]] = deque()  # and no plan has seen them
        self._launches_s = 0.0  # since when the next step can be planned and launched
        self._gpu_s = 0.0  # when the GPU has computed all that was launched
        self._ended_s = -1.0  # when the last step was seen to end
        self._budget: int | None = None  # tokens of a step that left a prompt unfinished

    def __len__(self) -> int:
        return len(self._arrived)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._arrived)

    def arrive(self, request: Request, now: float) -> None:
        """Take in a request, which has the front end to pass."""
        self._arrived.append((now + self.overhead.frontend_s, request))

    def forget(self, request: Request) -> bool:
        """Drop a request; False when it is not here any more."""
        before = len(self._arrived)
        self._arrived = deque(each for each in self._arrived if each[1] is not request)
        return len(self._arrived) < before

    def wake(self, now: float, busy: bool) -> float:
        """Return when the step planned at `now` starts: at once, unless all are still to come."""
        comes_s = self._arrived[0][0] if self._arrived else now
        if now == self._ended_s and (busy or comes_s <= self._launches_s):
            return now
        if not busy:
            now = max(now, comes_s)
        self._launches_s = self._gpu_s = now
        return now

    def seen(self) -> Iterator[Request]:
        """Hand out the requests that the step's plan can know of."""
        arrived = self._arrived
        while arrived and arrived[0][0] <= self._launches_s:
            yield arrived.popleft()[1]

    def end(self, now: float, load: Load, computes_s: float, left: int, decodes: int) -> float:
        """Return when the tokens of a step that starts at `now` are in.

        It computes for so long; it leaves so many tokens of the prompts in it to the next one, in
        which so many requests decode.
        """
        if left:
            self._budget = load.tokens
        launched_s = self._launches_s + self._launch_s(load.tokens, load.pairs > 0)
        self._gpu_s = max(max(self._gpu_s, self._launches_s) + computes_s, launched_s)
        self._launches_s = launches_s = max(now, launched_s) if load.pairs else now
        prompts = left
        for at, request in self._arrived:
            if at > launches_s:
                break
            prompts += request.remaining
        tokens = prompts + decodes if self._budget is None else min(prompts + decodes, self._budget)
        return max(self._gpu_s, launches_s + self._launch_s(tokens, prompts > 0))

    def ended(self, ends: list[float]) -> None:
        """Hear that a step has ended, or the last of several that decode alone."""
        self._ended_s = ends[-1]
        if len(ends) > 1:
            self._launches_s, self._gpu_s = ends[-2:]

    def _launch_s(self, tokens: int, prompts: bool) -> float:
        """Return how long the launch of a step takes; without prompts it hides behind the GPU."""
        if not prompts:
            return 0.0
        overhead = self.overhead
        if tokens > overhead.graph_tokens:
            return overhead.eager_launch_s
        return overhead.graph_launch_s
