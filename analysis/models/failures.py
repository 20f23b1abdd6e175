"""Which calls of programs fail: how many, how much in runs, and what is left of them."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
from polars import col

from servescope.analysis.models.quantiles import MIN_COUNT, Share, rounded
from servescope.analysis.sample import Floats
from servescope.traces.status import OK, UNKNOWN


class Failures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A share of all calls fails with `status`; after a failed one the next fails more often.

    `again` is the probability that a call fails because the one before in its program did. A part
    `no_input` of the failed calls has no prompt tokens recorded, `no_output` no answer.
    """

    status: str
    share: Share
    again: Share
    no_input: Share
    no_output: Share

    @classmethod
    def fit(cls, calls: pl.DataFrame, min_count: int = MIN_COUNT) -> Failures | None:
        """Fit calls with status, program_id, turn and lengths; None below `min_count` failures.

        All failures get the status that is most frequent among them. Calls of which it is not known
        whether they failed say nothing.
        """
        known = calls.filter(col("status").cast(pl.String) != UNKNOWN).sort("program_id", "turn")
        failed = known["status"].cast(pl.String) != OK
        if failed.sum() < min_count:
            return None
        bad = known.filter(failed)
        share = float(failed.sum()) / len(failed)
        inside = known["program_id"] == known["program_id"].shift(1)
        after = failed.filter((inside & failed.shift(1)).fill_null(False))
        stays = float(after.sum()) / len(after) if len(after) >= min_count else share
        return cls(
            status=str(bad["status"].cast(pl.String).mode().sort()[0]),
            share=rounded(share),
            again=rounded(max(0.0, (stays - share) / (1 - share))) if share < 1 else 0.0,
            no_input=rounded(float((bad["input_tokens"].fill_null(0) == 0).sum()) / bad.height),
            no_output=rounded(float((bad["output_tokens"].fill_null(0) == 0).sum()) / bad.height),
        )

    def mark(self, rng: np.random.Generator, calls: pl.DataFrame) -> pl.DataFrame:
        """Return calls, sorted by program and turn, with their status and what is left of them."""
        drawn = rng.random((3, calls.height))
        first = calls["turn"].to_numpy() == 0
        failed = _runs(drawn[0], first, self.share, self.again)
        return calls.with_columns(
            pl.when(pl.Series(failed & (drawn[1] < self.no_input)))
            .then(0)
            .otherwise(col("input_tokens"))
            .alias("input_tokens"),
            pl.when(pl.Series(failed & (drawn[2] < self.no_output)))
            .then(0)
            .otherwise(col("output_tokens"))
            .alias("output_tokens"),
            pl.when(pl.Series(failed))
            .then(pl.lit(self.status))
            .otherwise(pl.lit(OK))
            .alias("status"),
        )

    def summary(self) -> list[str]:
        """Say how many calls fail."""
        return [f"{100 * self.share:.2g} % of the calls fail ({self.status})."]


def _runs(u: Floats, first: np.ndarray, share: float, again: float) -> np.ndarray:
    """Return which calls fail: a Markov chain within each program, begun by the share."""
    anyway = share * (1 - again)
    if not again:
        return np.asarray(u < share)
    low, high = u < anyway, u < anyway + again
    # between both bounds a call does what the one before did: find the last that was decided
    decided = low | ~high | first
    value = np.where(first, u < share, low)
    at = np.maximum.accumulate(np.where(decided, np.arange(len(u)), 0))
    return np.asarray(value[at])
