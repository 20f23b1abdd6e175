"""What a trace asks for, as one compact table in memory, in the order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from polars import col

from servescope.analysis import clock
from servescope.analysis.clock import Audit
from servescope.analysis.sample import Floats, Ints
from servescope.analysis.seasons import DAY_S, HOUR_S
from servescope.traces.provenance import Provenance
from servescope.traces.status import OK
from servescope.traces.trace import Trace

# Names become numbers, so that ten million rows take some 40 bytes each.
_COLUMNS: dict[str, pl.Expr] = {
    "arrival_s": col("arrival_s"),
    "input_tokens": col("input_tokens").cast(pl.Int32),
    "output_tokens": col("output_tokens").cast(pl.Int32),
    "model": col("model").cast(pl.Categorical),
    "call_class": col("call_class").cast(pl.Categorical),
    "client_id": col("client_id").cast(pl.Categorical),
    "program_id": pl.when(col("program_id").is_not_null()).then(col("program_id").hash()),
    "turn": col("turn").cast(pl.Int32),
    "delay_s": col("delay_s"),
    "delay_kind": col("delay_kind").cast(pl.Categorical),
    "status": col("status").cast(pl.Categorical),
    "observed_e2e_s": col("observed_e2e_s").cast(pl.Float32),
}


_SEED = 7  # of what is drawn within a tick


@dataclass(frozen=True)
class Demand:
    """The calls of a trace with what an analysis needs of them; programs are named by hashes.

    `calls` are in order of arrival where all calls are on one clock (`timed`), else as they stand
    in the source. A column that says nothing is not there, so `count` says how many calls there
    are. `out_of_order` counts the calls that the source has after a later one.
    """

    trace: Trace
    calls: pl.DataFrame
    count: int
    timed: bool
    out_of_order: int

    @classmethod
    def of(cls, trace: Trace) -> Demand:
        """Read a trace into memory; raises BadRow for rows that make no sense."""
        wanted = {name: how for name, how in _COLUMNS.items() if name in trace.columns}
        read = list(wanted)
        if {"sent_s", "end_s"} <= set(trace.columns):  # a run: how long calls stayed was measured
            wanted["observed_e2e_s"] = (col("end_s") - col("sent_s")).cast(pl.Float32)
            read += ["sent_s", "end_s"]
        there = list(wanted)
        parts = [
            batch.select(how.alias(name) for name, how in wanted.items())
            for batch in trace.batches(*read)
        ]
        count = sum(part.height for part in parts)
        # column by column, so that nothing but one column is there twice
        columns = []
        for name in there if parts else ():
            column = pl.concat([part.drop_in_place(name) for part in parts], rechunk=True)
            if column.null_count() < len(column):
                columns.append(column)
        calls = pl.DataFrame(columns)
        timed = "arrival_s" in calls.columns and trace.provenance.arrival_basis == "trace"
        back = 0
        if timed:
            at = calls["arrival_s"].drop_nulls().to_numpy()
            back = int((at[1:] < at[:-1]).sum())
            if back or calls["arrival_s"].null_count():
                calls = calls.sort("arrival_s", nulls_last=True, maintain_order=True)
        return cls(trace, calls, count, timed, back)

    def __len__(self) -> int:
        """How many calls."""
        return self.count

    @property
    def about(self) -> Provenance:
        """Where the trace came from."""
        return self.trace.provenance

    @property
    def columns(self) -> list[str]:
        """The columns that say something."""
        return self.calls.columns

    @cached_property
    def arrivals(self) -> Floats:
        """When calls arrived (s), ascending: shape (n,), empty unless `timed`."""
        if not self.timed:
            return pl.Series([], dtype=pl.Float64).to_numpy()
        return self.calls["arrival_s"].drop_nulls().to_numpy()

    @cached_property
    def placed(self) -> pl.DataFrame:
        """The calls that `arrivals` are of, row by row; none unless `timed`."""
        return self.calls.head(len(self.arrivals))

    @property
    def span_s(self) -> float:
        """From the first arrival to the last; 0 of fewer than two, or unless `timed`."""
        at = self.arrivals
        return float(at[-1] - at[0]) if len(at) > 1 else 0.0

    @cached_property
    def audit(self) -> Audit:
        """What the stamps show; where programs have a clock each, all of them together."""
        stamps = self.arrivals
        if not self.timed and "arrival_s" in self.columns:
            stamps = self.calls["arrival_s"].drop_nulls().sort().to_numpy()
        return clock.audit(
            stamps,
            declared_s=self.about.tick_s if len(stamps) else None,
            unit=self.about.units,
            out_of_order=self.out_of_order if self.timed else None,
            duplicates=self._duplicates() if self.timed else None,
        )

    @property
    def finest_s(self) -> float:
        """Smallest time scale of which anything may be said; 0 for a fine clock."""
        return self.audit.finest_s

    def stretches(self, most: int) -> int:
        """Return into how many equal stretches of time the span may be cut, at most so many."""
        if not self.finest_s:
            return most
        return max(1, min(most, int(self.span_s / self.finest_s)))

    def _duplicates(self) -> int:
        """Count calls that repeat one before; only those that share their stamp can."""
        at = self.calls["arrival_s"]
        shared = (at == at.shift(1)) | (at == at.shift(-1))
        hashes = self.calls.filter(shared.fill_null(False)).hash_rows()
        return len(hashes) - hashes.n_unique()

    @cached_property
    def deticked(self) -> list[Floats]:
        """The arrivals spread over the tick of their clock, drawn several times if they are few."""
        return clock.draws_of(self.arrivals, self.audit.tick, _SEED)

    def hours(self, moments: Floats) -> Ints:
        """Return the hour of the day of moments (s): on the source's clock, or from its zero."""
        since_zero = moments + (self.about.t0_ns or 0) / 1e9
        return (since_zero % DAY_S // HOUR_S).astype(np.int64)

    @cached_property
    def failed(self) -> pl.Series | None:
        """Whether each call failed; None where the trace does not say, null where a call does not.

        A call counts as known if its status is not `unknown`.
        """
        if "status" not in self.columns:
            return None
        status = self.calls["status"].cast(pl.String)
        known = self.calls.select(
            pl.when(status.is_not_null() & (status != "unknown")).then(status != OK).alias("failed")
        )["failed"]
        return known if known.null_count() < len(known) else None
