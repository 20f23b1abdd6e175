"""The fluidity-index: the share of a call's token deadlines that were met.

Of Etalon (arXiv 2407.07000, section 4): every token has a deadline. One that comes early leaves its
slack to those after it, as a player's buffer does. One that comes late misses as many deadlines as
pass until it comes, and the clock starts anew with it.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.metrics import CHUNK_IS_TOKEN, CHUNKS_ARE_COUNTED
from servescope.analysis.sample import Floats, Ints


def fluidity(calls: pl.DataFrame, first_s: float, gap_s: float) -> pl.Series:
    """Return the share of deadlines met by each call: shape (calls,).

    `calls` holds sent_s, chunk_s, chunk_tokens and output_tokens. The tokens of one chunk come at
    once. Null where the tokens of the chunks are not known, or nothing came.
    """
    known = calls.select(
        "sent_s",
        "chunk_s",
        sizes=pl.when(CHUNK_IS_TOKEN)
        .then(pl.lit(1, dtype=pl.Int64).repeat_by("output_tokens"))
        .when(CHUNKS_ARE_COUNTED)
        .then("chunk_tokens"),
    ).with_row_index("place")
    known = known.filter(col("sizes").list.len() > 0, col("sent_s").is_not_null())
    found = np.full(calls.height, np.nan)
    if known.height:
        chunks = known["chunk_s"].list.len().to_numpy().astype(np.int64)
        share = _shares(
            known["sent_s"].to_numpy(),
            known["chunk_s"].explode().to_numpy(),
            known["sizes"].explode().to_numpy().astype(np.int64),
            chunks,
            first_s,
            gap_s,
        )
        found[known["place"].to_numpy()] = share
    return pl.Series("fluidity", found).fill_nan(None)


def _shares(
    sent_s: Floats, moments: Floats, sizes: Ints, chunks: Ints, first_s: float, gap_s: float
) -> Floats:
    """Walk through all calls at once, chunk by chunk; the longest calls stand first."""
    order = np.argsort(-chunks, kind="stable")
    starts = (np.cumsum(chunks) - chunks)[order]
    longest_first = chunks[order]
    before = sent_s[order].copy()
    slack = np.zeros(len(order))
    met, asked = np.zeros(len(order)), np.zeros(len(order))
    alive = len(order)
    for place in range(int(longest_first[0])):
        while longest_first[alive - 1] <= place:
            alive -= 1
        now = moments[starts[:alive] + place]
        tokens = sizes[starts[:alive] + place]
        took = now - before[:alive]
        allowed = first_s if place == 0 else gap_s
        late = took > allowed + slack[:alive]
        # a first token that is late misses its own deadline and every later one that has passed
        missed = np.floor((took - slack[:alive] - (first_s if place == 0 else 0.0)) / gap_s)
        missed = np.where(late, missed + (place == 0), 0)
        in_time = tokens - late  # the late one is counted by what it missed
        met[:alive] += in_time
        asked[:alive] += in_time + missed
        slack[:alive] = np.where(late, 0.0, slack[:alive] + allowed - took)
        slack[:alive] += (tokens - 1) * gap_s
        before[:alive] = now
    share = np.empty(len(order))
    share[order] = met / asked
    return share
