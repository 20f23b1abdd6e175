"""Arrivals cut into equal stretches of time, with the rate of the window that each lies in.

A shape is fitted to how arrivals lie within windows whose rates are given: it stands in for what
the schedule of rates does not say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError

WINDOW_S = 600.0
FEWEST = 30  # arrivals that a shape with parameters is fitted to
_IN_WINDOW = 20  # arrivals of a window on average, or more
_MEAN = 256  # arrivals in a stretch
_MOST = 16_384  # arrivals that a fit looks at


def check_enough(arrivals: Floats, span_s: float) -> None:
    """Raise InputError unless arrivals are FEWEST or more, within the span, at different times."""
    if len(arrivals) < FEWEST:
        raise InputError(
            f"{len(arrivals)} arrivals are too few for a shape with parameters.",
            f"Give {FEWEST} or more.",
        )
    if not arrivals[-1] > arrivals[0]:
        raise InputError("All arrivals come at one instant.", "Give those of a longer time.")
    if not (arrivals[0] >= 0 and span_s >= arrivals[-1]):
        raise InputError("The arrivals are not within their span.", "Count seconds from its begin.")


def wide_enough(arrivals: Floats, span_s: float, window_s: float) -> float:
    """Return the width of windows, or a longer one with which they hold 20 arrivals on average.

    The rate of a window with fewer would say when each of them came.
    """
    return max(window_s, _IN_WINDOW * span_s / max(1, len(arrivals)))


def window_edges(span_s: float, window_s: float) -> Floats:
    """Return the edges of equal windows of about `window_s` that fill the span."""
    return np.linspace(0.0, span_s, max(1, round(span_s / window_s)) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """Stretches of `width_s`: their arrivals, counted from the begin of each, and their rates.

    `at` has shape (stretches, most arrivals), filled up with `width_s`; `count` says how many of
    each row are arrivals. The rate is that of the whole window.
    """

    width_s: float
    at: Floats
    count: Ints
    rate_rps: Floats

    @classmethod
    def of(
        cls,
        arrivals: Floats,
        span_s: float,
        window_s: float,
        mean: int = _MEAN,
        most: int = _MOST,
    ) -> Stretches:
        """Cut windows evenly, so that a stretch has about `mean` arrivals on average, or fewer.

        Windows are those that are `wide_enough`. Stretches are left out, evenly over the span,
        until about `most` arrivals are in them; so are those of windows without arrivals.
        """
        edges = window_edges(span_s, wide_enough(arrivals, span_s, window_s))
        windows = len(edges) - 1
        counts = np.diff(np.searchsorted(arrivals, edges)).astype(np.float64)
        parts = max(1, round(len(arrivals) / windows / mean))
        held = np.flatnonzero(np.repeat(counts > 0, parts))
        if len(arrivals) > most:
            kept = max(1, len(held) * most // len(arrivals))
            held = held[np.linspace(0, len(held) - 1, kept).astype(np.int64)]
        width_s = span_s / windows / parts
        first = np.searchsorted(arrivals, held * width_s)
        last = np.searchsorted(arrivals, (held + 1) * width_s)
        count = last - first
        place = np.arange(max(1, int(count.max())))
        inside = place < count[:, None]
        index = np.minimum(first[:, None] + place, len(arrivals) - 1)
        at = np.where(inside, arrivals[index] - (held * width_s)[:, None], width_s)
        rate_rps = counts[held // parts] / (span_s / windows)
        return cls(width_s, at, count, rate_rps)

    @classmethod
    def whole(cls, arrivals: Floats, span_s: float, rate_rps: float) -> Stretches:
        """Return all arrivals as one stretch."""
        return cls(span_s, arrivals[None, :], np.array([len(arrivals)]), np.array([rate_rps]))

    def counts(self, bins: int) -> Floats:
        """Return the number of arrivals in equal bins: shape (bins, stretches)."""
        rows, most = self.at.shape
        place = np.minimum((self.at * (bins / self.width_s)).astype(np.int64), bins - 1)
        cell = place * rows + np.arange(rows)[:, None]
        inside = np.arange(most) < self.count[:, None]
        return np.bincount(cell[inside], minlength=bins * rows).reshape(bins, rows).astype(float)
