"""What has come back so far, counted as it is written down: a run in progress in a few numbers."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.buckets import Buckets
from servescope.analysis.metrics import ANSWERED, CHUNK_IS_TOKEN, METRICS, of_call
from servescope.analysis.sample import Floats
from servescope.traces.status import OK

TIMES = ("ttft", "ttft_due", "tpot", "e2e", "lag", "connect")  # one value a call
_JCT, _TBT = METRICS["jct"], METRICS["tbt"]
FOLLOWED = ("status", *_JCT.needs)  # what is kept of calls whose program goes on
_RECENT = 2000
_MADE = [
    "sent_s",
    "end_s",
    *(of_call(METRICS[name]) for name in TIMES),
    METRICS["icl"].expr.alias("icl"),
    # of such calls TBT is ICL, in a quarter of the time
    (ANSWERED & CHUNK_IS_TOKEN.fill_null(False)).alias("one"),
    *(pl.when(ANSWERED).then(col(name)).alias(name) for name in ("input_tokens", "output_tokens")),
]


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
        made = rows.select(_MADE)  # at once: each question more costs as much as its answer
        self.input_tokens += int(made["input_tokens"].sum())
        self.output_tokens += int(made["output_tokens"].sum())
        for name in TIMES:
            self.times[name].add(_known(made[name]))
        self.recent_lag_s.extend(_known(made["lag"]).tolist())
        self.gaps.add(_pooled(made["icl"]))
        one = made["one"]
        self.times["tbt"].add(_pooled(made["icl"].filter(one)))
        if not one.all():
            self.times["tbt"].add(_pooled(rows.filter(~one).select(of_call(_TBT)).to_series()))
        self.times["jct"].add(_known(self.follow(rows)))
        self._stretch(made["sent_s"].to_numpy(), made["end_s"].to_numpy())

    def _stretch(self, sent_s: Floats, end_s: Floats) -> None:
        both = ~np.isnan(sent_s + end_s)
        if both.any():
            first_s, last_s = float(sent_s[both].min()), float(end_s[both].max())
            before = self._span_s or (first_s, last_s)
            self._span_s = min(before[0], first_s), max(before[1], last_s)

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


def _pooled(lists: pl.Series) -> Floats:
    return _known(lists.explode(empty_as_null=False))


def _known(values: pl.Series) -> Floats:
    """Return what is not null: numpy does it in a tenth of the time, on so few values."""
    found: Floats = values.cast(pl.Float64).to_numpy()
    return found[~np.isnan(found)]
