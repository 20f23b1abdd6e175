"""The traces of a comparison on equal terms: one clock for all, and the real one in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from servescope.analysis import clock
from servescope.analysis.aspects.prefixes import prompts_of
from servescope.analysis.clock import Tick
from servescope.analysis.demand import Demand
from servescope.analysis.reuse import Reuse
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError
from servescope.traces.reshape import OWN_PROGRAM, forget_lost_parents
from servescope.traces.trace import Trace
from servescope.traces.uses import TICKS_NEEDED

_DAYS_S = 2 * 86_400.0


def coarsest(demands: Sequence[Demand]) -> Tick | None:
    """Return the coarsest tick that any of the traces shows; None where no clock shows one.

    A tick tells a real trace from a synthetic one at a glance, and means nothing.
    """
    ticks = [demand.audit.tick for demand in demands if demand.timed and demand.audit.tick]
    return max(ticks, key=lambda tick: tick.step_s, default=None)


def spread(trace: Trace, tick: Tick | None, seed: int = 0) -> Trace:
    """Return the trace with every arrival drawn anew within its tick, in the order of arrival.

    Stamps that are finer than the tick lose what they say below it, so that traces of coarse and of
    fine clocks become alike. The same seed draws the same for equally many calls.
    """
    if tick is None or not _timed(trace):
        return trace
    calls = trace.collect().sort("arrival_s", nulls_last=True, maintain_order=True)
    return replace(trace, frame=calls.with_columns(_redrawn(calls, tick, seed)).lazy())


def _timed(trace: Trace) -> bool:
    """Whether all calls are on one clock."""
    return "arrival_s" in trace.columns and trace.provenance.arrival_basis == "trace"


def _redrawn(calls: pl.DataFrame, tick: Tick, seed: int) -> pl.Series:
    """Return the arrivals (ascending, nulls last) drawn within their tick."""
    at = calls["arrival_s"]
    drawn = clock.deticked(at.drop_nulls().to_numpy(), tick, np.random.default_rng(seed))
    return pl.Series("arrival_s", drawn).extend_constant(None, at.null_count())


def split(trace: Trace, share: float) -> tuple[Trace, Trace]:
    """Cut a trace in two at a share of its span; of its programs, where each has its own clock.

    Raises InputError for a share that leaves nothing on one side.
    """
    if not 0 < share < 1:
        raise InputError(f"A trace cannot be cut at {share:g}.", "Give a share between 0 and 1.")
    if _timed(trace):
        first, last = (
            trace.frame.select(first=pl.col("arrival_s").min(), last=pl.col("arrival_s").max())
            .collect()
            .row(0)
        )
        middle = (first or 0.0) + share * ((last or 0.0) - (first or 0.0))
        return trace.window(first or 0.0, middle), trace.window(middle)
    own = OWN_PROGRAM if "program_id" in trace.columns else pl.col("call_id")
    calls = trace.collect()
    place = calls.select(own.rank("dense")).to_series()
    early = place <= share * float(place.max() or 0)  # type: ignore[arg-type]
    return (
        replace(trace, frame=forget_lost_parents(calls.filter(early).lazy())),
        replace(trace, frame=forget_lost_parents(calls.filter(~early).lazy())),
    )


@dataclass(frozen=True, eq=False)
class Side:
    """One of the traces of a comparison: its calls, arrivals spread over the tick of all clocks.

    Lengths and arrivals are those of the calls that have all of them, in order of arrival.
    """

    demand: Demand
    finest_s: float

    @classmethod
    def of(cls, demand: Demand, tick: Tick | None, seed: int = 0) -> Side:
        """Put a trace on a clock with this tick."""
        finest_s = TICKS_NEEDED * tick.step_s if tick else 0.0
        if tick is None or not demand.timed:
            return cls(demand, finest_s)
        calls = demand.calls.with_columns(_redrawn(demand.calls, tick, seed))
        return cls(replace(demand, calls=calls), finest_s)

    @property
    def timed(self) -> bool:
        """Whether calls are on one clock, and there are two moments or more."""
        return self.demand.timed and self.demand.span_s > 0

    @property
    def arrivals(self) -> Floats:
        """When calls arrived (s), ascending."""
        return self.demand.arrivals

    @property
    def span_s(self) -> float:
        """From the first arrival to the last."""
        return self.demand.span_s

    @property
    def rate_rps(self) -> float:
        """Calls a second."""
        return (len(self.arrivals) - 1) / self.span_s

    @cached_property
    def gaps(self) -> Floats:
        """Times from one arrival to the next (s); empty unless `timed`."""
        return np.diff(self.arrivals)

    @cached_property
    def lengths(self) -> pl.DataFrame:
        """The calls that say both of their lengths, and when they came."""
        columns = [c for c in ("input_tokens", "output_tokens") if c in self.demand.columns]
        if len(columns) < 2:
            return pl.DataFrame(schema={"input_tokens": pl.Float64, "output_tokens": pl.Float64})
        needed = [*columns, *(["arrival_s"] if self.demand.timed else [])]
        return self.demand.calls.select(pl.col(needed).cast(pl.Float64)).drop_nulls()

    @cached_property
    def reuse(self) -> Reuse:
        """What its prompts find of earlier ones."""
        prompts, _, most = prompts_of(self.demand)
        return Reuse(most).add_all(prompts)

    def column(self, name: str) -> Floats:
        """Return what is known of a column, in order of arrival; empty where nothing is."""
        if name not in self.demand.columns:
            return np.empty(0)
        return self.demand.calls[name].drop_nulls().cast(pl.Float64).to_numpy()

    @property
    def scales(self) -> tuple[float, float]:
        """The shortest and the longest time (s) over which counts are compared.

        From 0.1 s to 300 s, of a trace of days from a minute to a day; no finer than twice the tick
        and than a tenth of a call, three decades where calls are that rare, and no longer than a
        tenth of the span.
        """
        rare_s = 0.1 / self.rate_rps
        if self.span_s >= _DAYS_S:
            least, longest = max(60.0, self.finest_s, rare_s), 86_400.0
        else:
            least, longest = max(0.1, self.finest_s, rare_s), max(300.0, 3000 * rare_s)
        return least, min(longest, self.span_s / 10)
