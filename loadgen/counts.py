"""What has come back so far, counted as it is written down: a run in progress in a few numbers."""

from __future__ import annotations

from collections import Counter, deque

import polars as pl
from polars import col

from servescope.analysis.buckets import Buckets
from servescope.analysis.metrics import ANSWERED, METRICS, of_call
from servescope.traces.status import OK

TIMES = ("ttft", "ttft_due", "tpot", "e2e", "lag", "connect")  # one value a call
_JCT = METRICS["jct"]
FOLLOWED = ("status", *_JCT.needs)  # what is kept of calls whose program goes on
_RECENT = 2000


class Counts:
    """How the calls of a run have ended, how long they took, and how long programs that are done.

    `plan` says how many calls each program has. Calls of the warm-up count, too.
    """

    def __init__(self, plan: pl.DataFrame) -> None:
        several = plan["program_id"].value_counts().filter(col("count") > 1)
        self.statuses: Counter[str] = Counter()
        self.input_tokens = 0  # of answered calls, as all that follows but lag and connect
        self.output_tokens = 0
        self.times = {name: Buckets() for name in (*TIMES, "tbt", "jct")}
        self.gaps = Buckets()  # between chunks, of failed calls too: what late stamps would blur
        self.recent_lag_s: deque[float] = deque(maxlen=_RECENT)
        self._span_s: tuple[float, float] | None = None
        self._left: dict[str, int] = dict(several.iter_rows())
        self._open: dict[str, list[tuple[object, ...]]] = {}

    @property
    def failures(self) -> dict[str, int]:
        """How many calls failed, by status."""
        return {status: count for status, count in self.statuses.items() if status != OK}

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens a second, from the first call that was sent to the last that ended."""
        if self._span_s is None or self._span_s[1] <= self._span_s[0]:
            return None
        return self.output_tokens / (self._span_s[1] - self._span_s[0])

    def take(self, rows: pl.DataFrame) -> None:
        """Count calls that have ended, in canonical columns."""
        self.statuses.update(rows["status"].to_list())
        tokens = rows.filter(ANSWERED).select(col("input_tokens", "output_tokens").sum())
        self.input_tokens += tokens.item(0, 0)
        self.output_tokens += tokens.item(0, 1)
        made = rows.select(of_call(METRICS[name]) for name in TIMES)
        for name in TIMES:
            self.times[name].add(made[name].drop_nulls().to_numpy())
        self.recent_lag_s.extend(made["lag"].drop_nulls())
        for gaps, values in (
            (self.times["tbt"], of_call(METRICS["tbt"])),
            (self.gaps, METRICS["icl"].expr),
        ):
            pooled = rows.select(values.explode()).to_series().drop_nulls()
            gaps.add(pooled.cast(pl.Float64).to_numpy())
        done = self.follow(rows)
        self.times["jct"].add(done.drop_nulls().to_numpy())
        self._stretch(rows.select("sent_s", "end_s").drop_nulls())

    def _stretch(self, moments: pl.DataFrame) -> None:
        if not moments.is_empty():
            sent_s, end_s = moments["sent_s"].to_list(), moments["end_s"].to_list()
            first_s, last_s = self._span_s or (sent_s[0], end_s[0])
            self._span_s = min(first_s, *sent_s), max(last_s, *end_s)

    def follow(self, rows: pl.DataFrame) -> pl.Series:
        """Take calls of programs, and return JCT of those that have ended with them.

        It is null of a program of which a call failed.
        """
        whole: list[tuple[object, ...]] = []
        for row in rows.select(FOLLOWED).iter_rows():
            program = row[1]
            left = self._left.get(program, 1) - 1
            if left:
                self._left[program] = left
                self._open.setdefault(program, []).append(row)
            else:
                self._left.pop(program, None)
                whole += (*self._open.pop(program, ()), row)
        schema = {name: rows.schema[name] for name in FOLLOWED}
        calls = pl.DataFrame(whole, schema=schema, orient="row")
        return calls.group_by("program_id").agg(jct=_JCT.expr)["jct"]
