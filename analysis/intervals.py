"""How sure a number of one run is, when the values behind it are not independent.

Calls that are near in time share a queue, so an interval that treats them as independent is far too
narrow. Here a run is cut into sections of time, programs staying whole; how much these differ
says how sure the whole is (batch means and sectioning, Asmussen and Glynn 2007, chapter III).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from servescope.analysis.sample import Floats, Ints, Sample

SECTIONS = 10
PROGRAMS_A_SECTION = 5
FEWEST_PROGRAMS = SECTIONS * PROGRAMS_A_SECTION
LEVEL = 0.95
NORMAL_95 = 1.959964  # standard deviations either way that hold 95 % of a normal law
# Sections that follow each other are alike where a queue outlasts them. Of ten independent ones the
# correlation at lag 1 is beyond a third in some one in six.
ALIKE, MOST_ALIKE = 0.3, 0.8


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between its bounds at a confidence level of 95 %."""

    estimate: float
    low: float
    high: float

    def moved_to(self, estimate: float) -> Interval:
        """Return an interval as wide, in proportion, around another estimate."""
        factor = estimate / self.estimate if self.estimate else 1.0
        return Interval(estimate, self.low * factor, self.high * factor)

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside."""
        return value < self.low or value > self.high


def sections_of(starts: npt.ArrayLike, sections: int = SECTIONS) -> Ints | None:
    """Cut programs into sections of equal number by the order of their starts.

    Returns the section of each program, shape (programs,), or None for fewer than
    PROGRAMS_A_SECTION programs in each.
    """
    times = np.asarray(starts, dtype=np.float64)
    if len(times) < sections * PROGRAMS_A_SECTION:
        return None
    ranks = np.argsort(np.argsort(times, kind="stable"), kind="stable")
    return (ranks * sections // len(times)).astype(np.int64)


def fewest(q: float) -> int:
    """Return how many values a quantile needs before it may be shown: 29 for p90, 299 for p99.

    Of fewer the largest lies below the true quantile in more than one of twenty samples, so that
    the sample does not bound it from above (Wilks 1941). MLPerf, which asks for 99 % confidence and
    some precision, needs 662 for p99.
    """
    beyond = max(q, 1 - q)
    return max(1, math.ceil(math.log(1 - LEVEL) / math.log(beyond)))


def bounded(sample: Sample, q: float) -> float | None:
    """Return a quantile if the sample is large enough to bound it (see `fewest`), else None."""
    return sample.quantile(q) if len(sample) >= fewest(q) else None


def believed(sample: Sample, q: float, finest: float) -> float | None:
    """Return a quantile as `bounded` does, and none below what a clock can tell."""
    value = bounded(sample, q)
    return value if value is not None and value >= finest else None


def of_mean(sample: Sample) -> Interval | None:
    """Return the mean with its interval, by the means of the sections; None without sections."""
    estimate, means = sample.mean(), sample.block_means()
    if estimate is None or sample.blocks < 2 or not np.isfinite(means).all():
        return None
    reach = reach_of(means - estimate)
    if estimate > 0 and (means > 0).all():
        logs = reach_of(np.log(means / estimate))
        return Interval(estimate, estimate * math.exp(-logs), estimate * math.exp(logs))
    return Interval(estimate, estimate - reach, estimate + reach)


def of_quantile(sample: Sample, q: float) -> Interval | None:
    """Return a quantile with its interval, as `of_quantiles` does."""
    return of_quantiles(sample, (q,))[0]


def of_quantiles(sample: Sample, quantiles: Sequence[float]) -> list[Interval | None]:
    """Return quantiles with their intervals; None without sections, or of fewer than `fewest`.

    The wider of two at either end. Sectioning: how much the quantiles of the sections differ from
    that of the whole, on the log scale. And the batch ratio of indicators: how much the share below
    the quantile differs from section to section, as ranks of the whole.
    """
    sizes = sample.sizes()
    if sample.blocks < 2 or (sizes == 0).any():
        return [None] * len(quantiles)
    of_blocks = sample.block_quantiles(*quantiles)
    return [
        _of_quantile(sample, q, sizes, within) if len(sample) >= fewest(q) else None
        for q, within in zip(quantiles, of_blocks, strict=True)
    ]


def _of_quantile(sample: Sample, q: float, sizes: Ints, of_blocks: Floats) -> Interval:
    estimate = sample.quantile(q) or 0.0
    below = np.searchsorted(sample.values, estimate, side="right")
    shares = sample.sizes_below(int(below)) / sizes
    by_rank = reach_of(shares - shares.mean())
    low = sample.quantile(max(q - by_rank, 0.0)) or 0.0
    high = sample.quantile(min(q + by_rank, 1.0)) or estimate
    if estimate > 0 and (of_blocks > 0).all():
        by_value = math.exp(reach_of(np.log(of_blocks / estimate), widened=False))
        low, high = min(low, estimate / by_value), max(high, estimate * by_value)
    return Interval(estimate, low, high)


def reach_of(deviations: Floats, *, widened: bool = True) -> float:
    """Return half the width of an interval of a mean, from how far each section deviates from it.

    Student's t of so many sections less one; wider by sqrt((1 + r) / (1 - r)) where neighbours are
    evidently alike (r, their correlation, above ALIKE).
    """
    from scipy import stats  # takes a third of a second to load, and only intervals need it

    t = float(stats.t.ppf((1 + LEVEL) / 2, len(deviations) - 1))
    return t * error_of(deviations) * (alikeness(deviations) if widened else 1.0)


def error_of(deviations: Floats) -> float:
    """Return the standard error of a mean from the deviations of its sections."""
    count = len(deviations)
    return math.sqrt(float(np.square(deviations).sum()) / (count - 1) / count)


def alikeness(values: Floats) -> float:
    """Return how much wider an interval must be because neighbouring sections are alike: 1 or more.

    The estimate of a correlation from n sections is 1/n too small, which is added.
    """
    centred = values - values.mean()
    total = float(np.square(centred).sum())
    if total == 0:
        return 1.0
    r = float((centred[1:] * centred[:-1]).sum()) / total + 1 / len(values)
    return math.sqrt((1 + r) / (1 - min(r, MOST_ALIKE))) if r > ALIKE else 1.0


def of_sums(
    sums: Floats,
    statistic: Callable[[Floats], Floats],
    link: Literal["identity", "log", "fisher"] = "identity",
) -> Interval | None:
    """Return a statistic of sums over sections of time, shape (sections, sums), with its interval.

    `statistic` takes sums, shape (..., sums), to values, shape (...). The sections are left out one
    at a time (the delete-one-block jackknife, Shao and Tu 1995, chapter 9), on the scale of `link`:
    log for what is above 0, Fisher's z for correlations. None for fewer than two sections, or a
    statistic that cannot be had without one of them.
    """
    forth, back = _LINKS[link]
    count = len(sums)
    with np.errstate(all="ignore"):
        total = sums.sum(axis=0)
        whole = float(statistic(total))
        at = float(forth(np.float64(whole)))
        without = forth(statistic(total - sums))
    if count < 2 or not math.isfinite(at) or not np.isfinite(without).all():
        return None
    reach = reach_of((count - 1) * (without.mean() - without))
    low, high = (float(back(np.float64(at + side))) for side in (-reach, reach))
    return Interval(whole, low, high)


_LINKS = {
    "identity": (np.positive, np.positive),
    "log": (np.log, np.exp),
    "fisher": (np.arctanh, np.tanh),
}
