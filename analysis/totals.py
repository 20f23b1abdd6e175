"""What is said of a whole run in one number each: throughput, concurrency, cache, preemptions.

The span is from the first due call to the last end; a call that was never sent does not stretch it.
Where a source does not say when a call ended, it ended with its last token.
A failed call is asked and not served. Tokens are counted, never chunks. Missing is null, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from polars import col

from servescope.analysis import servers
from servescope.analysis.cut import EVERYTHING, Cut
from servescope.analysis.measured import Measured, Part
from servescope.analysis.metrics import ANSWERED
from servescope.analysis.sample import AnyInts, Floats
from servescope.traces.run import Run

ENDED = pl.coalesce("end_s", "last_token_s")
_PLACE = np.int32(2**31 - 1)
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
Unit = Literal["s", "1/s", "tokens/s", "share", "count", "J/token"]


class Whole:
    """A run as a whole, with what several totals need worked out once.

    `run` is None for a table that is no run: its servers are not known then. Of a `part` of the
    `whole` they are known in its window, whatever else it is cut by.
    """

    def __init__(
        self,
        measured: Measured,
        run: Run | None = None,
        whole: Whole | None = None,
        part: Cut = EVERYTHING,
    ) -> None:
        self.measured = measured
        self.whole, self.part = whole, part
        self._samples = run.server if run is not None else None

    @cached_property
    def span_s(self) -> float:
        """Seconds from the first due call to the last end; 0 of nothing."""
        first, end = (
            self.measured.columns("due_s", "end_s", "last_token_s")
            .filter(self.measured.sent)
            .select(first=col("due_s").min(), end=ENDED.max())
            .row(0)
        )
        return 0.0 if first is None or end is None else end - first

    @cached_property
    def served(self) -> pl.DataFrame:
        """The tokens of the calls that were answered."""
        told = [name for name in _TOKENS if name in self.measured.names]
        return self.measured.columns("row", *told).filter(self.measured.answered)

    @cached_property
    def series(self) -> pl.DataFrame | None:
        """What the servers said over time (`servers.over_time`); None where none was asked."""
        if self.whole:
            said = self.whole.series
            return None if said is None else self.part.of_servers(said)
        return None if self._samples is None else servers.over_time(self._samples)

    @cached_property
    def replicas(self) -> list[servers.Summary]:
        """What each replica said of itself; nothing where none was asked."""
        return [] if self.series is None else servers.summaries(self.series)

    @cached_property
    def gpus(self) -> list[servers.Gpu]:
        """What the GPUs of the client's machine did."""
        if self._samples is None:
            return []
        return servers.gpus(self._samples.filter(self.part.window("t_s")))

    @cached_property
    def in_flight(self) -> tuple[Floats, Floats]:
        """When the number of calls in flight changed, and to what."""
        moments, call = self._changes
        return moments, np.cumsum(np.where(call < 0, -1.0, 1.0))

    @cached_property
    def _changes(self) -> tuple[Floats, AnyInts]:
        """When a call began or ended, in order, and its place in `calls`: less 2^31 for an end."""
        if self.whole and isinstance(self.measured, Part):
            moments, call = self.whole._changes
            here = np.flatnonzero(self.measured.chosen.take(call & _PLACE, mode="clip"))
            return moments[here], call[here]
        sent = self.measured.columns("sent_s", "end_s", "last_token_s").select(
            "sent_s", ended=ENDED
        )
        begun, ended = (sent[name].to_numpy() for name in ("sent_s", "ended"))
        known = np.flatnonzero(~np.isnan(begun) & ~np.isnan(ended)).astype(np.int32)
        moments = np.concatenate([ended[known], begun[known]])
        # one that ends makes room for one that begins
        order = np.argsort(moments, kind="stable")
        return moments[order], np.concatenate([known | ~_PLACE, known])[order]

    def per_second(self, count: float) -> float | None:
        """Return a rate over the span; None over no time."""
        return count / self.span_s if self.span_s > 0 else None


@dataclass(frozen=True, slots=True)
class Total:
    """One number of a run: its unit, how it is computed, what it means; None if it is not known."""

    name: str
    label: str
    unit: Unit
    of: Callable[[Whole], float | None]
    says: str
    better: Literal["larger", "smaller"] | None = None


def _cached_share(whole: Whole) -> float | None:
    if "cached_tokens" not in whole.served.columns:
        return None
    told = whole.served.filter(col("cached_tokens").is_not_null())
    asked = int(told["input_tokens"].sum())
    return int(told["cached_tokens"].sum()) / asked if asked else None


def _concurrency(whole: Whole) -> float | None:
    moments, counts = whole.in_flight
    if len(moments) < 2 or moments[-1] == moments[0]:
        return None
    return float(np.dot(counts[:-1], np.diff(moments)) / (moments[-1] - moments[0]))


def _peak(whole: Whole) -> float | None:
    return float(whole.in_flight[1].max()) if len(whole.in_flight[1]) else None


