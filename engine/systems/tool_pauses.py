"""How long programs pause for their tools, and how long it pays to keep their keys and values.

What Continuum (arXiv 2511.02230) learns from what a server sees: when calls of a program end, and
when its next ones come.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np


class Durations:
    """Pauses that were seen (s): of every tool, and of all together."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self._of: dict[str | None, list[float]] = {}

    def add(self, tool: str | None, pause_s: float) -> None:
        """Take in a pause."""
        insort(self.all, pause_s)
        insort(self._of.setdefault(tool, []), pause_s)

    def of(self, tool: str | None) -> Sequence[float]:
        """Return the pauses of a tool, the shortest first."""
        return self._of.get(tool, ())


def best_ttl(pauses: Sequence[float], benefit_s: float) -> float:
    """Return the time to keep that maximises P(pause <= ttl) benefit - ttl, where 0 is worth 0.

    P is the empirical distribution of the sorted `pauses` (equation of the paper's section 4): only
    a pause that was seen, or 0, can be the best.
    """
    if not pauses:
        return 0.0
    values = np.asarray(pauses)
    worth = np.arange(1, len(values) + 1) / len(values) * benefit_s - values
    best = int(worth.argmax())
    at_zero = bisect_right(pauses, 0.0) / len(pauses) * benefit_s
    return float(values[best]) if worth[best] > at_zero else 0.0


def cold_ttl(benefit_s: float) -> float:
    """Return the same for pauses that are exponential with a mean of 1 s: ln B, or 0 if B < 1."""
    return math.log(benefit_s) if benefit_s > 1 else 0.0


class Turns:
    """How much the turns that are done say of those to come, in the last programs that ended."""

    def __init__(self, programs: int = 256) -> None:
        self._ended: deque[int] = deque(maxlen=programs)
        self._eta: float | None = None

    def ended(self, turns: int) -> None:
        """Take in a program that had so many turns."""
        self._ended.append(turns)
        self._eta = None

    @property
    def eta(self) -> float:
        """Minus the correlation of turns done and turns left; 0 where there is none."""
        if self._eta is None:
            self._eta = _minus_correlation(self._ended)
        return self._eta


def _minus_correlation(ended: Iterable[int]) -> float:
    done: list[int] = []
    left: list[int] = []
    for turns in ended:
        done += range(1, turns)
        left += range(turns - 1, 0, -1)
    if len(set(done)) < 2 or len(set(left)) < 2:
        return 0.0
    return -float(np.corrcoef(done, left)[0, 1])
