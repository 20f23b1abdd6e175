"""Programs that had not ended when the run did: they are known to take longer than they had.

Leaving them out makes a slow server look fast. Kaplan and Meier (1958) count each for as long as it
was seen; a failure ends it too, without having been served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import col

from servescope.analysis.metrics import ANSWERED
from servescope.analysis.sample import Floats
from servescope.traces.status import CANCELLED, LOST, NOT_SENT

LOOKED_AT = ("program_id", "status", "due_s", "last_token_s", "end_s")
STOPPED = col("status").is_in((CANCELLED, LOST)) | (
    (col("status") == NOT_SENT) & col("due_s").is_null()
)


@dataclass(frozen=True, slots=True)
class Survival:
    """The share of programs that take longer than each time (s), with unfinished ones censored.

    `times_s` ascending where the curve steps, `above` the share after each step, `errors` its
    standard error (Greenwood). `seen_s` is the longest time that was seen.
    """

    ended: int
    censored: int
    failed: int
    times_s: Floats
    above: Floats
    errors: Floats
    seen_s: float

    def quantile(self, q: float) -> float | None:
        """Return the time by which the share q has ended; None if fewer were seen to."""
        below = np.flatnonzero(self.above <= 1 - q + 1e-12)
        return float(self.times_s[below[0]]) if len(below) else None

    def restricted_mean(self, until_s: float | None = None) -> tuple[float, float] | None:
        """Return the mean of the time or `until_s`, whichever is less, and its standard error.

        Without `until_s` up to the longest time seen. With anything censored it is a lower bound of
        the mean (Royston and Parmar 2013); None if nothing was seen.
        """
        limit = self.seen_s if until_s is None else until_s
        if not limit > 0 or not self.ended + self.censored + self.failed:
            return None
        inside = self.times_s < limit
        edges = np.concatenate([[0.0], self.times_s[inside], [limit]])
        heights = np.concatenate([[1.0], self.above[inside]])
        areas = np.diff(edges) * heights
        mean = float(areas.sum())
        rest = np.cumsum(areas[::-1])[::-1][1:]  # the area that lies beyond each step
        hazards = np.diff(np.square(self.errors[inside] / np.maximum(self.above[inside], 1e-300)),
                          prepend=0.0)  # fmt: skip
        return mean, math.sqrt(max(0.0, float((np.square(rest) * hazards).sum())))


def kaplan_meier(
    took_s: npt.ArrayLike, ended: npt.ArrayLike, failed: npt.ArrayLike | None = None
) -> Survival:
    """Estimate how long programs take of which some were still running: shape (programs,) each.

    `took_s` is how long each took or was seen, `ended` whether it ended then. One that `failed` is
    never done: it counts as one that takes longer than any other (the subdistribution of Fine and
    Gray 1999, where nothing is censored before it).
    """
    took, done = np.asarray(took_s, dtype=np.float64), np.asarray(ended, dtype=np.bool_)
    bad = np.zeros(len(took), np.bool_) if failed is None else np.asarray(failed, dtype=np.bool_)
    seen_s = float(took.max()) if len(took) else 0.0
    took = np.where(bad, np.inf, took)
    times = np.unique(took[done & ~bad])
    at_risk = len(took) - np.searchsorted(np.sort(took), times, side="left")
    events = np.bincount(np.searchsorted(times, took[done & ~bad]), minlength=len(times))
    above = np.cumprod(1 - events / at_risk) if len(times) else np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(events / (at_risk * (at_risk - events)))
        errors = np.where(above > 0, above * np.sqrt(greenwood), 0.0)
    return Survival(
        ended=int((done & ~bad).sum()),
        censored=int((~done & ~bad).sum()),
        failed=int(bad.sum()),
        times_s=times,
        above=np.asarray(above, dtype=np.float64),
        errors=np.asarray(errors, dtype=np.float64),
        seen_s=seen_s,
    )


def of_programs(calls: pl.DataFrame) -> Survival:
    """Estimate JCT of the programs of `Measured.calls`, those that the run cut off censored.

    It looks at the columns of `LOOKED_AT`. A call that was in flight or never sent because the run
    stopped leaves its program unfinished; a call that failed by itself ends its program without
    success.
    """
    end_s = calls.select(pl.max_horizontal("end_s", "last_token_s", "due_s").max()).item()
    programs = calls.group_by("program_id").agg(
        begun=col("due_s").min(),
        done=col("last_token_s").max(),
        cut=STOPPED.any(),
        failed=(~ANSWERED & ~STOPPED).any(),
    )
    programs = programs.drop_nulls("begun").with_columns(
        took=pl.when("cut").then(pl.lit(end_s)).otherwise("done") - col("begun")
    )
    programs = programs.with_columns(col("took").fill_null(0.0), ended=~col("cut"))
    return kaplan_meier(
        programs["took"].to_numpy(), programs["ended"].to_numpy(), programs["failed"].to_numpy()
    )