def _of_replicas(
    name: str, join: Callable[[list[float]], float]
) -> Callable[[Whole], float | None]:
    def of(whole: Whole) -> float | None:
        said = [getattr(replica, name) for replica in whole.replicas]
        known = [value for value in said if value is not None]
        return float(join(known)) if known else None

    return of


def _queue(whole: Whole) -> float | None:
    """Return the mean over all calls that replicas counted."""
    told = [(r.queue_mean_s, r.queued) for r in whole.replicas if r.queue_mean_s is not None]
    counted = sum(calls or 0 for _, calls in told)
    return sum(mean * (calls or 0) for mean, calls in told) / counted if counted else None


def _energy(whole: Whole) -> float | None:
    """Return energy over tokens, of everything that was served while it was counted."""
    if whole.part:
        return None  # the energy is of all calls that were there
    known = [gpu.energy_joules for gpu in whole.gpus if gpu.energy_joules is not None]
    served = whole.measured.rows.filter(ANSWERED).select(col("output_tokens").sum())
    tokens = int(served.collect().item())
    return sum(known) / tokens if known and tokens else None


TOTALS: dict[str, Total] = {
    total.name: total
    for total in (
        Total("span", "Span", "s", lambda w: w.span_s, "from the first due call to the last end"),
        Total(
            "calls", "Calls", "count", lambda w: w.measured.height,
            "calls that were asked, failed ones included",
        ),
        Total(
            "failed", "Failed calls", "count",
            lambda w: w.measured.height - w.served.height,
            "calls that were asked and not answered, in whichever way", "smaller",
        ),
        Total(
            "programs", "Programs", "count",
            lambda w: len(w.measured.first_calls),
            "programs that were asked; a call of no program is one by itself",
        ),
        Total(
            "calls_rps", "Served calls", "1/s", lambda w: w.per_second(w.served.height),
            "answered calls over the span", "larger",
        ),
        Total(
            "programs_rps", "Served programs", "1/s",
            lambda w: w.per_second(int((w.measured.programs["failed"] == 0).sum())),
            "programs all of whose calls were answered, over the span", "larger",
        ),
        Total(
            "output_tps", "Output tokens", "tokens/s",
            lambda w: w.per_second(int(w.served["output_tokens"].sum())),
            "tokens of answers over the span", "larger",
        ),
        Total(
            "input_tps", "Input tokens", "tokens/s",
            lambda w: w.per_second(int(w.served["input_tokens"].sum())),
            "tokens of the prompts of answered calls over the span", "larger",
        ),
        Total(
            "total_tps", "All tokens", "tokens/s",
            lambda w: w.per_second(
                int(w.served["output_tokens"].sum()) + int(w.served["input_tokens"].sum())
            ),
            "tokens of prompts and answers over the span", "larger",
        ),
        Total(
            "concurrency_mean", "Calls in flight, mean", "count", _concurrency,
            "calls that were sent and had not ended, on average over time",
        ),
        Total(
            "concurrency_peak", "Calls in flight, peak", "count", _peak,
            "most calls that were sent and had not ended at one moment",
        ),
        Total(
            "cached_share", "Prompt tokens cached", "share", _cached_share,
            "share of prompt tokens that the server took from its prefix cache, as it says call by"
            " call", "larger",
        ),
        Total(
            "prefix_hit_share", "Prefix-cache hits", "share",
            _of_replicas("prefix_hit_share", lambda said: sum(said) / len(said)),
            "share of prompt tokens found in the prefix cache, as the servers' counters say; the"
            " mean over replicas", "larger",
        ),
        Total(
            "queue_mean", "Queue, mean", "s", _queue,
            "mean scheduling delay of calls, as the servers' own histograms say", "smaller",
        ),
        Total(
            "waiting_mean", "Calls waiting, mean", "count", _of_replicas("waiting_mean", sum),
            "calls in the servers' queues, on average over time", "smaller",
        ),
        Total(
            "waiting_peak", "Calls waiting, peak", "count", _of_replicas("waiting_peak", max),
            "most calls in one server's queue that a scrape saw", "smaller",
        ),
        Total(
            "kv_usage_peak", "KV cache in use, peak", "share", _of_replicas("kv_usage_peak", max),
            "largest share of one server's KV cache in use that a scrape saw",
        ),
        Total(
            "preemptions", "Preemptions", "count", _of_replicas("preemptions", sum),
            "calls that servers threw out of their batches, each time", "smaller",
        ),
        Total(
            "energy_per_token", "Energy per output token", "J/token", _energy,
            "energy of the GPUs of the client's machine over the output tokens served, warm-up"
            " included; null where the server runs elsewhere", "smaller",
        ),
    )
}  # fmt: skip


def totals_of(whole: Whole) -> dict[str, float | None]:
    """Return every total of a run by name."""
    return {name: total.of(whole) for name, total in TOTALS.items()}
