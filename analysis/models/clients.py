"""Who asks: shares of clients by rank, none of which rests on a few calls."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import polars as pl

from servescope.analysis.models.quantiles import MIN_COUNT, Share, all_rounded, rounded
from servescope.analysis.sample import Ints

_MOST = 200  # clients with a share of their own


class Clients(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The largest clients by their `shares`, descending, and `others` that share the rest alike."""

    shares: tuple[Share, ...]
    others: Annotated[int, msgspec.Meta(ge=0)]

    @classmethod
    def fit(cls, calls: Ints, min_count: int = MIN_COUNT) -> Clients:
        """Fit how many calls each client has: shape (clients,)."""
        sizes = np.sort(calls)[::-1]
        own = sizes[sizes >= min_count][:_MOST]
        return cls(shares=all_rounded(own / sizes.sum()), others=len(sizes) - len(own))

    def sample(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw the rank, from 1, of the client of each of `count` calls."""
        upto = np.cumsum(self.shares) if self.shares else np.zeros(1)
        u = rng.random(count)
        rank = np.searchsorted(upto, u, side="right")
        left = u >= upto[-1]
        if self.others:
            part = (u[left] - upto[-1]) / (1 - upto[-1])
            rank[left] = len(self.shares) + np.minimum(part * self.others, self.others - 1)
        else:
            rank[left] = len(self.shares) - 1
        return rank + 1

    def summary(self) -> list[str]:
        """Say how many clients there are and how much the largest asks."""
        many = len(self.shares) + self.others
        largest = max(self.shares, default=1 / max(1, many))
        return [f"{many} clients; the largest has {100 * rounded(largest):.3g} % of the calls."]


def named(ranks: Ints, stream: int = 0) -> pl.Series:
    """Return the names of clients by rank, with the number of their stream unless it is 0."""
    stem = f"{stream}client-" if stream else "client-"
    return pl.select(stem + pl.lit(pl.Series(ranks)).cast(pl.String)).to_series()
