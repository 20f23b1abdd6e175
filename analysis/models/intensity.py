"""A Poisson process whose intensity follows the clock and wanders around it."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from scipy import optimize, signal

from servescope.analysis.models.chains import forward, poisson_logs
from servescope.analysis.models.quantiles import MIN_COUNT, all_rounded, rounded
from servescope.analysis.models.stretches import WINDOW_S, Stretches, check_enough
from servescope.analysis.sample import Floats
from servescope.analysis.seasons import DAY_S, HOUR_S, WEEK_S
from servescope.traces.errors import InputError

_LEVELS = 21  # that stand for the normal noise where a score is computed
_PER_BIN = (2.0, 8.0)  # arrivals in a bin that the noise is tried with
_BLOCKS = (1, 2, 3, 4, 6, 12)  # hours that may share a rate
_MOST_SIGMA = 3.0


class Seasonal(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="seasonal"
):
    """A rate that is `profile` times log-normal noise, both of mean 1, times the mean rate.

    The profile has an equal part of a day for each value, or of a week (7 days of 24 hours); none
    means no season. The noise is constant in bins of `bin_s`: `sigma` is the deviation of its log,
    `rho` the correlation of the logs of neighbours. Another rate leaves all of them.
    """

    bin_s: float
    sigma: float
    rho: float
    profile: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (self.bin_s > 0 and 0 <= self.sigma < math.inf and -1 < self.rho < 1):
            raise InputError(
                "A seasonal rate has no bins, a negative sigma or a rho outside (-1, 1).",
                "Give bin_s above 0, sigma of 0 or more and rho between -1 and 1.",
            )
        if self.profile and (min(self.profile) < 0 or not max(self.profile) > 0):
            raise InputError("The profile of a rate is below 0, or all 0.", "Give factors of it.")

    @classmethod
    def fit(
        cls,
        arrivals: Floats,
        span_s: float,
        window_s: float = WINDOW_S,
        begin_s: float = 0.0,
        min_count: int = MIN_COUNT,
    ) -> Seasonal:
        """Fit the profile to the hours of the day or week, and the noise within windows.

        The profile wants two days, or two weeks, and `min_count` arrivals in every part. `begin_s`
        is the time of the day, or week, at 0. The noise is fitted by maximum likelihood in bins of
        2 and 8 arrivals, of which the likelier are kept; at most 16,384 arrivals are
        looked at, evenly spread. Raises InputError of too few arrivals.
        """
        check_enough(arrivals, span_s)
        cut = Stretches.of(arrivals, span_s, window_s)
        tried = [_noise(cut, per_bin) for per_bin in _PER_BIN]
        _, bin_s, sigma, rho = max(tried)
        return cls(
            bin_s=rounded(bin_s),
            sigma=rounded(sigma),
            rho=rounded(rho),
            profile=_profile(arrivals, span_s, begin_s, min_count),
        )

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        return 2 + max(0, len(self.profile) - 1)

    def sample(
        self, rng: np.random.Generator, rate_rps: float, width_s: float, begin_s: float = 0.0
    ) -> Floats:
        """Draw the times of a window, ascending in [0, width_s).

        `begin_s` is the time of the day, or week, at its begin; `rate_rps` is the mean of the
        window, season included.
        """
        edges, season = self._bins(width_s, begin_s)
        noise = _autoregressive(rng, len(season), self.sigma, self.rho)
        counts = rng.poisson(rate_rps * season * np.diff(edges) * noise)
        place = np.repeat(np.arange(len(season)), counts)
        times = np.sort(edges[place] + rng.random(len(place)) * np.diff(edges)[place])
        return times[: np.searchsorted(times, width_s)]

    def log_score(
        self, arrivals: Floats, span_s: float, rate_rps: float, begin_s: float = 0.0
    ) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s).

        21 levels stand for the noise (Rouwenhorst 1995), with its mean, variance and correlation.
        """
        if not rate_rps:
            return -math.inf if len(arrivals) else 0.0
        edges, season = self._bins(span_s, begin_s)
        counts = np.diff(np.searchsorted(arrivals, edges)).astype(np.float64)
        expected = (rate_rps * season * np.diff(edges))[:, None]
        score = _log_scores(counts[:, None], expected, self.sigma, self.rho)
        fine = counts > 0
        return float(score + (counts[fine] * np.log(rate_rps * season[fine])).sum())

    def summary(self) -> str:
        """Say what it is."""
        season = ""
        if self.profile:
            of = "week" if len(self.profile) > 24 else "day"
            low, high = min(self.profile), max(self.profile)
            season = f"The rate follows the {of}, from {low:.2f} to {high:.2f} of its mean. "
        return (
            f"{season}Log-normal noise in bins of {self.bin_s:.3g} s varies it by a factor of "
            f"{math.exp(self.sigma):.3g}, with correlation {self.rho:.2f} from bin to bin."
        )

    def _bins(self, width_s: float, begin_s: float) -> tuple[Floats, Floats]:
        """Return the edges of bins in [0, width_s] and their seasons, of mean 1 over it."""
        edges = np.append(np.arange(0.0, width_s, self.bin_s), width_s)
        edges = edges[np.append(np.diff(edges) > 0, True)]
        if not self.profile:
            return edges, np.ones(len(edges) - 1)
        part_s = (WEEK_S if len(self.profile) > 24 else DAY_S) / len(self.profile)
        middle = (edges[:-1] + edges[1:]) / 2 + begin_s
        season = np.array(self.profile)[(middle // part_s).astype(np.int64) % len(self.profile)]
        mean = float(season @ np.diff(edges)) / width_s
        return edges, season / mean if mean > 0 else np.ones(len(season))


def _profile(arrivals: Floats, span_s: float, begin_s: float, min_count: int) -> tuple[float, ...]:
    """Return the rate in parts of a week or a day over its mean; nothing if they rest on too few.

    The hours of the day share a rate in blocks until every block has enough arrivals.
    """
    for period_s, blocks in ((WEEK_S, (1,)), (DAY_S, _BLOCKS)):
        if span_s < 2 * period_s:
            continue
        for block in blocks:
            part_s = block * HOUR_S
            parts = int(period_s / part_s)
            counts = np.bincount(
                ((arrivals + begin_s) // part_s).astype(np.int64) % parts, minlength=parts
            )
            edges = np.arange(math.floor(begin_s / part_s), math.ceil((begin_s + span_s) / part_s))
            begins = np.maximum(edges * part_s, begin_s)
            ends = np.minimum((edges + 1) * part_s, begin_s + span_s)
            seen_s = np.bincount(edges.astype(np.int64) % parts, ends - begins, parts)
            if counts.min() >= min_count and seen_s.min() > 0:
                rates = counts / seen_s
                return all_rounded(rates / rates.mean())
    return ()


def _noise(cut: Stretches, per_bin: float) -> tuple[float, float, float, float]:
    """Return log-likelihood, width of a bin, sigma and rho of the likeliest noise."""
    bins = max(8, math.ceil(cut.count.mean() / per_bin))
    counts = cut.counts(bins)
    expected = np.broadcast_to(cut.rate_rps * cut.width_s / bins, counts.shape)

    def values(point: Floats) -> tuple[float, float]:
        sigma = _MOST_SIGMA / (1 + math.exp(-min(max(point[0], -30.0), 30.0)))
        return sigma, 0.999 * math.tanh(point[1])

    def cost(point: Floats) -> float:
        return -_log_scores(counts, expected, *values(point))

    starts = [np.array([a, b]) for a in (-2.5, -1.0, 0.0) for b in (0.3, 1.0, 1.8)]
    found = optimize.minimize(
        cost,
        min(starts, key=cost),
        method="Nelder-Mead",
        options={"xatol": 1e-2, "fatol": 0.1, "maxfev": 40},
    )
    return -float(found.fun), cut.width_s / bins, *values(found.x)


def _log_scores(counts: Floats, expected: Floats, sigma: float, rho: float) -> float:
    """Return the log-likelihood of all bins, less what no level changes."""
    levels, transition, begin = _levels(sigma, rho)
    return float(forward(poisson_logs(counts, expected, levels), transition, begin)[0].sum())


def _levels(sigma: float, rho: float) -> tuple[Floats, Floats, Floats]:
    """Return a chain of levels of mean 1 that stands for the noise: levels, steps, shares."""
    stay = (1 + rho) / 2
    steps = np.array([[stay, 1 - stay], [1 - stay, stay]])
    for size in range(3, _LEVELS + 1):
        wider = np.zeros((size, size))
        wider[:-1, :-1] += stay * steps
        wider[:-1, 1:] += (1 - stay) * steps
        wider[1:, :-1] += (1 - stay) * steps
        wider[1:, 1:] += stay * steps
        wider[1:-1] /= 2
        steps = wider
    places = np.arange(_LEVELS)
    shares = np.array([math.comb(_LEVELS - 1, int(k)) for k in places]) / 2.0 ** (_LEVELS - 1)
    logs = sigma * (2 * places / (_LEVELS - 1) - 1) * math.sqrt(_LEVELS - 1)
    levels = np.exp(logs)
    return levels / float(shares @ levels), steps, shares


def _autoregressive(rng: np.random.Generator, count: int, sigma: float, rho: float) -> Floats:
    """Draw log-normal noise of mean 1 whose logs are an autoregression of order 1."""
    steps = rng.standard_normal(count) * sigma * math.sqrt(1 - rho * rho)
    if count:
        steps[0] /= math.sqrt(1 - rho * rho)
    logs = signal.lfilter([1.0], [1.0, -rho], steps)
    return np.exp(np.asarray(logs) - sigma * sigma / 2)
