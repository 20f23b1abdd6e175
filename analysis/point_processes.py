"""Arrival processes with known laws: renewal, Markov-modulated and self-exciting ones.

Every process draws piece after piece in an order that no bound changes. So a longer draw from the
same seed begins with the same times, to the last bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from servescope.traces.errors import InputError

Times = npt.NDArray[np.float64]

PIECE = 4096  # times drawn at once
_MOST = 20_000_000  # draws that a process may need before the times that are asked for
_SETTLED = 1e-9  # part of a Hawkes process's mean rate that may be missing at its second 0


class Drawn(ABC):
    """What all processes here share: times that come in pieces, cut where they are bounded."""

    @abstractmethod
    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield the times in order, piece after piece; it ends only where the process does."""

    def sample(
        self, rng: np.random.Generator, *, until_s: float | None = None, count: int | None = None
    ) -> Times:
        """Return the times below `until_s`, at most the first `count`: sorted, shape (n,).

        The same state of `rng` gives the same times, and a later bound gives the same times and
        more. Raises InputError without any bound.
        """
        if count is None and (until_s is None or not until_s < math.inf):
            raise InputError("Nothing bounds the start times.", "Give until_s, count or both.")
        last = math.inf if until_s is None else until_s
        most = math.inf if count is None else count
        kept: list[Times] = []
        drawn = 0
        if most > 0:
            for piece in self.pieces(rng):
                kept.append(piece[: np.searchsorted(piece, last)])
                drawn += len(kept[-1])
                if drawn >= most or len(kept[-1]) < len(piece):
                    break
        return np.concatenate(kept)[:count] if kept else np.empty(0)


@dataclass(frozen=True)
class Immediately(Drawn):
    """Everything starts at 0, as with vLLM's `--request-rate inf`."""

    @property
    def rate_rps(self) -> float:
        """Mean rate: infinite."""
        return math.inf

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield zeros for ever."""
        while True:
            yield np.zeros(PIECE)

    def sample(
        self, rng: np.random.Generator, *, until_s: float | None = None, count: int | None = None
    ) -> Times:
        """Return `count` zeros; raises InputError without a count, for there is no end of them."""
        if count is None:
            raise InputError("Without a count, endlessly many programs start at 0.", "Give one.")
        return super().sample(rng, until_s=until_s, count=count)


@dataclass(frozen=True)
class Constant(Drawn):
    """One start every 1 / `rate_rps` seconds, the first at 0: the k-th at k / `rate_rps` exactly.

    Nothing is random. Its gaps have CV 0.
    """

    rate_rps: float

    def __post_init__(self) -> None:
        check_positive("rate_rps", self.rate_rps)

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield the multiples of a gap; each is one division, so no rounding adds up."""
        first = 0
        while True:
            yield np.arange(first, first + PIECE) / self.rate_rps
            first += PIECE


@dataclass(frozen=True)
class Poisson(Drawn):
    """Independent exponential gaps: starts that know nothing of each other. CV 1, dispersion 1."""

    rate_rps: float

    def __post_init__(self) -> None:
        check_positive("rate_rps", self.rate_rps)

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield sums of gaps."""
        return _sums(lambda: rng.standard_exponential(PIECE) / self.rate_rps)


@dataclass(frozen=True)
class Gamma(Drawn):
    """Independent gamma gaps of mean 1 / `rate_rps` and CV 1 / sqrt(`burstiness`).

    `burstiness` is the shape, as in vLLM's `--burstiness`: below 1 burstier than Poisson, 1
    Poisson, infinite constant. Counts over long times have the dispersion 1 / `burstiness`.
    """

    rate_rps: float
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        check_positive("rate_rps", self.rate_rps)
        check_shape("burstiness", self.burstiness)

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield sums of gaps."""
        return _sums(lambda: _gamma_gaps(rng, self.burstiness) / self.rate_rps)


@dataclass(frozen=True)
class Weibull(Drawn):
    """Independent Weibull gaps of mean 1 / `rate_rps`; `shape` below 1 is burstier than Poisson.

    With m(k) = gamma(1 + k / `shape`), the CV of the gaps is sqrt(m(2) / m(1)^2 - 1).
    """

    rate_rps: float
    shape: float = 1.0

    def __post_init__(self) -> None:
        check_positive("rate_rps", self.rate_rps)
        check_positive("shape", self.shape)
        if self.shape < 0.1:
            raise InputError(
                f"Weibull gaps of shape {self.shape:g} are nearly all 0.", "Give 0.1 or more."
            )

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield sums of gaps."""
        scale_s = 1 / (self.rate_rps * math.gamma(1 + 1 / self.shape))
        return _sums(lambda: rng.weibull(self.shape, PIECE) * scale_s)


@dataclass(frozen=True)
class MMPP(Drawn):
    """Poisson starts whose rate jumps among states (a Markov-modulated Poisson process).

    State i starts `rates_rps[i]` programs a second and lasts `hold_s[i]` seconds on average, with
    exponential law. "cyclic" states follow each other in order, "random" ones are drawn evenly from
    the others. It begins in its stationary law.
    """

    rates_rps: tuple[float, ...]
    hold_s: tuple[float, ...]
    switch: Literal["cyclic", "random"] = "cyclic"

    def __post_init__(self) -> None:
        if len(self.rates_rps) != len(self.hold_s) or len(self.hold_s) < 2:
            raise InputError(
                f"{len(self.rates_rps)} rates and {len(self.hold_s)} holds make no MMPP.",
                "Give one of each for every state, and two states or more.",
            )
        check_rates("rates_rps", self.rates_rps)
        for hold_s in self.hold_s:
            check_positive("hold_s", hold_s)
        if self.switch not in ("cyclic", "random"):
            raise InputError(f"A switch cannot be '{self.switch}'.", "Give cyclic or random.")
        _refuse_long(PIECE / self.rate_rps / (sum(self.hold_s) / len(self.hold_s)), "hold_s")

    @property
    def rate_rps(self) -> float:
        """Mean rate: that of the states, by how long they last."""
        held = sum(rate * hold for rate, hold in zip(self.rates_rps, self.hold_s, strict=True))
        return held / sum(self.hold_s)

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield the starts of one stay in a state after the other."""
        # Both ways of switching visit all states alike often, so only their lengths weigh.
        state = int(rng.choice(len(self.hold_s), p=np.array(self.hold_s) / sum(self.hold_s)))
        begin_s = 0.0
        while True:
            end_s = begin_s + rng.exponential(self.hold_s[state])
            yield from _even(rng, self.rates_rps[state], begin_s, end_s)
            begin_s = end_s
            step = 1 if self.switch == "cyclic" else int(rng.integers(1, len(self.hold_s)))
            state = (state + step) % len(self.hold_s)


