"""Large tables made small enough to draw: quantiles a bin, rates a bin, peaks a bin."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.intervals import fewest
from servescope.analysis.sample import Floats

BINS = 200


def quantiles_over(
    calls: pl.DataFrame, x: str, y: str, *, bins: int = BINS, logarithmic: bool = False
) -> pl.DataFrame:
    """Return a row a bin of `x` that holds values of `y`: x (their mean), n, p50, p90, p99.

    Bins are equally wide, on a log scale if `logarithmic` (x below 1 stands in the first bin).
    p90 and p99 are null in a bin of fewer values than they need (`intervals.fewest`).
    """
    known = calls.select(x=col(x).cast(pl.Float64), y=col(y)).drop_nulls()
    if known.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(("x", "n", "p50", "p90", "p99"), pl.Float64))
    place = col("x").clip(1.0).log() if logarithmic else col("x")
    low, high = known.select(low=place.min(), high=place.max()).row(0)
    width = (high - low) / bins or 1.0
    return (
        known.group_by(((place - low) / width).floor().clip(0, bins - 1).alias("bin"))
        .agg(
            x=col("x").mean(),
            n=pl.len(),
            p50=col("y").quantile(0.5, "equiprobable"),
            **{
                name: pl.when(pl.len() >= fewest(q)).then(col("y").quantile(q, "equiprobable"))
                for name, q in (("p90", 0.9), ("p99", 0.99))
            },
        )
        .sort("bin")
        .drop("bin")
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
