"""How bursty arrivals are at every time scale, against a Poisson process, which is 1 at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from servescope.analysis.counts import Counts
from servescope.analysis.intervals import Interval, of_sums
from servescope.analysis.sample import Floats, in_sections, sums_in

SECTIONS = 20
_FEWEST_GAPS = 30  # groups of gaps of which a variance is worth saying
_SILENCES = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 600.0, 3600.0)
SILENT = 50  # mean gaps that make a silence


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
        section, sizes = counts.sections(SECTIONS)
        many, number = len(sizes), counts.number.astype(np.float64)
        steps = _squared_steps(counts)
        held = sums_in(section, many, number, number**2, steps)
        sums = np.concatenate([sizes[:, None], held], axis=1)
        idc, allan = of_sums(sums, fano, "log"), of_sums(sums, _allan, "log")
        mean = float(number.sum()) / counts.windows
        expected = float(stats.poisson.ppf(0.5 ** (1 / counts.windows), mean)) if mean else 0.0
        total = sums.sum(axis=0)
        rows.append(
            (
                counts.width_s,
                counts.windows,
                mean,
                float(fano(total)),
                *bounds(idc),
                float(_allan(total)),
                *bounds(allan),
                float(number.max(initial=0)) / mean if mean else None,
                expected / mean if mean else None,
            )
        )
    names = (
        "scale_s", "windows", "mean", "idc", "idc_low", "idc_high", "allan", "allan_low",
        "allan_high", "peak_to_mean", "poisson_peak_to_mean",
    )  # fmt: skip
    types = {name: pl.Int64 if name == "windows" else pl.Float64 for name in names}
    return pl.DataFrame(rows, schema=types, orient="row")


def fano(sums: Floats) -> Floats:
    """Return variance over mean from how many windows, their sum and that of their squares."""
    windows, first, second = (sums[..., i] for i in range(3))
    mean = first / windows
    return np.asarray((second / windows - mean**2) * windows / (windows - 1) / mean)


def _allan(sums: Floats) -> Floats:
    windows, first, _, steps = (sums[..., i] for i in range(4))
    return np.asarray(steps / 2 / (windows - 1) / (first / windows))


def _squared_steps(counts: Counts) -> Floats:
    """Return the squared differences of neighbouring windows, each with a window that is held."""
    number = counts.number.astype(np.float64)
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
            mean = float(np.mean([interval.estimate for interval in known]))
            factor = mean / known[0].estimate if known[0].estimate else 1.0
            ends = (known[0].low * factor, known[0].high * factor)
            rows.append((k, (len(draws[0]) - 1) // k, mean, *ends))
        k *= 2
    names = ("gaps", "groups", "idi", "low", "high")
    types = {n: pl.Int64 if n in ("gaps", "groups") else pl.Float64 for n in names}
    return pl.DataFrame(rows, schema=types, orient="row")


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


def rate_free(arrivals: Floats, width_s: float) -> Floats:
    """Return arrivals on a clock that runs with their rate in windows of `width_s`.

    Gaps on it have mean 1 whatever the rate does from window to window (time rescaling, Brown et
    al. 2002).
    """
    if len(arrivals) < 2:
        return np.empty(0)
    edges = np.arange(arrivals[0], arrivals[-1] + width_s, width_s)
    edges[-1] = arrivals[-1]  # beyond the last arrival nothing is known of the rate
    upto = np.searchsorted(arrivals, edges, side="left").astype(np.float64)
    upto[-1] = len(arrivals)
    return np.interp(arrivals, edges, upto)


def silences(arrivals: Floats, finest_s: float) -> pl.DataFrame:
    """Return how many gaps are longer than each of some lengths, and what share of time they hold.

    Columns: longer_than_s, silences, total_s, share, poisson (how many of them a Poisson process of
    the same rate would have). One length is `silent_s`.
    """
    gaps = np.diff(arrivals)
    span = float(arrivals[-1] - arrivals[0]) if len(arrivals) else 0.0
    if not span:
        return pl.DataFrame(schema=_OF_SILENCES)
    lengths = sorted({*_SILENCES, silent_s(arrivals)})
    rows = []
    for length in lengths:
        if length < finest_s or length > span:
            continue
        longer = gaps[gaps > length]
        by_chance = len(gaps) * float(np.exp(-length * len(gaps) / span))
        total = float(longer.sum())
        rows.append((length, len(longer), total, total / span, by_chance))
    return pl.DataFrame(rows, schema=_OF_SILENCES, orient="row")


_OF_SILENCES = {
    "longer_than_s": pl.Float64,
    "silences": pl.Int64,
    "total_s": pl.Float64,
    "share": pl.Float64,
    "poisson": pl.Float64,
}


def silent_s(arrivals: Floats) -> float:
    """Return the gap that is called a silence here: SILENT mean gaps, rounded to 1, 2 or 5."""
    mean = float(arrivals[-1] - arrivals[0]) / max(1, len(arrivals) - 1)
    if mean <= 0:
        return float("inf")
    decade = 10.0 ** np.floor(np.log10(SILENT * mean))
    return float(
        min((1, 2, 5, 10), key=lambda m: abs(np.log(SILENT * mean / (m * decade)))) * decade
    )
