"""Writes a BurstGPT v1 CSV of any length: bursts, ties, two models, failures; always the same."""

import sys
from pathlib import Path

import numpy as np
import polars as pl

ROWS_AT_ONCE = 1_000_000


def write(path: Path, rows: int, seed: int = 0) -> None:
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
            file.write(table.write_csv(include_header=start == 0).encode())
    partial.rename(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
