"""What a reader should know and doubt about a trace before believing a number drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from servescope.traces import structure
from servescope.traces.status import OK
from servescope.traces.structure import Structure
from servescope.traces.trace import Trace
from servescope.traces.uses import Use, uses

# The finest step that is looked for between arrivals: Azure's, the finest of all public traces.
FINEST_S = 1e-7
TIED = 0.05
_NOT_OF_A_CALL = ("call_id", "source_row", "content_ref")
_AT_MOST = {  # the part and the whole
    "observed_cached_tokens": "input_tokens",
    "observed_reasoning_tokens": "output_tokens",
    "observed_ttft_s": "observed_e2e_s",
    "observed_queue_s": "observed_e2e_s",
}


@dataclass(frozen=True, slots=True)
class Quality:
    """Counts of what is odd in a trace.

    `span_s` is the last less the first arrival, `tied_share` the share of gaps that are 0,
    `largest_gap_s` the longest time without an arrival and `largest_gap_at_s` when it began.
    `resolution_s` is the coarsest step that all arrivals are whole multiples of, not looked for
    below 100 ns. A call outside every program counts as a program of its own. `duplicates` counts
    calls that equal an earlier one of the same moment in every column. `missing` counts nulls by
    column, `inconsistent` rows that contradict themselves, by what they say. `structure` is None
    where calls name neither programs nor parents.
    """

    calls: int
    programs: int | None
    span_s: float | None
    tied_share: float | None
    out_of_order: int
    no_input: int
    no_output: int
    failed: int
    doubts: tuple[str, ...]
    resolution_s: float | None = None
    largest_gap_s: float | None = None
    largest_gap_at_s: float | None = None
    duplicates: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    inconsistent: dict[str, int] = field(default_factory=dict)
    structure: Structure | None = None
    uses: tuple[Use, ...] = ()


def inspect(trace: Trace) -> Quality:
    """Audit a trace in one pass over its rows, and another over its links where it has some."""
    count = _Count(trace)
    for batch in trace.batches():
        count.add(batch)
    return count.quality(structure.of(trace))


class _Count:
    """Adds up what every batch shows; memory does not grow with the rows."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        there = set(trace.columns)
        self.compared = [c for c in trace.columns if c not in _NOT_OF_A_CALL]
        self.parts = [(p, w) for p, w in _AT_MOST.items() if {p, w} <= there]
        self.calls = self.failed = self.duplicates = 0
        self.nulls = dict.fromkeys(trace.columns, 0)
        self.zeros = {"input_tokens": 0, "output_tokens": 0}
        self.inconsistent: dict[str, int] = {}
        self.unplaced = self.gaps = self.tied = self.back = self.steps = 0
        self.first, self.last = np.inf, -np.inf
        self.largest = 0.0
        self.largest_at: float | None = None
        self.before: float | None = None
        self.tail: pl.Series | None = None

    def add(self, batch: pl.DataFrame) -> None:
        """Count one batch."""
        self.calls += batch.height
        for name in self.nulls:
            self.nulls[name] += batch[name].null_count()
        for name in self.zeros:
            self.zeros[name] += int((batch[name] == 0).sum())
        if "status" in batch.columns:
            failed = batch["status"].is_not_null() & (batch["status"] != OK)
            self.failed += int(failed.sum())
        for part, whole in self.parts:
            more = int((batch[part] > batch[whole]).sum())
            if more:
                said = f"{part} is more than {whole}"
                self.inconsistent[said] = self.inconsistent.get(said, 0) + more
        placed = [batch[c].is_not_null() for c in ("arrival_s", "parents") if c in batch.columns]
        if placed:
            self.unplaced += int((~(placed[0] | placed[-1])).sum())
        if "arrival_s" in batch.columns:
            self._add_arrivals(batch["arrival_s"].drop_nulls().to_numpy())
            self._add_duplicates(batch)

    def _add_arrivals(self, arrivals: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        if not arrivals.size:
            return
        if self.before is not None:
            arrivals = np.concatenate(([self.before], arrivals))
        gaps = np.diff(arrivals)
        self.gaps += gaps.size
        self.tied += int((gaps == 0).sum())
        self.back += int((gaps < 0).sum())
        if gaps.size and gaps.max() > self.largest:
            self.largest = float(gaps.max())
            self.largest_at = float(arrivals[gaps.argmax()])
        self.first = min(self.first, float(arrivals.min()))
        self.last = max(self.last, float(arrivals.max()))
        self.steps = common_step(arrivals, self.steps)
        self.before = float(arrivals[-1])

    def _add_duplicates(self, batch: pl.DataFrame) -> None:
        """Count equal rows; they share their moment, so those of the last one are carried on."""
        hashes = batch.select(self.compared).hash_rows()
        at = batch["arrival_s"]
        seen = hashes if self.tail is None else pl.concat([self.tail, hashes])
        self.duplicates += _repeats(seen) - (0 if self.tail is None else _repeats(self.tail))
        self.tail = hashes.filter(at.eq_missing(at.last())) if len(at) else None

    def quality(self, found: Structure | None) -> Quality:
        """Say what was counted."""
        some = np.isfinite(self.first)
        quality = Quality(
            calls=self.calls,
            programs=self._programs(found),
            span_s=self.last - self.first if some else None,
            tied_share=self.tied / self.gaps if self.gaps else None,
            out_of_order=self.back,
            no_input=self.nulls["input_tokens"] + self.zeros["input_tokens"],
            no_output=self.nulls["output_tokens"] + self.zeros["output_tokens"],
            failed=self.failed,
            doubts=(),
            resolution_s=self.steps * FINEST_S if self.steps > 1 else None,
            largest_gap_s=self.largest if self.largest_at is not None else None,
            largest_gap_at_s=self.largest_at,
            duplicates=self.duplicates,
            missing=self.nulls,
            inconsistent=self.inconsistent,
            structure=found,
        )
        doubts = (*self.trace.provenance.doubts, *self._doubts(quality))
        return replace(quality, doubts=doubts, uses=uses(self.trace, quality))

    def _programs(self, found: Structure | None) -> int | None:
        if found is None or not found.programs:
            return None
        return found.programs + self.calls - found.in_programs

    def _doubts(self, quality: Quality) -> Iterator[str]:
        said = self.trace.provenance.doubts
        tied = quality.tied_share or 0.0
        if tied > TIED and not any("stamp" in doubt for doubt in said):
            yield f"{tied:.0%} of the arrivals share a stamp with the one before."
        if quality.no_input:
            yield f"{quality.no_input} calls have no input tokens; a replay cannot send them."
        if self.unplaced:
            yield f"{self.unplaced} calls say neither when they arrive nor what they wait for."
        for problem, count in self.inconsistent.items():
            yield f"In {count} calls {problem}."
        if quality.structure is not None:
            yield from structure.doubts(quality.structure)


def common_step(arrivals: np.ndarray[tuple[int], np.dtype[np.float64]], steps: int = 0) -> int:
    """Return of how many FINEST_S all arrivals (s), and `steps`, are multiples; 0 of nothing."""
    ticks = np.rint(arrivals / FINEST_S).astype(np.int64)
    if steps and not (ticks % steps).any():
        return steps
    return int(np.gcd.reduce(ticks, initial=steps))


def _repeats(hashes: pl.Series) -> int:
    return len(hashes) - hashes.n_unique()
