"""Prefix reuse: what caches of all sizes would find, and how old it is when it is used again."""

from __future__ import annotations

from itertools import islice

import numpy as np
import polars as pl

from servescope.analysis.aspects.prefixes import prompts_of
from servescope.analysis.fidelity.marginals import ks
from servescope.analysis.fidelity.scores import Found, LeftOut, Measure, Score
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.reuse import Reuse
from servescope.analysis.sample import Floats

_SIZES = 60
_FEWEST = 20
_ALIKE = 1.1  # times as many prompts are as many

MEASURES = {
    "hit_curve": Measure(
        "largest difference of the hit rates of LRU caches of any size",
        "points",
        "exact hit rates at 60 sizes up to all blocks; a trace with over 1.1 times as many prompts"
        " is cut to as many",
        "stack distances: Mattson et al., IBM Systems Journal 9 (1970)",
        bar=1.0,
    ),
    "reuse_age": Measure(
        "largest difference between the distributions of how many calls ago a prefix was last used",
        "1",
        "two-sample Kolmogorov-Smirnov distance over the calls that find any",
        bar=0.03,
    ),
}


def scores(real: Side, other: Side) -> Found:
    """Compare what prompts find of earlier ones."""
    if not _has(real):
        yield LeftOut("prefix reuse", "nothing says which prompts share a prefix")
        return
    if not _has(other):
        yield LeftOut("prefix reuse", "the synthetic trace does not say which prompts share one")
        return
    a, b = _of_as_many(real, other)
    if not sum(a.blocks) or not sum(b.blocks):
        yield LeftOut("prefix reuse", "no prompt has a block")
        return
    sizes = _sizes(max(a.distinct, b.distinct))
    x, y = (100 * _rates(each, sizes) for each in (a, b))
    yield Score("hit_curve", float(np.abs(x - y).max()), real=float(x[-1]), synthetic=float(y[-1]))
    ages = [np.array([age for age in each.age if age > 0], np.float64) for each in (a, b)]
    if min(map(len, ages)) >= _FEWEST:
        yield Score("reuse_age", ks(*ages))
    else:
        yield LeftOut("age at reuse", f"fewer than {_FEWEST} calls find a prefix")


def _has(side: Side) -> bool:
    return "prefix_blocks" in side.demand.trace.columns


def _of_as_many(real: Side, other: Side) -> tuple[Reuse, Reuse]:
    """Return the reuse of both; one with many more prompts is cut, since caches fill over time."""
    both = real.reuse, other.reuse
    fewest = min(len(each.blocks) for each in both)
    first, second = (
        reuse if len(reuse.blocks) <= _ALIKE * fewest else _cut(side, fewest)
        for side, reuse in zip((real, other), both, strict=True)
    )
    return first, second


def _cut(side: Side, most: int) -> Reuse:
    prompts, _, blocks = prompts_of(side.demand)
    return Reuse(blocks).add_all(islice(prompts, most))


def _sizes(distinct: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.unique(np.geomspace(1, max(2, distinct), _SIZES).round().astype(np.int64))


def _rates(reuse: Reuse, sizes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    return np.asarray(reuse.hits(sizes) / sum(reuse.blocks))


def curves(real: Side, side: Side) -> dict[str, pl.DataFrame]:
    """Return the hit rate over the size of the cache."""
    if not (_has(real) and _has(side)):
        return {}
    a, b = _of_as_many(real, side)
    if not sum(a.blocks) or not sum(b.blocks):
        return {}
    sizes = _sizes(a.distinct)
    return {"hit_curve": pl.DataFrame({"x": sizes.astype(np.float64), "y": _rates(b, sizes)})}
