"""Arrivals that set off others: a Hawkes process with an exponential kernel."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from scipy import optimize

from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.stretches import WINDOW_S, Stretches, check_enough
from servescope.analysis.point_processes import Hawkes
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError

MOST_BRANCHING = 0.95  # beyond it a sample explodes now and then


class SelfExciting(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="self_exciting"
):
    """Each arrival sets off `branching` others on average, after an exponential time.

    Its mean is 1 / `decay_per_s`. Another rate changes how many come of themselves, and leaves
    branching and decay.
    """

    branching: float
    decay_per_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.branching < 1 and 0 < self.decay_per_s < math.inf):
            raise InputError(
                "A self-exciting shape has a branching outside [0, 1) or no decay.",
                "Give a branching below 1 and a decay_per_s above 0.",
            )

    @classmethod
    def fit(cls, arrivals: Floats, span_s: float, window_s: float = WINDOW_S) -> SelfExciting:
        """Fit branching and decay by maximum likelihood at the rates of windows.

        At most 16,384 arrivals are looked at, evenly spread; the branching ends at 0.95, and what
        is set off comes within a window on average, since no longer time can be told from the
        rates. Raises InputError of too few arrivals.
        """
        check_enough(arrivals, span_s)
        cut = Stretches.of(arrivals, span_s, window_s)
        mean_s = 1 / float(cut.rate_rps.mean())

        def values(point: Floats) -> tuple[float, float]:
            branching = MOST_BRANCHING / (1 + math.exp(-min(point[0], 30.0)))
            return branching, max(math.exp(min(point[1], 12.0)) / mean_s, 1 / window_s)

        def cost(point: Floats) -> float:
            return -float(_log_scores(cut, *values(point)).sum())

        grid = [
            np.array([math.log(n / (MOST_BRANCHING - n)), math.log(decay)])
            for n in (0.3, 0.8)
            for decay in (0.03, 0.3, 3.0, 30.0)
        ]
        found = optimize.minimize(
            cost,
            min(grid, key=cost),
            method="Nelder-Mead",
            options={"xatol": 5e-3, "fatol": 0.05, "maxfev": 60},
        )
        branching, decay_per_s = values(found.x)
        return cls(branching=rounded(branching), decay_per_s=rounded(decay_per_s))

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return 2

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Draw the times of a window, ascending in [0, width_s)."""
        if not rate_rps:
            return np.empty(0)
        process = Hawkes(rate_rps, self.branching, self.decay_per_s)
        return process.sample(rng, until_s=width_s)

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s).

        What came before the window is not seen: its excitement counts with its mean.
        """
        if not rate_rps:
            return -math.inf if len(arrivals) else 0.0
        cut = Stretches.whole(arrivals, span_s, rate_rps)
        return float(_log_scores(cut, self.branching, self.decay_per_s)[0])

    def summary(self) -> str:
        """Say what it is."""
        return (
            f"Each arrival sets off {self.branching:.2f} others on average, "
            f"{1 / self.decay_per_s:.3g} s later on average (Hawkes)."
        )


def _log_scores(cut: Stretches, branching: float, decay_per_s: float) -> Floats:
    """Return the log-likelihood of each stretch."""
    alone_rps = cut.rate_rps * (1 - branching)
    kept = np.exp(-decay_per_s * np.diff(cut.at, prepend=0.0, append=cut.width_s))
    excited = cut.rate_rps * branching
    intensity = np.empty(cut.at.shape[::-1])
    jump = branching * decay_per_s
    for place, keep in enumerate(kept.T[:-1]):
        excited = excited * keep
        intensity[place] = excited
        excited = excited + jump
    inside = np.arange(cut.at.shape[1]) < cut.count[:, None]
    logs = np.where(inside, np.log(intensity.T + alone_rps[:, None]), 0.0).sum(axis=1)
    left = np.where(inside, -np.expm1(-decay_per_s * (cut.width_s - cut.at)), 0.0).sum(axis=1)
    before = cut.rate_rps * branching * -np.expm1(-decay_per_s * cut.width_s) / decay_per_s
    return np.asarray(logs - alone_rps * cut.width_s - before - branching * left)
