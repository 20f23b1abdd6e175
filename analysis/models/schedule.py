"""How many programs start in each window of time: the rates of a trace, one after the other."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from servescope.analysis.models.quantiles import MIN_COUNT, all_rounded, rounded
from servescope.analysis.sample import Floats, Ints
from servescope.analysis.seasons import DAY_S
from servescope.traces.errors import InputError

WINDOW_S = 600.0
_FEWEST = 20  # programs that a window should hold on average
_IN_A_DAY = (144, 72, 48, 36, 24, 18, 12, 9, 8, 6, 4, 3, 2, 1)  # windows that a day is cut into


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Mean rates (programs/s) of windows of `window_s`; they begin again where they end.

    A schedule of a day or more begins again after its last whole day, so that hours of the day stay
    hours of the day. With `exact`, windows hold just as many programs as the rate says, else a
    Poisson number of them.
    """

    window_s: float
    rates_rps: tuple[float, ...]
    exact: bool = False

    def __post_init__(self) -> None:
        wrong = [rate for rate in self.rates_rps if not 0 <= rate < math.inf]
        if not 0 < self.window_s < math.inf or not self.rates_rps or wrong:
            raise InputError(
                "A schedule needs windows longer than 0 s and finite rates of 0 or more.",
                "Fit the model again, or mend window_s and rates_rps.",
            )

    @classmethod
    def fit(
        cls,
        starts: Floats,
        span_s: float,
        window_s: float | None = None,
        min_count: int = MIN_COUNT,
        *,
        exact: bool = False,
    ) -> Schedule:
        """Count starts (s) in [0, span_s) in windows of about `window_s`, by default ten minutes.

        Windows are as long that they hold twenty programs on average, and cut the span, or a day,
        into equal parts. Neighbours share their rate until they hold `min_count` together or none.
        Unless they are `exact`, rates of windows that hold any are drawn to their mean, so that
        with the chance that comes on top when a number is drawn they vary as the trace does.
        """
        width = width_for(len(starts), span_s, window_s)
        many = max(1, math.ceil(span_s / width - 1e-6))
        counts = np.bincount(
            np.minimum((starts / width).astype(np.int64), many - 1), minlength=many
        )
        covered = np.full(many, width)
        covered[-1] = span_s - (many - 1) * width
        rates = _shared(counts.astype(np.float64), covered, min_count)
        if not exact:
            rates = _calmed(rates, covered)
        return cls(window_s=width, rates_rps=all_rounded(rates), exact=exact)

    @property
    def mean_rps(self) -> float:
        """Mean rate of the windows (programs/s)."""
        return float(np.mean(self.rates_rps))

    @property
    def span_s(self) -> float:
        """How long it takes until the rates begin again."""
        return self.window_s * self.cycle

    @property
    def cycle(self) -> int:
        """After how many windows the rates begin again."""
        whole = len(self.rates_rps)
        day = round(DAY_S / self.window_s)
        return (
            whole - whole % day if whole >= day and abs(day * self.window_s - DAY_S) < 1 else whole
        )

    def place(self, windows: Ints) -> Ints:
        """Return which recorded window each window is like: its own, or one cycles before."""
        many = len(self.rates_rps)
        return np.where((windows >= 0) & (windows < many), windows, windows % self.cycle)

    def rates(self, windows: Ints) -> Floats:
        """Return the mean rates of windows (programs/s)."""
        return np.array(self.rates_rps)[self.place(windows)]

    def scaled(self, factor: float) -> Schedule:
        """Return the schedule with all rates times `factor`."""
        return msgspec.structs.replace(
            self, rates_rps=all_rounded(np.array(self.rates_rps) * factor)
        )

    def faster(self, factor: float) -> Schedule:
        """Return the same programs on a clock that runs `factor` times as fast."""
        return msgspec.structs.replace(
            self.scaled(factor), window_s=rounded(self.window_s / factor)
        )

    def flat(self) -> Schedule:
        """Return the schedule without any course of time: all windows have the mean rate."""
        return msgspec.structs.replace(self, rates_rps=(rounded(self.mean_rps),), exact=False)

    def counts(self, windows: Ints, draws: list[np.random.Generator]) -> Ints:
        """Return how many programs start in each window, by its own randomness."""
        expected = self.rates(windows) * self.window_s
        if self.exact:
            return np.rint(expected).astype(np.int64)
        return np.array(
            [rng.poisson(mean) for rng, mean in zip(draws, expected.tolist(), strict=True)],
            np.int64,
        )


def width_for(programs: int, span_s: float, window_s: float | None = None) -> float:
    """Return the width of windows (s): equal parts of the span, or of a day if it spans one."""
    least = window_s or max(WINDOW_S, _FEWEST * span_s / max(programs, 1))
    if span_s < DAY_S:
        return rounded(span_s / max(1, round(span_s / least)) * (1 + 2e-6))
    fitting = [DAY_S / parts for parts in _IN_A_DAY if DAY_S / parts >= least * 0.999]
    return fitting[0] if fitting else DAY_S * math.ceil(least / DAY_S)


def _calmed(rates: Floats, covered: Floats) -> Floats:
    """Return rates that vary less by the chance that comes on top when numbers are drawn."""
    held = rates > 0
    counts = (rates * covered)[held]
    if len(counts) < 2:
        return rates
    mean = float(counts.sum() / covered[held].sum())
    expected = mean * covered[held]
    apart = float(((counts - expected) ** 2).sum())
    kept = math.sqrt(max(0.0, 1 - float(expected.sum()) / apart)) if apart else 0.0
    calmed = np.zeros(len(rates))
    calmed[held] = mean + kept * (rates[held] - mean)
    return calmed


def _shared(counts: Floats, covered: Floats, min_count: int) -> npt.NDArray[np.float64]:
    """Return the rate of each window, or of it and the next ones that hold few enough to tell."""
    rates = np.empty(len(counts))
    first = 0
    groups: list[tuple[int, int]] = []
    for at in range(len(counts)):
        held = counts[first : at + 1].sum()
        if held >= min_count or (held == 0 and at == first):
            groups.append((first, at + 1))
            first = at + 1
    if first < len(counts):  # too few are left: they go to the ones before
        while groups and counts[first:].sum() < min_count:
            first = groups.pop()[0]
        groups.append((first, len(counts)))
    for begin, end in groups:
        rates[begin:end] = counts[begin:end].sum() / covered[begin:end].sum()
    return rates
