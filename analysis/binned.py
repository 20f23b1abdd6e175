"""Large tables made small enough to draw: quantiles a bin, rates a bin, peaks a bin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.intervals import fewest
from servescope.analysis.metrics import QUANTILES
from servescope.analysis.sample import Floats

BINS = 200


def quantiles_over(
    calls: pl.DataFrame,
    x: str,
    y: str,
    *,
    bins: int = BINS,
    logarithmic: bool = False,
    quantiles: Mapping[str, float] = QUANTILES,
) -> pl.DataFrame:
    """Return a row a bin of `x` that holds values of `y`: x (their mean), n, and the quantiles.

    Bins are equally wide, on a log scale if `logarithmic` (x below 1 stands in the first bin).
    Quantiles but the median are null in a bin of fewer values than they need (`intervals.fewest`).
    """
    known = calls.select(x=col(x).cast(pl.Float64), y=col(y).cast(pl.Float64)).drop_nulls()
    if known.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(("x", "n", *quantiles), pl.Float64))
    at, values = known["x"].to_numpy(), known["y"].to_numpy()
    place = np.log(at.clip(1.0)) if logarithmic else at
    width = float(np.ptp(place)) / bins or 1.0
    number = ((place - place.min()) / width).clip(0, bins - 1).astype(np.int16)
    sizes = np.bincount(number)
    sums = np.bincount(number, at)
    if (np.diff(number) < 0).any():  # calls in the order of due times need no sorting by them
        values = values[np.argsort(number, kind="stable")]
    ends = np.cumsum(sizes)
    some = np.flatnonzero(sizes)
    inside = [np.sort(values[ends[n] - sizes[n] : ends[n]]) for n in some.tolist()]
    return pl.DataFrame(
        {
            "x": sums[some] / sizes[some],
            "n": sizes[some],
            **{name: _quantile_of_each(inside, q) for name, q in quantiles.items()},
        }
    )


def _quantile_of_each(bins: list[Floats], q: float) -> pl.Series:
    """Return a quantile of the values of each bin in order, null of too few for it."""
    needs = 1 if q == 0.5 else fewest(q)
    ranks = [max(math.ceil(len(part) * q) - 1, 0) for part in bins]
    found = zip(bins, ranks, strict=True)
    return pl.Series(
        [float(part[rank]) if len(part) >= needs else None for part, rank in found],
        dtype=pl.Float64,
    )


def rate_over(moments: pl.Series, *, bins: int = BINS) -> pl.DataFrame:
    """Return how many moments (s) a second fall into each of equally wide bins: t_s, per_s.

    `t_s` is where a bin begins; bins are whole seconds wide, or parts of one in short runs.
    """
    known = moments.drop_nulls().to_numpy()
    if not len(known):
        return pl.DataFrame(schema={"t_s": pl.Float64, "per_s": pl.Float64})
    span = float(known.max() - known.min())
    width = math.ceil(span / bins) if span > bins else max(span, 1e-9) / min(bins, 50)
    start = math.floor(float(known.min()) / width) * width
    counts = np.bincount(((known - start) / width).astype(np.int64))
    return pl.DataFrame({"t_s": start + width * np.arange(len(counts)), "per_s": counts / width})


def peaks(moments: Floats, values: Floats, points: int) -> tuple[Floats, Floats]:
    """Thin a step function to about `points` steps that keep its least and its greatest values.

    `values[i]` holds from `moments[i]`, ascending, to the next one.
    """
    if len(moments) <= points:
        return moments, values
    edges = np.linspace(0, len(moments), points // 2 + 1).astype(np.int64)
    kept: list[int] = [0]
    for low, high in pairwise(edges.tolist()):
        part = values[low:high]
        kept += sorted({int(low + part.argmin()), int(low + part.argmax())})
    kept.append(len(moments) - 1)
    chosen = np.unique(kept)
    return moments[chosen], values[chosen]


def sampled(table: pl.DataFrame, rows: int) -> pl.DataFrame:
    """Return at most `rows` rows, evenly spread over the table, always the same ones."""
    if table.height <= rows:
        return table
    chosen = np.linspace(0, table.height - 1, rows).astype(np.int64)
    return table.select(pl.all().gather(chosen))
