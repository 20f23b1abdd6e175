"""Arrivals over time: how bursty they are at every scale, how long they remember, how they peak."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from servescope.analysis import dispersion
from servescope.analysis.counts import Counts, round_width
from servescope.analysis.fidelity.scores import Found, LeftOut, Measure, Score
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.sample import Floats

_FEWEST = 20  # calls
_WIDTHS_S = {"1 s": 1.0, "10 s": 10.0, "1 min": 60.0, "10 min": 600.0, "1 h": 3600.0}
_PEAKS = ("1 s", "10 s", "1 min", "10 min")
_MEMORY = ("1 s", "1 min", "1 h")
_LAGS = 60
_STRETCHES = 200  # of time, in the figure

MEASURES = {
    "rate": Measure("difference of calls a second, over the real ones", "1", "|ratio - 1|"),
    "idc": Measure(
        "error of the index-of-dispersion curve of one synthetic trace",
        "1",
        "mean |ln(synthetic / real)| of Var / mean of counts over dyadic scales",
        "Fano; Cox and Lewis (1966)",
    ),
    "idc_mean_curve": Measure(
        "error of the mean index-of-dispersion curve of all synthetic traces",
        "1",
        "mean |ln(mean of synthetic / real)| over the same scales",
        bar=0.06,
    ),
    "acf": Measure(
        "error of the autocorrelation of counts",
        "1",
        "root mean square difference over lags 1 to 60, or a tenth of the windows",
    ),
    "peak_to_mean": Measure(
        "error of the busiest window over the mean one", "1", "|ln(synthetic / real)|"
    ),
}


def scores(real: Side, other: Side) -> Found:
    """Compare counts in windows of many widths."""
    why = refused(real, other)
    if why:
        yield LeftOut("arrivals over time", why)
        return
    yield Score(
        "rate",
        abs(other.rate_rps / real.rate_rps - 1),
        real=real.rate_rps,
        synthetic=other.rate_rps,
    )
    error = log_error(count_curve(real, real), count_curve(real, other))
    if error is None:
        yield LeftOut("index of dispersion", "the span holds no ten windows of any scale")
    else:
        yield Score("idc", error)
    yield from _memory(real, other)
    yield from _peaks(real, other)


def refused(real: Side, other: Side) -> str | None:
    """Return why two traces cannot be compared over time; None where they can."""
    if not (real.timed and other.timed):
        return "calls are not on one clock"
    if min(len(real.arrivals), len(other.arrivals)) < _FEWEST:
        return f"fewer than {_FEWEST} calls"
    return None


def count_curve(real: Side, side: Side) -> pl.DataFrame:
    """Return the index of dispersion of counts at the real trace's scales: x (s), y."""
    least, longest = real.scales
    return dispersion_curve(Counts.of(side.arrivals, least), longest)


def dispersion_curve(counts: Counts, longest_s: float) -> pl.DataFrame:
    """Return Var / mean of counts, in windows twice as wide and again up to a width: x (s), y."""
    rows = []
    for wider in counts.octaves():
        if wider.width_s > longest_s * (1 + 1e-9):
            break
        index, _, _ = dispersion.index_of(wider)
        if index:
            rows.append((wider.width_s, index))
    return pl.DataFrame(rows, schema={"x": pl.Float64, "y": pl.Float64}, orient="row")


def log_error(real: pl.DataFrame, synthetic: pl.DataFrame) -> float | None:
    """Return the mean |ln ratio| of two curves at the scales of both; None without any."""
    both = real.join(synthetic, on="x", suffix="_b")
    if both.is_empty():
        return None
    return float(np.abs(np.log(both["y_b"].to_numpy() / both["y"].to_numpy())).mean())


def _widths(real: Side, other: Side, names: tuple[str, ...], fewest: int) -> Iterator[str]:
    """Yield the widths that are no finer than the clock and fit into both spans often enough."""
    span_s = min(real.span_s, other.span_s)
    finest_s = max(real.finest_s, 0.1 / real.rate_rps)
    for name in names:
        if finest_s <= _WIDTHS_S[name] <= span_s / fewest:
            yield name


def _memory(real: Side, other: Side) -> Iterator[Score | LeftOut]:
    for name in _widths(real, other, _MEMORY, 100):
        a, b = (Counts.of(side.arrivals, _WIDTHS_S[name]).dense() for side in (real, other))
        lags = min(_LAGS, min(len(a), len(b)) // 10)
        x, y = _acf(a, lags), _acf(b, lags)
        if x is not None and y is not None:
            yield Score("acf", float(np.sqrt(((x - y) ** 2).mean())), f"counts of {name}")


def _acf(counts: Floats, lags: int) -> Floats | None:
    """Return the autocorrelation at lags 1 to `lags`; None of constant counts."""
    off = counts - counts.mean()
    size = 1 << (2 * len(off) - 1).bit_length()
    power = np.abs(np.fft.rfft(off, size)) ** 2
    together = np.fft.irfft(power, size)[: lags + 1]
    return together[1:] / together[0] if together[0] > 0 else None


def _peaks(real: Side, other: Side) -> Iterator[Score | LeftOut]:
    for name in _widths(real, other, _PEAKS, 10):
        a, b = (_peak(Counts.of(side.arrivals, _WIDTHS_S[name])) for side in (real, other))
        if a and b:
            yield Score("peak_to_mean", abs(math.log(b / a)), name, a, b)


def _peak(counts: Counts) -> float | None:
    total = float(counts.number.sum())
    return float(counts.number.max()) * counts.windows / total if total else None


def curves(real: Side, side: Side) -> dict[str, pl.DataFrame]:
    """Return the rate over time since the first call, and the dispersion over the scale."""
    if refused(real, side):
        return {}
    width = round_width(real.span_s, _STRETCHES, real.finest_s)
    rate = Counts.of(side.arrivals, width).dense() / width
    if len(rate) < 2:
        return {"idc": count_curve(real, side)}
    return {
        "rate": pl.DataFrame({"x": (np.arange(len(rate)) + 0.5) * width, "y": rate}),
        "idc": count_curve(real, side),
    }
