"""Renewal shapes: independent gaps of one law, or of a law a window as ServeGen has them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from scipy import optimize, special

from servescope.analysis.families import FAMILIES
from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.stretches import (
    WINDOW_S,
    check_enough,
    wide_enough,
    window_edges,
)
from servescope.analysis.sample import Floats, Ints

Gaps = Literal["exponential", "gamma", "weibull"]
Above0 = Annotated[float, msgspec.Meta(gt=0)]
_SHAPES: Final = {"exponential": (1.0, 1.0), "gamma": (0.02, 1e4), "weibull": (0.1, 100.0)}
_MOST_GAPS = 20_000  # that a fit looks at
_IN_WINDOW = 256  # gaps of a window that its law is fitted to
_FEWEST = 50  # arrivals of a window that has a law of its own
_SCORED = 32  # laws that a score looks at
_TINY = 1e-9  # of a mean gap: what a gap of 0 counts as


class Poisson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="poisson"):
    """Arrivals that know nothing of each other. It has no parameters; the rate is given."""

    @classmethod
    def fit(cls, arrivals: Floats, span_s: float, window_s: float = WINDOW_S) -> Poisson:
        """Return it: there is nothing to learn."""
        return cls()

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return 0

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Draw the times of a window, ascending in [0, width_s)."""
        return np.sort(rng.random(rng.poisson(rate_rps * width_s))) * width_s

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s)."""
        if not rate_rps:
            return -math.inf if len(arrivals) else 0.0
        return len(arrivals) * math.log(rate_rps) - rate_rps * span_s

    def summary(self) -> str:
        """Say what it is."""
        return "Arrivals are independent of each other (Poisson)."


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="renewal"):
    """Independent gaps of a law whose mean is 1 / rate: another rate stretches all of them.

    A window begins at any moment, not at an arrival: the time to its first arrival has the
    equilibrium law (Cox 1962).
    """

    gaps: Gaps
    shape: Above0

    @classmethod
    def fit(
        cls,
        arrivals: Floats,
        span_s: float,
        window_s: float = WINDOW_S,
        gaps: Gaps = "gamma",
    ) -> Renewal:
        """Fit the shape to gaps over the mean gap of their window, by maximum likelihood.

        Raises InputError of too few arrivals.
        """
        check_enough(arrivals, span_s)
        low, high = _SHAPES[gaps]
        if low == high:
            return cls(gaps=gaps, shape=low)
        x = _unit_gaps(arrivals, span_s, window_s)
        x = x[:: max(1, len(x) // _MOST_GAPS)]
        found = optimize.minimize_scalar(
            lambda log: -float(cls(gaps=gaps, shape=math.exp(log))._log_density(x).sum()),
            bounds=(math.log(low), math.log(high)),
            method="bounded",
            options={"xatol": 1e-4},
        )
        return cls(gaps=gaps, shape=rounded(math.exp(found.x)))

    @classmethod
    def of_cv(cls, arrivals: Floats) -> Renewal:
        """Return gamma gaps with the coefficient of variation that the gaps of arrivals have."""
        gaps = np.diff(arrivals)
        squared = float(gaps.var() / gaps.mean() ** 2) if len(gaps) and gaps.any() else 1.0
        low, high = _SHAPES["gamma"]
        return cls(gaps="gamma", shape=rounded(min(max(1 / max(squared, 1e-9), low), high)))

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return int(self.gaps != "exponential")

    @property
    def cv(self) -> float:
        """Coefficient of variation of the gaps."""
        if self.gaps == "weibull":
            log = special.gammaln(1 + 2 / self.shape) - 2 * special.gammaln(1 + 1 / self.shape)
            return math.sqrt(math.expm1(log))
        return 1 / math.sqrt(self.shape)

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Draw the times of a window, ascending in [0, width_s)."""
        expected = rate_rps * width_s
        if not expected:
            return np.empty(0)
        parts = [np.array([self._first(rng)])]
        last = float(parts[0][0])
        while last < expected:
            size = int(1.1 * (expected - last) + 3 * self.cv * math.sqrt(expected) + 16)
            parts.append(last + np.cumsum(self._gaps(rng, size)))
            last = float(parts[-1][-1])
        times = np.concatenate(parts) / rate_rps
        return np.asarray(times[: np.searchsorted(times, width_s)])

    def filled(self, rng: np.random.Generator, count: int, width_s: float) -> Floats:
        """Draw `count` times whose gaps are stretched to fill the window, as ServeGen's code does.

        The number of arrivals is then certain, whatever the law of the gaps.
        """
        gaps = self._gaps(rng, count)
        upto = np.cumsum(gaps)
        return upto * (np.nextafter(width_s, 0) / upto[-1]) if count else upto

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s)."""
        if not rate_rps:
            return -math.inf if len(arrivals) else 0.0
        x, width = arrivals * rate_rps, span_s * rate_rps
        if not len(x):
            return math.log(max(self._equilibrium_survival(width), 1e-300))
        ends = np.array([x[0], width - x[-1]])
        gaps = np.maximum(np.diff(x), _TINY)
        inside = float(self._log_density(gaps).sum() + np.log(self._survival(ends)).sum())
        return inside + len(x) * math.log(rate_rps)

    def summary(self) -> str:
        """Say what it is."""
        return (
            f"Gaps are independent, of a {self.gaps} law with shape {self.shape:.3g} "
            f"(CV {self.cv:.2f})."
        )

    @property
    def _unit(self) -> Floats:
        """Parameters of the family with mean 1."""
        if self.gaps == "exponential":
            return np.ones(1)
        if self.gaps == "gamma":
            return np.array([self.shape, 1 / self.shape])
        return np.array([self.shape, math.exp(-special.gammaln(1 + 1 / self.shape))])

    def _gaps(self, rng: np.random.Generator, count: int) -> Floats:
        if self.gaps == "gamma":
            return rng.standard_gamma(self.shape, count) / self.shape
        if self.gaps == "weibull":
            return np.asarray(rng.weibull(self.shape, count) * self._unit[1])
        return rng.standard_exponential(count)

    def _first(self, rng: np.random.Generator) -> float:
        """Draw a part of the gap that a moment falls into: long gaps hold more moments."""
        if self.gaps == "gamma":
            around = rng.standard_gamma(self.shape + 1) / self.shape
        elif self.gaps == "weibull":
            around = rng.standard_gamma(1 + 1 / self.shape) ** (1 / self.shape) * self._unit[1]
        else:
            around = rng.standard_gamma(2.0)
        return float(around * rng.random())

    def _log_density(self, x: Floats) -> Floats:
        return FAMILIES[self.gaps].log_density(x, self._unit)

    def _survival(self, x: Floats) -> Floats:
        if self.gaps == "gamma":
            left = special.gammaincc(self.shape, x * self.shape)
        else:
            left = np.exp(-((x / self._unit[-1]) ** self.shape))
        return np.maximum(left, 1e-300)

    def _equilibrium_survival(self, x: float) -> float:
        if self.gaps == "gamma":
            beyond = special.gammaincc(self.shape + 1, x * self.shape)
            return float(beyond - x * special.gammaincc(self.shape, x * self.shape))
        return float(special.gammaincc(1 / self.shape, (x / self._unit[-1]) ** self.shape))


class Law(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The law of gaps in a number of windows in a row."""

    gaps: Gaps
    shape: Above0
    windows: Annotated[int, msgspec.Meta(ge=1)]

    def renewal(self) -> Renewal:
        """Return it as a shape."""
        return Renewal(gaps=self.gaps, shape=self.shape)


