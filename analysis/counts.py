"""How many arrivals, or tokens, fall into windows of a width; empty windows cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from servescope.analysis.sample import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """The windows that hold arrivals: `place` in [0, `windows`), ascending, and `number` of each.

    Only whole windows count; window 0 begins at `start_s`. A number may be one of tokens.
    """

    width_s: float
    start_s: float
    windows: int
    place: Ints
    number: Floats

    @classmethod
    def of(
        cls,
        arrivals: Floats,
        width_s: float,
        start_s: float | None = None,
        weights: Floats | None = None,
    ) -> Counts:
        """Count arrivals (s, ascending) in windows from the first one, or `start_s`, to the last.

        With `weights` each counts for its own.
        """
        if not len(arrivals):
            return cls(width_s, 0.0, 0, np.empty(0, np.int64), np.empty(0))
        start = float(arrivals[0]) if start_s is None else start_s
        # stamps on the grid of windows must not fall short of their edge by a rounding
        place = np.floor((arrivals - start) / width_s + 1e-9).astype(np.int64)
        windows = int((float(arrivals[-1]) - start) / width_s + 1e-9)
        inside = slice(*np.searchsorted(place, (0, windows)).tolist())
        place = place[inside]
        edges = np.flatnonzero(np.diff(place, prepend=-1))
        if weights is None:
            number = np.diff(edges, append=len(place)).astype(np.float64)
        else:
            number = np.add.reduceat(weights[inside], edges) if len(edges) else np.empty(0)
        return cls(width_s, start, windows, place[edges], number)

    def doubled(self) -> Counts:
        """Return the counts in windows twice as wide."""
        windows = self.windows // 2
        upto = int(np.searchsorted(self.place, 2 * windows))
        wide = self.place[:upto] // 2
        edges = np.flatnonzero(np.diff(wide, prepend=-1))
        number = np.add.reduceat(self.number[:upto], edges) if upto else self.number[:0]
        return Counts(2 * self.width_s, self.start_s, windows, wide[edges], number)

    def octaves(self, fewest: int = 10) -> Iterator[Counts]:
        """Yield the counts in windows twice as wide and again, while there are `fewest` of them."""
        counts = self
        while counts.windows >= fewest:
            yield counts
            counts = counts.doubled()

    def dense(self) -> Floats:
        """Return the number in every window: shape (windows,)."""
        series = np.zeros(self.windows)
        series[self.place] = self.number
        return series

    def sections(self, most: int = 20) -> tuple[Ints, Ints]:
        """Cut the windows into sections of time; return that of each window held, and their sizes.

        There are `most` of them, or as many as there are windows.
        """
        many = min(most, self.windows)
        firsts = -(-np.arange(many + 1) * self.windows // many)
        return self.place * many // self.windows, np.diff(firsts)


def width_for(span_s: float, finest_s: float, windows: int, least_s: float = 0.1) -> float:
    """Return the smallest octave of the finest scale that cuts a span into at most `windows`.

    It is no smaller than `least_s`, nor than `finest_s`.
    """
    width = max(finest_s, least_s)
    while span_s / width > windows:
        width *= 2
    return width


def round_width(span_s: float, windows: int, finest_s: float = 0.0) -> float:
    """Return a width of whole seconds, minutes or hours, or a decimal part of a second.

    It is the smallest such that there are at most `windows` and it is no finer than `finest_s`.
    """
    for width in _ROUND:
        if width >= finest_s and span_s / width <= windows:
            return width
    days = int(max(span_s / windows, finest_s) / 86_400) + 1
    return 86_400.0 * days


_ROUND = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0,
    120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
)  # fmt: skip
