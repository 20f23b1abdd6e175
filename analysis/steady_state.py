"""Where a run is in its steady state: what to leave out at either end, and whether the rest drifts.

A run that starts with an empty server first measures that; one that ends first measures the last
calls alone. What belongs to neither end should not depend on when it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from servescope.analysis.intervals import sections_of
from servescope.analysis.measured import Measured
from servescope.analysis.sample import Floats
from servescope.traces.run import Run

BATCH = 5  # values a mean of MSER-5
FLOOR_TIMES = 2.0
LONGEST = 0.99  # which call is the longest: one that hung would cut the run in half
MOST_CUT = 0.5
ALPHA = 0.05
HEADLINES = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("e2e", 0.99))


@dataclass(frozen=True, slots=True)
class Trim:
    """What a run's steady state leaves out: programs due before `from_s` and after `until_s`.

    `floor_s` is twice the longest call after the first due one, `mser_s` where MSER-5 would cut;
    None where there are too few calls for it. The later of the two counts.
    """

    first_s: float
    floor_s: float
    mser_s: float | None
    from_s: float
    until_s: float

    @property
    def warmup_s(self) -> float:
        """Seconds left out at the beginning."""
        return self.from_s - self.first_s


@dataclass(frozen=True, slots=True)
class Stationarity:
    """Whether a quantity stays what it is over a run.

    `kpss` is the p-value of the test that it is stationary (Kwiatkowski et al. 1992), `trend` that
    of no monotone trend over the sections (Kendall's tau), `drift` the last third over the first,
    less 1.
    """

    kpss: float
    trend: float
    drift: float

    @property
    def stationary(self) -> bool:
        """Whether neither test finds otherwise at 5 %."""
        return self.kpss >= ALPHA and self.trend >= ALPHA


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How steady a run was: its trim, whether the whole drifts, and what the trim would change.

    `changes` holds each headline statistic without the warm-up over that of all calls, as
    `ttft_p99`; None where it is not known.
    """

    trim: Trim
    whole: Stationarity | None
    changes: dict[str, float | None]

    @property
    def most_changed(self) -> float:
        """The largest share by which leaving the warm-up out changes a statistic."""
        return max((abs(ratio - 1) for ratio in self.changes.values() if ratio), default=0.0)


def steadiness_of(measured: Measured) -> Steadiness | None:
    """Return how steady a run was; None if no call was answered."""
    calls = measured.calls
    trim = trim_of(calls)
    if trim is None:
        return None
    known = calls.select("due_s", "ttft").drop_nulls()
    whole = stationarity_of(known["due_s"].to_numpy(), known["ttft"].to_numpy())
    begun = calls.group_by("program_id").agg(pl.col("due_s").min())
    late = begun.filter(pl.col("due_s") >= trim.from_s)
    rest = calls.join(late, on="program_id", how="semi")
    changes: dict[str, float | None] = {}
    for name, q in HEADLINES:
        before = calls[name].quantile(q, "equiprobable")
        after = rest[name].quantile(q, "equiprobable")
        known_both = before is not None and after is not None and before > 0
        changes[f"{name}_p{q * 100:g}"] = after / before if known_both else None  # type: ignore[operator]
    return Steadiness(trim, whole, changes)


def mser5(values: npt.ArrayLike) -> int | None:
    """Return how many values to cut from the front by MSER-5 (White, Cobb, Spratt 2000).

    It cuts where the standard error of the mean of the rest would be the least, in batches of five;
    None for fewer than 20 batches. It never cuts more than half, as its authors advise. By itself
    it is unstable: of one system it cut between 0.35 s and 318 s.
    """
    x = np.asarray(values, dtype=np.float64)
    batches = len(x) // BATCH
    if batches < 20:
        return None
    means = x[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    # sums from each batch to the end give the error of every possible rest at once
    left = np.arange(batches, 0, -1)
    total = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum(np.square(means)[::-1])[::-1]
    spread = np.maximum(squares - np.square(total) / left, 0.0) / np.square(left)
    within = int(batches * MOST_CUT) + 1
    return int(np.argmin(spread[:within])) * BATCH


def trim_of(calls: pl.DataFrame, *, mser: bool = True) -> Trim | None:
    """Return what the steady state of a run leaves out, from its calls; None if none was answered.

    `calls` is `Measured.calls`. At the front: a floor of twice the longest call (its 99th
    percentile), by which time the server has forgotten that it was empty, and MSER-5 on TTFT, the
    later of the two but never more than half of the run. At the back nothing is left out but what
    comes after the last due call: a load that ends is not measured as a load.
    """
    known = calls.select("due_s", "ttft", "e2e_due").drop_nulls().sort("due_s")
    if known.is_empty():
        return None
    due = known["due_s"].to_numpy()
    first, last = float(due[0]), float(due[-1])
    longest = float(np.quantile(known["e2e_due"].to_numpy(), LONGEST, method="inverted_cdf"))
    floor_s = first + FLOOR_TIMES * longest
    cut = mser5(known["ttft"].to_numpy()) if mser else None
    mser_s = None if cut is None else float(due[cut])
    wanted = max(floor_s, mser_s or first)
    return Trim(first, floor_s, mser_s, min(wanted, first + MOST_CUT * (last - first)), last)


def warmup_of(runs: Sequence[Run]) -> float:
    """Return how many seconds the longest warm-up of several runs takes, from their start."""
    trims = [trim_of(Measured.of(run.without_warmup(0.0)).calls) for run in runs]
    return max((trim.from_s for trim in trims if trim), default=0.0)


def stationarity_of(moments: npt.ArrayLike, values: npt.ArrayLike) -> Stationarity | None:
    """Test whether values (latencies, say) stay alike over time; None for too few to cut.

    They are cut into 20 sections by time order, so that calls of one queue stand in for one value.
    """
    t, x = np.asarray(moments, dtype=np.float64), np.asarray(values, dtype=np.float64)
    section = sections_of(t, 20)
    if section is None:
        return None
    means = np.bincount(section, x) / np.bincount(section)
    thirds = np.array_split(means, 3)
    start = float(thirds[0].mean())
    return Stationarity(
        kpss=kpss(means),
        trend=_kendall(means),
        drift=float(thirds[-1].mean()) / start - 1 if start else 0.0,
    )


# Kwiatkowski et al. 1992, table 1, of level stationarity: the statistic and its p-value.
_CRITICAL = ((0.347, 0.10), (0.463, 0.05), (0.574, 0.025), (0.739, 0.01))


def kpss(values: Floats) -> float:
    """Return the p-value of the KPSS test of level stationarity, between 0.01 and 0.1.

    With Bartlett weights over 4 (n / 100)^(1/4) lags.
    """
    residuals = values - values.mean()
    n = len(values)
    lags = math.ceil(4 * (n / 100) ** 0.25)
    variance = float(np.square(residuals).sum()) / n
    for lag in range(1, lags + 1):
        weight = 1 - lag / (lags + 1)
        variance += 2 * weight * float((residuals[lag:] * residuals[:-lag]).sum()) / n
    if variance <= 0:
        return _CRITICAL[0][1]
    statistic = float(np.square(np.cumsum(residuals)).sum()) / (n * n * variance)
    points, p_values = zip(*_CRITICAL, strict=True)
    return float(np.interp(statistic, points, p_values))


def _kendall(values: Floats) -> float:
    from scipy import stats

    if np.ptp(values) == 0:
        return 1.0
    return float(stats.kendalltau(np.arange(len(values)), values).pvalue)
