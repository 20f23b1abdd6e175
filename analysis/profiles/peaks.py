"""The busiest second, as vLLM and SGLang count it: from the first call that was answered."""

from __future__ import annotations

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.profiles.profile import Value
from servescope.analysis.profiles.reading import NOTHING, Reading


def most_in_a_second(reading: Reading, moments: pl.Expr) -> Value:
    """Return the most chunks that came in one second, of the lists that `moments` makes."""
    calls = reading.answered
    begun_s = calls["start_s"].min()
    if begun_s is None:
        return Value(None, NOTHING)
    counts = np.zeros(1, dtype=np.int64)
    for batch in reading.seen.measured.chunks(calls.select("row")):
        came = batch.select(moments.alias("at")).explode("at").drop_nulls()
        seconds = (came["at"] - begun_s).floor().cast(pl.Int64).to_numpy()
        more = np.bincount(seconds[seconds >= 0], minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return Value(float(counts.max()))


def most_at_once(reading: Reading, latency: str) -> Value:
    """Return the most calls that were under way in one second, those that touch it included."""
    calls = reading.answered
    begun_s = calls["start_s"].min()
    if begun_s is None:
        return Value(None, NOTHING)
    table = calls.select(
        first=(col("start_s") - begun_s).floor().cast(pl.Int64),
        last=(col("start_s") + col(latency) - begun_s).floor().cast(pl.Int64),
    ).drop_nulls()
    first, last = table["first"].to_numpy(), table["last"].to_numpy()
    steps = np.zeros(last.max(initial=0) + 2, dtype=np.int64)
    np.add.at(steps, first, 1)
    np.add.at(steps, last + 1, -1)
    return Value(float(np.cumsum(steps).max()))
