"""How long programs pause for their tools, and how long it pays to keep their keys and values.

What Continuum (arXiv 2511.02230) learns from what a server sees: when calls of a program end, and
when its next ones come.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

import numpy as np


class Durations:
    """Pauses that were seen (s), the shortest first: of every tool, and of all together."""

    def __init__(self) -> None:
        self.all = array("d")
        self._of: dict[str | None, array[float]] = {}
        self._total_s: dict[str | None, float] = {}

    def add(self, tool: str | None, pause_s: float) -> None:
        """Take in a pause."""
        insort(self.all, pause_s)
        insort(self._of.setdefault(tool, array("d")), pause_s)
        self._total_s[tool] = self._total_s.get(tool, 0.0) + pause_s

    def of(self, tool: str | None) -> Sequence[float]:
        """Return the pauses of a tool."""
        return self._of.get(tool, ())

    def mean_s(self, tool: str | None) -> float | None:
        """Return the mean pause of a tool; None if none was seen."""
        return self._total_s[tool] / len(self._of[tool]) if tool in self._of else None


def best_ttl(pauses: Sequence[float], benefit_s: float) -> float:
    """Return the time to keep that maximises P(pause <= ttl) benefit - ttl: the paper's tau*.

    P is the empirical distribution of the sorted `pauses`: only a pause that was seen, or 0, can be
    the best. Of several that are, it is the shortest.
    """
    if not pauses or benefit_s <= 0:
        return 0.0
    seen = np.asarray(pauses)
    # the last of equal pauses has their P, and is worth the most of them
    worth = np.arange(1, len(seen) + 1) / len(seen) * benefit_s - seen
    best = int(worth.argmax())
    at_zero = bisect_right(pauses, 0.0) / len(pauses) * benefit_s
    return float(seen[best]) if worth[best] > at_zero else 0.0


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
        """Minus the correlation of turns done and turns left; 0 where there is none.

        All pairs (k, N - k) of all programs count alike: k turns are done after the k-th of N.
        """
        if self._eta is None:
            self._eta = self._minus_correlation()
        return self._eta

    def _minus_correlation(self) -> float:
        # In a program both go from 1 to N - 1, so that their sums and squares are the same.
        pairs = sum(n - 1 for n in self._ended)
        total = sum(n * (n - 1) // 2 for n in self._ended)
        squares = sum((n - 1) * n * (2 * n - 1) // 6 for n in self._ended)
        products = sum(n * n * (n - 1) // 2 for n in self._ended) - squares
        spread = squares * pairs - total * total
        return (total * total - products * pairs) / spread if spread else 0.0
