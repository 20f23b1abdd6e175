"""How long arrivals remember: autocorrelation, and the Hurst exponent by three estimators.

A rate that drifts looks like long memory, so everything here is of a series without its trend, and
the Hurst exponent stands beside what the same values show in random order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from servescope.analysis.intervals import NORMAL_95, Interval
from servescope.analysis.sample import Floats
from servescope.analysis.seasons import DAY_S, WEEK_S

SHUFFLES = 199
REPLICATES = 100  # of fractional noise behind each interval
_MOST = 16_384  # values that are shuffled
FEWEST = 256  # values of which a Hurst exponent is worth saying
_BANDWIDTH = 0.65  # local Whittle looks at the n^0.65 lowest frequencies
_LOWEST_OCTAVE = 3  # of the wavelets: below, the spectrum is no power law yet
# Daubechies' filter of four taps: its two vanishing moments ignore a linear trend.
_D4: Final = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5)


@dataclass(frozen=True, slots=True)
class Hurst:
    """A Hurst exponent by one estimator, with its 95 % interval; 0.5 is no long memory."""

    estimator: str
    h: Interval


def autocorrelation(values: Floats, lags: int) -> pl.DataFrame:
    """Return the autocorrelation at lags 1 to `lags` with Bartlett's 95 % interval.

    Columns: lag, r, low, high. Nothing for fewer values than four times the lags, or constant ones.
    """
    empty = pl.DataFrame(
        schema={"lag": pl.Int64, "r": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    )
    if len(values) < 4 * lags:
        return empty
    centred = values - values.mean()
    power = float(centred @ centred)
    if power <= 0:
        return empty
    r = np.array([float(centred[k:] @ centred[:-k]) / power for k in range(1, lags + 1)])
    before = np.concatenate(([0.0], np.cumsum(r[:-1] ** 2)))
    reach = NORMAL_95 * np.sqrt((1 + 2 * before) / len(values))
    return pl.DataFrame(
        {"lag": np.arange(1, lags + 1), "r": r, "low": r - reach, "high": r + reach}
    )


def detrended(series: Floats, width_s: float = 0.0) -> Floats:
    """Return series, shape (..., n), less a cubic trend, and less their day and week.

    Of a day and a week that a series holds twice, three harmonics are fitted, by least squares.
    `width_s` is the time between two values; without it there are no days.
    """
    n = series.shape[-1]
    at = np.linspace(-1, 1, n)
    parts = [np.polynomial.legendre.legval(at, np.eye(4)[k]) for k in range(4)]
    for period_s in (DAY_S, WEEK_S):
        if width_s and n * width_s >= 2 * period_s and period_s / width_s >= 8:
            angle = 2 * np.pi * np.arange(n) * width_s / period_s
            parts += [f(k * angle) for k in (1, 2, 3) for f in (np.sin, np.cos)]
    basis, _ = np.linalg.qr(np.stack(parts, axis=-1))
    return np.asarray(series - (series @ basis) @ basis.T)


def hurst(series: Floats, rng: np.random.Generator, width_s: float = 0.0) -> list[Hurst]:
    """Estimate the Hurst exponent of a series, shape (n,), by three estimators.

    `local Whittle` (Robinson 1995), `wavelet` (Abry and Veitch 1998, with D4) and `aggregated
    variance`, each of the series without its trend. What the estimator and the taking away of the
    trend do to fractional Gaussian noise of the same exponent and length is drawn REPLICATES times:
    its bias is taken off and its spread makes the interval. Nothing for fewer than FEWEST values,
    or constant ones.
    """
    n = len(series)
    flat = detrended(series, width_s)
    if n < FEWEST or not np.ptp(flat) > 1e-9 * max(1.0, float(np.abs(series).max())):
        return []
    made = []
    for name, estimate in _ESTIMATORS.items():
        seen = float(estimate(flat[None])[0])
        h = min(max(seen, 0.1), 0.95)
        for _ in range(2):
            # the same noise at two exponents says how far one moves the estimate
            seed = int(rng.integers(2**63))
            there = h - 0.06 if h > 0.5 else h + 0.06
            mean, spread = _drawn(estimate, h, n, width_s, seed)
            other, _ = _drawn(estimate, there, n, width_s, seed)
            slope = max((other - mean) / (there - h), 0.3)
            h = min(max(h + (seen - mean) / slope, 0.02), 0.98)
        reach = spread / slope * NORMAL_95
        made.append(Hurst(name, Interval(h, h - reach, h + reach)))
    return made


def _drawn(
    estimate: Callable[[Floats], Floats], h: float, n: int, width_s: float, seed: int
) -> tuple[float, float]:
    """Return mean and standard deviation of an estimate of noise of a known exponent."""
    noise = fractional_noise(np.random.default_rng(seed), h, n, REPLICATES)
    found = estimate(detrended(noise, width_s))
    return float(found.mean()), float(found.std(ddof=1))


def shuffled_p(series: Floats, rng: np.random.Generator, width_s: float = 0.0) -> float:
    """Return the share of random orders whose local Whittle exponent is as large: a p-value.

    A trend is taken out of every random order too, for that takes away a little of any series.
    """
    flat = detrended(series, width_s)[:_MOST]
    seen = _local_whittle(flat[None])[0]
    orders = rng.permuted(np.tile(flat, (SHUFFLES, 1)), axis=1)
    beyond = int((_local_whittle(detrended(orders, width_s)) >= seen).sum())
    return (beyond + 1) / (SHUFFLES + 1)


def _local_whittle(rows: Floats) -> Floats:
    """Return the local Whittle estimate of each row, shape (rows, n): shape (rows,)."""
    m = int(rows.shape[-1] ** _BANDWIDTH)
    power = np.abs(np.fft.rfft(rows)[:, 1 : m + 1]) ** 2 + 1e-300
    logs = np.log(np.arange(1, m + 1))
    mean = logs.mean()
    low, high = np.full(len(rows), 0.01), np.full(len(rows), 1.3)
    golden = (math.sqrt(5) - 1) / 2

    def objective(h: Floats) -> Floats:
        weighed = power * np.exp((2 * h - 1)[:, None] * logs)
        return np.asarray(np.log(weighed.mean(axis=-1)) - (2 * h - 1) * mean)

    for _ in range(22):  # golden section: the objective is convex
        left, right = high - golden * (high - low), low + golden * (high - low)
        lower = objective(left) < objective(right)
        high, low = np.where(lower, right, high), np.where(lower, low, left)
    return np.asarray((low + high) / 2)


def _wavelet(rows: Floats) -> Floats:
    """Return the slope of log energy over octaves of each row, as an exponent: shape (rows,)."""
    from scipy import special

    smooth = rows
    high = _D4[::-1] * np.array([1, -1, 1, -1])
    octaves, logs, weights = [], [], []
    octave = 0
    while smooth.shape[-1] >= 16:
        windows = np.lib.stride_tricks.sliding_window_view(smooth, 4, axis=-1)[:, ::2]
        detail, smooth = windows @ high, windows @ _D4
        octave += 1
        half = detail.shape[-1] / 2
        if octave >= _LOWEST_OCTAVE:
            energy = (detail**2).mean(axis=-1) + 1e-300
            # the log of a mean of squares is too small on average, by this much
            bias = (special.digamma(half) - math.log(half)) / math.log(2)
            logs.append(np.log2(energy) - bias)
            weights.append(1 / float(special.zeta(2, half)))
            octaves.append(float(octave))
    x, y, w = np.array(octaves), np.stack(logs, axis=-1), np.array(weights)
    centred = w * (x - (w * x).sum() / w.sum())
    return np.asarray(((y @ centred) / (centred @ x) + 1) / 2)


def _aggregated(rows: Floats) -> Floats:
    """Return the exponent of each row by the variance of means over m values: shape (rows,)."""
    n = rows.shape[-1]
    sizes = np.array([m for m in 2 ** np.arange(1, 20) if n // m >= 16])
    means = [rows[:, : n // m * m].reshape(len(rows), n // m, m).mean(axis=-1) for m in sizes]
    logs = np.stack([np.log(mean.var(axis=-1) + 1e-300) for mean in means], axis=-1)
    weight = (n // sizes) / (n // sizes).sum()
    x = np.log(sizes)
    centred = weight * (x - weight @ x)
    return np.asarray((logs @ centred) / (centred @ x) / 2 + 1)


_ESTIMATORS: Final = {
    "local Whittle": _local_whittle,
    "wavelet": _wavelet,
    "aggregated variance": _aggregated,
}


def fractional_noise(rng: np.random.Generator, h: float, n: int, rows: int = 1) -> Floats:
    """Draw fractional Gaussian noise of variance 1, exactly (Davies and Harte 1987): (rows, n)."""
    lag = np.arange(n + 1, dtype=np.float64)
    power = 2 * h
    covariance = ((lag + 1) ** power - 2 * lag**power + np.abs(lag - 1) ** power) / 2
    row = np.concatenate([covariance, covariance[-2:0:-1]])
    spectrum = np.maximum(np.fft.rfft(row).real, 0)
    size = len(row)
    noise = rng.standard_normal((rows, 2, len(spectrum)))
    noise[:, 0, [0, -1]] *= math.sqrt(2)
    noise[:, 1, [0, -1]] = 0
    waves = np.sqrt(spectrum * size / 2) * (noise[:, 0] + 1j * noise[:, 1])
    return np.fft.irfft(waves, size, axis=-1)[:, :n]