@dataclass(frozen=True)
class Hawkes(Drawn):
    """Starts that set off others: each has `branching` followers on average, soon after it.

    A follower comes after an exponential time of mean 1 / `decay_per_s`. `rate_rps` is the long-run
    mean, followers included; counts over long times have the dispersion 1 / (1 - `branching`)^2.
    Drawn exactly as Poisson clusters (Hawkes and Oakes 1974), from so long before 0 that it begins
    in its stationary law.
    """

    rate_rps: float
    branching: float
    decay_per_s: float

    def __post_init__(self) -> None:
        check_positive("rate_rps", self.rate_rps)
        check_positive("decay_per_s", self.decay_per_s)
        if not 0 <= self.branching < 1:
            raise InputError(
                f"branching cannot be {self.branching:g}: starts would set off ever more others.",
                "Give a number from 0 to below 1.",
            )
        _refuse_long(self.rate_rps * self._memory_s(), "decay_per_s, or a smaller branching")

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield stretches of time in which nothing can come any more."""
        alone_rps = self.rate_rps * (1 - self.branching)
        width_s = max(PIECE / self.rate_rps, 1 / self.decay_per_s)
        end_s = -self._memory_s()
        later: Times = np.empty(0)
        while True:
            begin_s, end_s = end_s, (end_s + width_s if end_s >= 0 else min(end_s + width_s, 0.0))
            made = [later]
            for generation in _even(rng, alone_rps, begin_s, end_s):
                while len(generation):
                    made.append(generation)
                    followers = rng.poisson(self.branching, len(generation))
                    after_s = rng.standard_exponential(followers.sum()) / self.decay_per_s
                    generation = np.repeat(generation, followers) + after_s
            times = np.sort(np.concatenate(made))
            ready = int(np.searchsorted(times, end_s))
            later = times[ready:]
            if end_s > 0:
                yield times[:ready]

    def _memory_s(self) -> float:
        """Return after how long the past has faded: at the rate decay x (1 - branching)."""
        if not self.branching:
            return 0.0
        return -math.log(_SETTLED) / (self.decay_per_s * (1 - self.branching))


def _sums(gaps: Callable[[], Times]) -> Iterator[Times]:
    """Yield the running sum of gaps, added one after the other so that pieces leave no trace."""
    last = 0.0
    while True:
        times = np.cumsum(np.concatenate(([last], gaps())))[1:]
        last = float(times[-1])
        yield times


def _gamma_gaps(rng: np.random.Generator, shape: float) -> Times:
    """Return gaps of mean 1."""
    return np.ones(PIECE) if math.isinf(shape) else rng.standard_gamma(shape, PIECE) / shape


def unit_rate(rng: np.random.Generator, burstiness: float) -> Iterator[Times]:
    """Yield start times of rate 1."""
    if burstiness == 1:
        return _sums(lambda: rng.standard_exponential(PIECE))
    return _sums(lambda: _gamma_gaps(rng, burstiness))


def _even(
    rng: np.random.Generator, rate_rps: float, begin_s: float, end_s: float
) -> Iterator[Times]:
    """Yield the Poisson starts of a stretch of time, in parts that memory can hold."""
    parts = max(1, math.ceil(rate_rps * (end_s - begin_s) / (16 * PIECE)))
    width_s = (end_s - begin_s) / parts
    for part in range(parts):
        low_s = begin_s + part * width_s
        count = rng.poisson(rate_rps * width_s)
        yield np.sort(rng.uniform(low_s, low_s + width_s, count))


def check_positive(name: str, value: float) -> None:
    """Raise InputError unless a parameter is above 0 and finite."""
    if not 0 < value < math.inf:
        raise InputError(f"{name} cannot be {value:g}.", "Give a number above 0.")


def check_shape(name: str, value: float) -> None:
    """Raise InputError for a shape of gamma gaps so small that nearly all gaps are 0."""
    if not value >= 0.001:
        raise InputError(f"{name} cannot be {value:g}.", "Give 0.001 or more; below 1 is burstier.")


def check_rates(name: str, values: Sequence[float]) -> None:
    """Raise InputError for rates below 0, endless ones, and those that are all 0."""
    wrong = [value for value in values if not 0 <= value < math.inf]
    if wrong or not any(values):
        raise InputError(
            f"{name} cannot hold {wrong[0]:g}." if wrong else f"{name} cannot all be 0.",
            "Give rates of 0 or more, and one above.",
        )


def _refuse_long(draws: float, longer: str) -> None:
    if draws > _MOST:
        raise InputError(f"That takes {draws:.0e} draws to begin.", f"Give a larger {longer}.")
