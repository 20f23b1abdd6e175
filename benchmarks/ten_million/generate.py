"""Writes a BurstGPT CSV (v1, or v3 with sessions) of any length; always the same.

It has bursts, ties, two models and failures. In v3 the conversations, a tenth of the calls, come in
sessions of four turns on average, as interleaved as the real ones.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

ROWS_AT_ONCE = 1_000_000


def write(path: Path, rows: int, seed: int = 0, version: int = 1) -> None:
    rng = np.random.default_rng(seed)
    begun_s = 0.0
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        for start in range(0, rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, rows - start)
            arrivals = begun_s + np.cumsum(rng.gamma(0.5, 1.0, count))
            begun_s = float(arrivals[-1])
            asked = np.minimum(rng.lognormal(5.8, 1.2, count).astype(int) + 1, 30_000)
            given = np.minimum(rng.lognormal(5.0, 1.0, count).astype(int), 4_000)
            given[rng.random(count) < 0.05] = 0
            table = pl.DataFrame(
                {
                    "Timestamp": arrivals.astype(np.int64),
                    "Model": np.where(rng.random(count) < 0.8, "ChatGPT", "GPT-4"),
                    "Request tokens": asked,
                    "Response tokens": given,
                    "Total tokens": asked + given,
                    "Log Type": np.where(rng.random(count) < 0.9, "Conversation log", "API log"),
                }
            )
            if version == 3:
                table = with_sessions(table, start, rng)
            file.write(table.write_csv(include_header=start == 0).encode())
    partial.rename(path)


def with_sessions(table: pl.DataFrame, start: int, rng: np.random.Generator) -> pl.DataFrame:
    """Turn the rows of v1 into those of v3: nine of ten are API calls, which have no session."""
    chats = rng.random(table.height) < 0.1
    # a session is begun at one call in four, or goes on with one of the last 200 that began
    begins = chats & (rng.random(table.height) < 0.25)
    begun = np.maximum(np.cumsum(begins), 1)
    session = np.maximum(begun - np.where(begins, 0, rng.integers(0, 200, table.height)), 1)
    ids = pl.Series(session + start).cast(pl.String).str.zfill(12)
    named = pl.Series("Session ID", "3b1f0a52-7c44-4d1e-9f0a-" + ids)
    return table.with_columns(
        pl.col("Timestamp").cast(pl.Float64),
        pl.when(pl.Series(chats)).then(named).alias("Session ID"),
        pl.Series("Elapsed time", rng.exponential(4, table.height).astype(np.int64)),
        pl.when(pl.Series(chats))
        .then(pl.lit("Conversation log"))
        .otherwise(pl.lit("API log"))
        .alias("Log Type"),
    ).select("Timestamp", "Session ID", "Elapsed time", *table.columns[1:])


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), version=int(sys.argv[3]) if sys.argv[3:] else 1)
