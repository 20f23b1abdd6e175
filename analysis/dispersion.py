"""How bursty arrivals are at every time scale, against a Poisson process, which is 1 at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from servescope.analysis.counts import Counts
from servescope.analysis.intervals import Interval, of_sums
from servescope.analysis.sample import Floats, in_sections, sums_in

SECTIONS = 20
_FEWEST_GAPS = 30  # groups of gaps of which a variance is worth saying


def bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    """Return the two ends of an interval, or two Nones."""
    return (interval.low, interval.high) if interval else (None, None)


def of_counts(arrivals: Floats, finest_s: float) -> pl.DataFrame:
    """Return the dispersion of counts in windows of every octave of `finest_s`, up to a tenth.

    Columns: scale_s, windows, mean, idc (variance over mean of the counts; Fano's factor) with low
    and high, allan (half the mean squared difference of neighbours over the mean, which a slow
    trend leaves alone; Allan 1966) with low and high, peak_to_mean, and poisson_peak_to_mean (the
    median of what a Poisson process of this mean would show).
    """
    from scipy import stats

    rows = []
    for counts in Counts.of(arrivals, finest_s).octaves():
        sums = _section_sums(counts)
        index, factor = (_with_interval(sums, statistic) for statistic in (_fano, _allan))
        mean = float(counts.number.sum()) / counts.windows
        expected = float(stats.poisson.ppf(0.5 ** (1 / counts.windows), mean)) if mean else 0.0
        rows.append(
            (
                counts.width_s,
                counts.windows,
                mean,
                *index,
                *factor,
                float(counts.number.max(initial=0)) / mean if mean else None,
                expected / mean if mean else None,
            )
        )
    names = (
        "scale_s", "windows", "mean", "idc", "idc_low", "idc_high", "allan", "allan_low",
        "allan_high", "peak_to_mean", "poisson_peak_to_mean",
    )  # fmt: skip
    types = {name: pl.Int64 if name == "windows" else pl.Float64 for name in names}
    return pl.DataFrame(rows, schema=types, orient="row")


def index_of(counts: Counts) -> tuple[float | None, float | None, float | None]:
    """Return the index of dispersion of counts, variance over mean, with low and high."""
    return _with_interval(_section_sums(counts), _fano)


def _section_sums(counts: Counts) -> Floats:
    """Return how many windows, their sum, and that of their squares and steps, by section."""
    section, sizes = counts.sections(SECTIONS)
    held = sums_in(section, len(sizes), counts.number, counts.number**2, _squared_steps(counts))
    return np.concatenate([sizes[:, None], held], axis=1)


def _with_interval(
    sums: Floats, statistic: Callable[[Floats], Floats]
) -> tuple[float | None, float | None, float | None]:
    with np.errstate(all="ignore"):
        whole = float(statistic(sums.sum(axis=0)))
    return whole if np.isfinite(whole) else None, *bounds(of_sums(sums, statistic, "log"))


def _fano(sums: Floats) -> Floats:
    windows, first, second = (sums[..., i] for i in range(3))
    mean = first / windows
    return np.asarray((second / windows - mean**2) * windows / (windows - 1) / mean)


def _allan(sums: Floats) -> Floats:
    windows, first, _, steps = (sums[..., i] for i in range(4))
    return np.asarray(steps / 2 / (windows - 1) / (first / windows))


def _squared_steps(counts: Counts) -> Floats:
    """Return the squared differences of neighbouring windows, each with a window that is held."""
    number = counts.number
    near = np.diff(counts.place) == 1
    to_next = number**2
    to_next[:-1][near] = np.diff(number)[near] ** 2
    from_empty = number**2
    from_empty[1:][near] = 0.0
    if len(number):  # the first window has nothing before it, the last nothing behind
        from_empty[0] *= counts.place[0] > 0
        to_next[-1] *= counts.place[-1] < counts.windows - 1
    return to_next + from_empty


def of_intervals(draws: Sequence[Floats]) -> pl.DataFrame:
    """Return the index of dispersion of intervals over k gaps in a row, k = 1, 2, 4, ...

    That is Var(S_k) / (k E(X)^2), S_k being the sum of k gaps (Sriram and Whitt 1986); for k = 1 it
    is the squared CV. `draws` are arrivals (s, ascending), or several de-ticked versions of the
    same: their mean is returned, with the interval of the first. Columns: gaps, groups, idi, low,
    high.
    """
    rows = []
    k = 1
    while draws and (len(draws[0]) - 1) // k >= _FEWEST_GAPS:
        found = [_idi(arrivals, k) for arrivals in draws]
        known = [interval for interval in found if interval]
        if known:
            mean = averaged(known)
            rows.append((k, (len(draws[0]) - 1) // k, mean.estimate, mean.low, mean.high))
        k *= 2
    names = ("gaps", "groups", "idi", "low", "high")
    types = {n: pl.Int64 if n in ("gaps", "groups") else pl.Float64 for n in names}
    return pl.DataFrame(rows, schema=types, orient="row")


def averaged(draws: Sequence[Interval]) -> Interval:
    """Return the mean over several draws of the same, with the interval of the first around it."""
    return draws[0].moved_to(float(np.mean([draw.estimate for draw in draws])))


def _idi(arrivals: Floats, k: int) -> Interval | None:
    apart = np.diff(arrivals[::k])
    return of_sums(_moments(apart), lambda s: k * _squared_cv(s), "log")


def _moments(values: Floats) -> Floats:
    """Return count, sum and sum of squares of values over sections of as many: (sections, 3)."""
    many = min(SECTIONS, max(1, len(values)))
    section = in_sections(len(values), many)
    scaled = values / (values.mean() if len(values) and values.mean() else 1.0)
    return sums_in(section, many, np.ones(len(scaled)), scaled, scaled**2)


def _squared_cv(sums: Floats) -> Floats:
    count, first, second = (sums[..., i] for i in range(3))
    mean = first / count
    return np.asarray((second / count - mean**2) * count / (count - 1) / mean**2)


def cv_of(values: Floats) -> Interval | None:
    """Return the coefficient of variation of values in their order in time, with its interval.

    None of fewer than two values, or of zeros.
    """
    if len(values) < 2 or not values.any():
        return None
    sums = _moments(values)
    found = of_sums(sums, lambda s: np.sqrt(_squared_cv(s)), "log")
    if found:
        return found
    whole = float(np.sqrt(_squared_cv(sums.sum(axis=0))))
    return Interval(whole, whole, whole) if whole == 0 else None
