"""Whether gaps are those of a renewal process once the changes of the rate are taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servescope.analysis.families import FAMILIES
from servescope.analysis.goodness import REPLICATES, distance
from servescope.analysis.sample import Floats

MOST = 2000  # arrivals in a row that are tested
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A renewal model with a rate a window: KS distance of its residuals, and how they follow.

    `serial` is the correlation of each residual's rank with the next. Both p-values are of
    REPLICATES draws from the fitted model, of which every rate and parameter is fitted again.
    """

    family: str
    arrivals: int
    distance: float
    p_value: float
    serial: float
    serial_p: float


def rate_clock(arrivals: Floats, width_s: float) -> tuple[Floats, Floats]:
    """Return the edges of windows of `width_s` and how many arrivals had come by each.

    Between two edges the clock of the rate runs evenly (time rescaling, Brown et al. 2002). The
    last window ends with the last arrival, for beyond it nothing is known of the rate.
    """
    edges = np.arange(arrivals[0], arrivals[-1] + width_s, width_s)
    edges[-1] = arrivals[-1]
    upto = np.searchsorted(arrivals, edges, side="right").astype(np.float64)
    upto[0] = 0.0
    return edges, upto


def rate_free(arrivals: Floats, width_s: float) -> Floats:
    """Return arrivals on the clock of their rate: gaps have mean 1 whatever the rate does."""
    return np.interp(arrivals, *rate_clock(arrivals, width_s))


def rescaled(arrivals: Floats, width_s: float, family: str, rng: np.random.Generator) -> Rescaled:
    """Test a renewal process whose rate is constant in windows of `width_s` (Brown et al. 2002).

    A stretch of MOST arrivals from the middle is tested. On the clock of the fitted rate the gaps
    have mean 1 and the law of the family; `exponential` makes a Poisson process.
    """
    model = FAMILIES[family]
    first = max(0, (len(arrivals) - MOST) // 2)
    part = arrivals[first : first + MOST]
    edges, upto = rate_clock(part, width_s)
    residual = np.maximum(np.diff(np.interp(part, edges, upto)), _TINY)
    with np.errstate(all="ignore"):
        p = model.fit(residual)
        seen = float(distance(np.sort(residual), model, p))
        serial = _serial(residual)
        gaps = model.sample(rng, np.broadcast_to(p, (REPLICATES, len(p))), len(part))
        times = np.cumsum(gaps / gaps.mean(axis=-1, keepdims=True), axis=-1)
        again = np.empty((REPLICATES, len(part) - 1))
        for row, drawn in zip(again, times, strict=True):
            bounds = upto.copy()
            bounds[-1] = max(bounds[-1], drawn[-1])
            counted = np.searchsorted(drawn, bounds, side="right").astype(np.float64)
            counted[0] = 0.0
            row[:] = np.diff(np.interp(drawn, bounds, counted))
        again = np.maximum(again, _TINY)
        distances = distance(np.sort(again, axis=-1), model, model.fit(again))
        serials = np.array([_serial(row) for row in again])
    beyond = int((distances >= seen).sum())
    odd = int((np.abs(serials - serials.mean()) >= abs(serial - serials.mean())).sum())
    return Rescaled(
        family,
        len(part),
        seen,
        (beyond + 1) / (REPLICATES + 1),
        serial,
        (odd + 1) / (REPLICATES + 1),
    )


def _serial(values: Floats) -> float:
    ranks = np.argsort(np.argsort(values)).astype(np.float64)
    ranks -= ranks.mean()
    total = float(ranks @ ranks)
    return float(ranks[1:] @ ranks[:-1]) / total if total else 0.0
