"""How fast a run used up what an SLO allows: the burn rate of each condition, section by section.

An SLO by which 1 % may miss has an error budget of 1 %; a run of which 2 % missed burned it twice
as fast as it may (Google, The Site Reliability Workbook, chapter 5). A burn rate of 1 is the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import col

from servescope.analysis.attainment import chosen, judged
from servescope.analysis.intervals import PROGRAMS_A_SECTION, SECTIONS, sections_of
from servescope.analysis.measured import Measured
from servescope.analysis.metrics import ANSWERED, METRICS
from servescope.analysis.sample import Floats
from servescope.analysis.slo import SLO, Condition, Group

ATTAINMENT = 0.9  # the share that must meet an SLO where nothing else is asked (DistServe's 90 %)


@dataclass(frozen=True, slots=True, eq=False)
class Burn:
    """What one condition of an SLO came to in each section of a run's time.

    `sizes` and `rates` have shape (sections,): how many were judged, and the burn rate. For a
    `share` a rate is the share that missed over `allowed`; for a `mean` it is the mean over its
    bound, and `allowed` is 1.
    """

    condition: str
    kind: Literal["share", "mean"]
    allowed: float
    sizes: Floats
    rates: Floats

    @property
    def rate(self) -> float:
        """The burn rate of the whole run."""
        return float(np.average(self.rates, weights=self.sizes))


def burns_of(measured: Measured, slo: SLO, attainment: float = ATTAINMENT) -> tuple[Burn, ...]:
    """Return the burn of every condition of an SLO; nothing for a run without calls.

    What is asked of each call or program is one condition, by which the share `attainment` must
    meet the SLO. p99(m)<b allows 1 % to reach the bound, failures among them; a mean is of what was
    served. Sections hold as many programs each, ten of them or fewer, but five programs at least.
    """
    owners, count = _sections(measured)
    if not count:
        return ()
    found = []
    if slo.of_each:
        allowed = 1 - attainment
        name = f"{attainment * 100:.4g} % of {slo.per} within {slo.each}"
        found.append(_of_misses(name, measured, slo.each, allowed, owners, count))
    for group in slo.groups:
        within = measured.where(chosen(group)) if group.where else measured
        for condition in group.conditions:
            if condition.statistic is not None:
                name = str(Group((condition,), where=group.where))
                found.append(_of_statistic(name, within, condition, owners, count))
    return tuple(burn for burn in found if burn is not None)


def _sections(measured: Measured) -> tuple[pl.DataFrame, int]:
    starts = measured.calls.group_by("program_id", maintain_order=True).agg(col("due_s").min())
    count = min(SECTIONS, starts.height // PROGRAMS_A_SECTION)
    block = sections_of(starts["due_s"].to_numpy(), count) if count else None
    if block is None:
        return starts.select("program_id", block=pl.lit(0, pl.Int64)), min(1, starts.height)
    return starts.select("program_id", block=pl.Series(block)), count


def _of_statistic(
    name: str, measured: Measured, condition: Condition, owners: pl.DataFrame, count: int
) -> Burn | None:
    metric = METRICS[condition.metric]
    bound = condition.bound.constant
    if condition.statistic == "mean":
        sample = measured.sample(metric.name, owners, count)
        sizes, means = sample.sizes(), sample.block_means()
        return _made(name, "mean", 1.0, sizes.astype(np.float64), np.nan_to_num(means) / bound)
    allowed = 1 - float(condition.statistic or 0.5)
    if metric.per == "gap":
        sample = measured.sample(metric.name, owners, count)
        late = sample.values >= bound
        missed = np.bincount(sample.block[late], sample.weights[late], count)
        return _share(name, allowed, sample.sizes(), missed)
    if metric.between_tokens:  # a single token has no gap to be too long, and is no value
        single = (col("output_tokens") == 1).fill_null(False)
        measured = measured.where(~(ANSWERED & single))
    each = SLO((Group((replace(condition, statistic=None),)),))
    return _of_misses(name, measured, each, allowed, owners, count)


def _of_misses(
    name: str, measured: Measured, slo: SLO, allowed: float, owners: pl.DataFrame, count: int
) -> Burn | None:
    table = judged(measured, slo).join(owners, on="program_id", maintain_order="left")
    block = table["block"].to_numpy()
    missed = np.bincount(block[~table["met"].to_numpy()], minlength=count)
    return _share(name, allowed, np.bincount(block, minlength=count), missed)


def _share(name: str, allowed: float, sizes: npt.ArrayLike, missed: npt.ArrayLike) -> Burn | None:
    judged, misses = (np.asarray(each, dtype=np.float64) for each in (sizes, missed))
    return _made(name, "share", allowed, judged, misses / np.maximum(judged, 1) / allowed)


def _made(
    name: str, kind: Literal["share", "mean"], allowed: float, sizes: Floats, rates: Floats
) -> Burn | None:
    return Burn(name, kind, allowed, sizes, rates) if sizes.sum() else None


def worst(burns: tuple[Burn, ...]) -> Burn | None:
    """Return the condition that is nearest to its limit or furthest beyond it."""
    return max(burns, key=lambda burn: burn.rate, default=None)
