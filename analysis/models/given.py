"""How one number is distributed given another.

The law of y is one quantile function. For each stretch of x there is a coarser one, of the ranks
that y has in the first: however few calls a stretch has, y keeps its atoms, humps and tail.
"""

from __future__ import annotations

import math
from functools import cached_property

import msgspec
import numpy as np

from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, all_rounded
from servescope.analysis.sample import Floats, Ints

PARTS = 32
_STEPS = 20  # of level, in a stretch, at most
_HAIR = 1e-7  # by which ranks are told apart
_PER_STEP = 0.6  # stretches, about, where both are few
_EACH = 5  # times `min_count`: values that a stretch has at least


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The law of y, and the quantiles of its ranks where x is up to the first edge, the second, ...

    A row of `ranks` holds them at equal steps of level from 0 to 1, as many in every row.
    """

    law: Quantiles
    edges: tuple[float, ...] = ()
    ranks: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def fit(
        cls,
        x: Floats,
        y: Floats,
        min_count: int = MIN_COUNT,
        parts: int = PARTS,
        *,
        whole: bool = False,
    ) -> Given:
        """Cut x into at most so many stretches of about as many values; raises InputError of none.

        A stretch has at least five times `min_count` values. If there are too few for two, y does
        not depend on x.
        """
        law = Quantiles.fit(y, min_count, whole=whole)
        least = _EACH * min_count
        # fewer stretches than steps of level in each: both cost calls
        parts = min(parts, round(_PER_STEP * math.sqrt(len(x) / min_count)), len(x) // least)
        edges = edges_of(x, parts, least)
        if not edges:
            return cls(law=law)
        rank, cell = law.rank(y), np.searchsorted(edges, x, side="left")
        steps = min(_STEPS, int(np.bincount(cell).min()) // min_count)
        ranks = [
            all_rounded(_steps(np.sort(rank[cell == each]), steps, min_count))
            for each in range(len(edges) + 1)
        ]
        return cls(law=law, edges=edges, ranks=tuple(ranks))

    def cells(self, x: Floats) -> Ints:
        """Return in which stretch each x lies."""
        return np.searchsorted(self.edges, x, side="left").astype(np.int64)

    def at(self, x: Floats, u: Floats) -> Floats:
        """Return the values with the shares u below them, given x."""
        if not self.ranks:
            return self.law.at(u)
        table = self._table
        steps = table.shape[1] - 1
        cell = self.cells(x)
        step = np.minimum((u * steps).astype(np.int64), steps - 1)
        low = table[cell, step]
        return self.law.at(low + (u * steps - step) * (table[cell, step + 1] - low))

    def rank(self, x: Floats, y: Floats) -> Floats:
        """Return the share of values below y given x, ties at their middle."""
        ranks = self.law.rank(y)
        cell = self.cells(x)
        for each, row in enumerate(self.ranks):
            here = cell == each
            levels = np.linspace(0, 1, len(row))
            ends = (np.interp(ranks[here] + by, row, levels) for by in (-_HAIR, _HAIR))
            ranks[here] = sum(ends) / 2
        return ranks

    def log_score(self, x: Floats, y: Floats) -> float:
        """Return the log-likelihood of values given x (nats)."""
        score = self.law.log_score(y)
        if not self.ranks:
            return score
        table = self._table
        rank, cell = self.law.rank(y), self.cells(x)
        step = np.array([np.searchsorted(row, rank, side="right") for row in table])
        step = np.clip(step[cell, np.arange(len(y))], 1, table.shape[1] - 1)
        wide = table[cell, step] - table[cell, step - 1]
        return score - float(np.log(np.maximum(wide, _HAIR) * (table.shape[1] - 1)).sum())

    def spread(self, x: Floats, y: Floats) -> float:
        """Return how far values lie from the median given x, on average."""
        middle = self.at(x, np.full(len(x), 0.5))
        return float(np.abs(y - middle).mean())

    @cached_property
    def _table(self) -> Floats:
        return np.array(self.ranks)


def edges_of(x: Floats, parts: int, least: int) -> tuple[float, ...]:
    """Return where values are cut into at most so many stretches, of at least so many each.

    A stretch ends with its edge. Stretches of about as many values, unless many are the same.
    """
    if parts < 2:
        return ()
    ranked = np.sort(x)
    at = np.arange(1, parts) * len(x) // parts
    wanted = np.unique(all_rounded((ranked[at - 1] + ranked[at]) / 2))
    edges: list[float] = []
    done = 0
    for edge, upto in zip(wanted, np.searchsorted(ranked, wanted, side="right"), strict=True):
        if upto - done >= least and len(x) - upto >= least:
            edges.append(float(edge))
            done = upto
    return tuple(edges)


def _steps(ranked: Floats, steps: int, min_count: int) -> Floats:
    """Return quantiles at equal steps; the ends lie where `min_count` even values would have them.

    No single one is seen: an end is as far beyond the mean of the last few as what is before them.
    """
    count = len(ranked)
    at = np.arange(1, steps) * count // steps
    inner = (ranked[at - 1] + ranked[at]) / 2
    low, high = ranked[:min_count], ranked[-min_count:]
    ends = np.clip([2 * low.mean() - low[-1], 2 * high.mean() - high[0]], 0, 1)
    return np.maximum.accumulate(np.concatenate(([ends[0]], inner, [ends[1]])))
