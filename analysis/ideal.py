"""What each call would have taken on an unloaded server, as far as the run itself shows it.

The quickest calls of a run met little load. Among calls of about the same length the quickest
twentieth says what TTFT and TPOT are without a queue; a run that was never lightly loaded shows
too slow an ideal, so that a slowdown made of it is a lower bound.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.metrics import ANSWERED
from servescope.analysis.sample import Floats

QUICKEST = 0.05
CALLS_A_BIN = 100
MOST_BINS = 50


def with_ideal(calls: pl.DataFrame) -> pl.DataFrame:
    """Add `ideal_s` to a table of calls with ttft and tpot: ideal TTFT + (tokens - 1) x TPOT.

    The ideal TTFT never falls with the length of what is to be computed (the prompt less what came
    from the cache); null where a call or its tokens are not known.
    """
    if not {"ttft", "tpot"} <= set(calls.columns):
        return calls.with_columns(ideal_s=pl.lit(None, dtype=pl.Float64))
    cached = col("cached_tokens").fill_null(0) if "cached_tokens" in calls.columns else pl.lit(0)
    computed = calls.select(
        computed=(col("input_tokens") - cached).clip(0).cast(pl.Float64), ttft="ttft"
    )
    known = computed.drop_nulls()
    if known.is_empty():
        return calls.with_columns(ideal_s=pl.lit(None, dtype=pl.Float64))
    lengths, ttft = _envelope(known["computed"].to_numpy(), known["ttft"].to_numpy())
    tpot = calls["tpot"].drop_nulls().quantile(QUICKEST, "equiprobable") or 0.0
    first = np.interp(computed["computed"].fill_null(np.nan).to_numpy(), lengths, ttft)
    return calls.with_columns(
        ideal_s=pl.when(ANSWERED).then(
            pl.Series(first).fill_nan(None) + (col("output_tokens") - 1).clip(0) * tpot
        )
    )


def _envelope(lengths: Floats, ttft: Floats) -> tuple[Floats, Floats]:
    """Return the lower envelope of TTFT over length: mean length and quickest TTFT of each bin."""
    order = np.argsort(lengths, kind="stable")
    bins = max(1, min(MOST_BINS, len(order) // CALLS_A_BIN))
    parts = np.array_split(order, bins)
    x = np.array([lengths[part].mean() for part in parts])
    y = np.array([np.quantile(ttft[part], QUICKEST, method="inverted_cdf") for part in parts])
    return x, np.minimum.accumulate(y[::-1])[::-1]  # a longer prompt is no quicker
