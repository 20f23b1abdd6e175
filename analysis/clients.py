"""Clients: their pools, and whose doing the swings of a total are."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.sample import Floats, Ints


def by_pool(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the `pool` of each client, the folder in its name; empty where all are in one.

    Pools are different services: their clients stand side by side, and do not add up.
    """
    pool = rows["client_id"].str.extract(r"^(.*)/[^/]*$").fill_null("")
    return rows.with_columns(pool=pool if pool.n_unique() > 1 else pl.lit(""))


def shared_out(
    who: Ints, where: Ints, number: Floats, clients: int, windows: int
) -> tuple[Floats, float] | None:
    """Share the variance of a total over windows out among clients.

    `number` of calls, or a rate, is client `who`'s in window `where`; every pair stands once, and
    what does not stand is 0. Returns Cov(N_client, N) / Var(N), shape (clients,), which sums to 1,
    and the sum of Var(N_client) / Var(N): what they bring each by itself. None where the total does
    not vary.
    """
    total = np.bincount(where, number, windows)
    variance = float(total.var())
    if not variance > 0:
        return None
    # of a sum the variance is the sum of the covariances of its parts with it
    with_total = np.bincount(who, number * (total[where] - total.mean()), clients) / windows
    own = np.bincount(who, number**2, clients) / windows
    own -= (np.bincount(who, number, clients) / windows) ** 2
    return with_total / variance, float(own.sum()) / variance
