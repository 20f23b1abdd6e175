"""Silences: gaps so long that arrivals are better called on and off."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.sample import Floats

_LENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 600.0, 3600.0)
SILENT = 50  # mean gaps that make a silence


def silences(arrivals: Floats, finest_s: float) -> pl.DataFrame:
    """Return how many gaps are longer than each of some lengths, and what share of time they hold.

    Columns: longer_than_s, silences, total_s, share, poisson (how many of them a Poisson process of
    the same rate would have). One length is `silent_s`.
    """
    gaps = np.diff(arrivals)
    span = float(arrivals[-1] - arrivals[0]) if len(arrivals) else 0.0
    if not span:
        return pl.DataFrame(schema=_OF_LENGTHS)
    lengths = sorted({*_LENGTHS, silent_s(arrivals)})
    rows = []
    for length in lengths:
        if length < finest_s or length > span:
            continue
        longer = gaps[gaps > length]
        by_chance = len(gaps) * float(np.exp(-length * len(gaps) / span))
        total = float(longer.sum())
        rows.append((length, len(longer), total, total / span, by_chance))
    return pl.DataFrame(rows, schema=_OF_LENGTHS, orient="row")


_OF_LENGTHS = {
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