class WindowedRenewal(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="windowed_renewal"
):
    """Renewal gaps whose family and shape change from window to window, as in ServeGen.

    `laws` stand in the order of the trace, so that `at` gives that of a window; a sample draws one
    for every `window_s`, each as likely as the windows it stands for.
    """

    window_s: Above0
    laws: Annotated[tuple[Law, ...], msgspec.Meta(min_length=1)]

    @classmethod
    def fit(
        cls, arrivals: Floats, span_s: float, window_s: float = WINDOW_S, fewest: int = _FEWEST
    ) -> WindowedRenewal:
        """Take the best of exponential, gamma and Weibull gaps in each window, by AIC.

        Windows are joined to the next until `fewest` arrivals are in them. Raises InputError of too
        few arrivals.
        """
        check_enough(arrivals, span_s)
        edges = window_edges(span_s, window_s)
        upto = np.searchsorted(arrivals, edges)
        ends = [0]
        for end in range(1, len(edges)):
            if upto[end] - upto[ends[-1]] >= fewest:
                ends.append(end)
        ends = [*ends[:-1], len(edges) - 1] if len(ends) > 1 else [0, len(edges) - 1]
        first, last = upto[ends[:-1]], upto[ends[1:]]
        x, weights = _rows(arrivals, first, last)
        found = []
        for name in _SHAPES:
            family = FAMILIES[name]
            p = family.fit(x, weights)
            low, high = _SHAPES[name]
            cost = len(family.names) - family.log_likelihood(x, p, weights)
            shape = np.clip(p[:, 0], low, high)
            found.append((np.where(np.isfinite(cost), cost, np.inf), shape))
        best = np.argmin([cost for cost, _ in found], axis=0)
        names: tuple[Gaps, ...] = ("exponential", "gamma", "weibull")
        laws = tuple(
            Law(gaps=names[k], shape=rounded(float(found[k][1][row])), windows=int(size))
            for row, (k, size) in enumerate(zip(best.tolist(), np.diff(ends), strict=True))
        )
        return cls(window_s=rounded(float(edges[1])), laws=laws)

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return sum(law.gaps != "exponential" for law in self.laws)

    @property
    def windows(self) -> int:
        """For how many windows of the trace there are laws."""
        return sum(law.windows for law in self.laws)

    def at(self, window: int) -> Renewal:
        """Return the shape of a window of the trace; after the last one they begin again."""
        return self.each(np.array([window]))[0]

    def each(self, windows: Ints) -> list[Renewal]:
        """Return the shapes of windows of the trace, as `at` does."""
        ends = np.cumsum([law.windows for law in self.laws])
        place = np.searchsorted(ends, windows % ends[-1], side="right")
        return [self.laws[k].renewal() for k in place.tolist()]

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Draw the times of a window, ascending in [0, width_s)."""
        edges = window_edges(width_s, self.window_s)
        weight = np.array([law.windows for law in self.laws], np.float64)
        drawn = rng.choice(len(self.laws), len(edges) - 1, p=weight / weight.sum())
        return np.concatenate(
            [
                begin + self.laws[law].renewal().sample(rng, rate_rps, edges[1])
                for begin, law in zip(edges[:-1], drawn, strict=True)
            ]
        )

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s), whichever law drew them.

        Of many laws those are taken that are evenly spread over the order of their CVs.
        """
        ranked = sorted(self.laws, key=lambda law: (law.renewal().cv, law.gaps))
        upto = np.cumsum([law.windows for law in ranked])
        count = min(_SCORED, int(upto[-1]))
        place = np.searchsorted(upto, (np.arange(count) + 0.5) / count * upto[-1])
        which, often = np.unique(place, return_counts=True)
        edges = window_edges(span_s, self.window_s)
        total = 0.0
        for begin, end in pairwise(edges.tolist()):
            part = arrivals[slice(*np.searchsorted(arrivals, (begin, end)))] - begin
            scores = [ranked[k].renewal().log_score(part, end - begin, rate_rps) for k in which]
            total += float(special.logsumexp(scores, b=often / count))
        return total

    def summary(self) -> str:
        """Say what it is."""
        cvs = np.repeat([law.renewal().cv for law in self.laws], [law.windows for law in self.laws])
        low, middle, high = np.quantile(cvs, (0.1, 0.5, 0.9))
        return (
            f"Gaps are independent, of a law of their own in each of {len(self.laws)} windows of "
            f"{self.window_s:g} s or more (CV {middle:.2f}, from {low:.2f} to {high:.2f})."
        )


def _unit_gaps(arrivals: Floats, span_s: float, window_s: float) -> Floats:
    """Return gaps within windows over the mean gap of their window."""
    edges = window_edges(span_s, wide_enough(arrivals, span_s, window_s))
    upto = np.searchsorted(arrivals, edges)
    window = np.repeat(np.arange(len(edges) - 1), np.diff(upto))
    rate = np.diff(upto)[window[1:]] / edges[1]
    inside = np.diff(window) == 0
    return np.asarray(np.maximum((np.diff(arrivals) * rate)[inside], _TINY))


def _rows(arrivals: Floats, first: Ints, last: Ints) -> tuple[Floats, Floats]:
    """Return the gaps of each window, at most _IN_WINDOW, over their mean, and weights 0 or 1."""
    size = np.minimum(last - first - 1, _IN_WINDOW)
    place = np.arange(int(size.max()))
    inside = place < size[:, None]
    index = np.where(inside, first[:, None] + place, 0)
    gaps = np.where(inside, np.diff(arrivals)[index], 0.0)
    mean = np.maximum(gaps.sum(axis=1, keepdims=True) / size[:, None], _TINY)
    return np.where(inside, np.maximum(gaps / mean, _TINY), 1.0), inside.astype(np.float64)
