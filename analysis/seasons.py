"""What a rate does over hours, days and weeks: its cycles, its seasons, where it changes."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import numpy as np
import polars as pl

from servescope.analysis.sample import Floats

HOUR_S, DAY_S, WEEK_S = 3600.0, 86_400.0, 604_800.0
_PEAKS = 5
_PENALTIES = (1.0, 2.0, 4.0)


def periodogram(series: Floats, width_s: float) -> pl.DataFrame:
    """Return the strongest cycles of a series without trend that stand out of their surroundings.

    A peak of the periodogram is compared with the median of its neighbours, so long memory is no
    cycle; p is that of the largest of all exponential ordinates. Columns: period_s, cycles, share
    (of the variance), times_surroundings, p_value; strongest first, p below 0.01 only.
    """
    empty = pl.DataFrame(
        schema=dict.fromkeys(
            ("period_s", "cycles", "share", "times_surroundings", "p_value"), pl.Float64
        )
    )
    n = len(series)
    if n < 64 or not np.ptp(series) > 0:
        return empty
    power = np.abs(np.fft.rfft(series - series.mean())[1:]) ** 2
    if n % 2 == 0:
        power = power[:-1]
    from scipy import ndimage

    reach = min(25, len(power) // 4 * 2 + 1)
    near = ndimage.median_filter(power, 2 * reach + 1, mode="reflect") / math.log(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(near > 0, power / near, 0.0)
    p = -np.expm1(len(power) * np.log1p(-np.exp(-ratio)))
    rows: list[dict[str, float]] = []
    for k in np.argsort(-power):
        if p[k] < 0.01 and k >= 1 and len(rows) < _PEAKS:  # one cycle of the whole is a trend
            rows.append(
                {
                    "period_s": n * width_s / (k + 1),
                    "cycles": float(k + 1),
                    "share": float(power[k] / power.sum()),
                    "times_surroundings": float(ratio[k]),
                    "p_value": float(p[k]),
                }
            )
    return pl.DataFrame(rows, schema=empty.schema)


def decomposed(hourly: Floats) -> tuple[pl.DataFrame, dict[str, float]]:
    """Split an hourly series into trend, day, week and rest, robustly (STL, MSTL of statsmodels).

    The series holds two days or more; the week is there from two weeks on. Returns the components
    (hour, observed, trend, day, week, rest) and the strength of each season, 1 - Var(rest) /
    Var(season + rest), at least 0 (Wang, Smith and Hyndman 2006).
    """
    from statsmodels.tsa.seasonal import MSTL, STL

    week = len(hourly) >= 2 * 168
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if week:
            found = MSTL(hourly, periods=(24, 168), stl_kwargs={"robust": True}).fit()
            seasons = {"day": found.seasonal[:, 0], "week": found.seasonal[:, 1]}
        else:
            found = STL(hourly, period=24, robust=True).fit()
            seasons = {"day": np.asarray(found.seasonal)}
    rest = np.asarray(found.resid)
    table = pl.DataFrame(
        {
            "hour": np.arange(len(hourly)),
            "observed": hourly,
            "trend": np.asarray(found.trend),
            "day": seasons["day"],
            "week": seasons.get("week", np.full(len(hourly), np.nan)),
            "rest": rest,
        }
    ).with_columns(pl.col("week").fill_nan(None))
    strengths = {}
    for name, season in seasons.items():
        whole = float(np.var(season + rest))
        strengths[name] = max(0.0, 1 - float(np.var(rest)) / whole) if whole > 0 else 0.0
    return table, strengths


def change_points(series: Floats) -> pl.DataFrame:
    """Return where the mean of a series of counts changes (PELT of ruptures on their roots).

    The root makes the spread of counts nearly constant; its size comes from the differences of
    neighbours. The penalty of a change is 2 s^2 log(n), and those are kept; `stable` says that it
    is still found at four times that. Columns: window, before, after (mean counts), stable.
    """
    import ruptures

    schema = {
        "window": pl.Int64, "before": pl.Float64, "after": pl.Float64, "stable": pl.Boolean,
    }  # fmt: skip
    n = len(series)
    roots = np.sqrt(series)
    steps = np.diff(roots)
    spread = float(np.median(np.abs(steps))) / 0.6745 / math.sqrt(2) if len(steps) else 0.0
    spread = spread or (float(steps.std()) / math.sqrt(2) if len(steps) else 0.0)
    if n < 20 or spread == 0:
        return pl.DataFrame(schema=schema)
    search = ruptures.KernelCPD(kernel="linear", min_size=3).fit(roots[:, None])
    found = [search.predict(pen=factor * 2 * spread**2 * math.log(n))[:-1] for factor in _PENALTIES]
    edges = [0, *found[0], n]
    means = [float(series[a:b].mean()) for a, b in pairwise(edges)]
    rows = [
        (at, means[k], means[k + 1], min((abs(at - x) for x in found[-1]), default=n) <= 2)
        for k, at in enumerate(found[0])
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")
