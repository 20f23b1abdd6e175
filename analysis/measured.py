"""What was measured of one run, worked out once and in bounded memory.

The moments of hundreds of millions of tokens do not fit in memory, so they are read from the run's
file in batches: each call keeps what is one number of it, and gaps go into a `Sample` that is exact
up to some millions of them and right to a twentieth of a percent beyond.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.critical_path import with_path
from servescope.analysis.cut import Cut
from servescope.analysis.fluidity import fluidity
from servescope.analysis.gaps import Gaps, Tally
from servescope.analysis.ideal import with_ideal
from servescope.analysis.intervals import SECTIONS, bounded, of_mean, of_quantiles, sections_of
from servescope.analysis.metrics import ANSWERED, METRICS, QUANTILES, of_call
from servescope.analysis.sample import Ints, Sample
from servescope.traces.run import Run
from servescope.traces.schema import SCHEMA, require
from servescope.traces.trace import Trace

BATCH_CALLS = 10_000
_THREADS = 4  # more have nothing to do: one reads
_LISTS = ("chunk_s", "chunk_tokens")
_NOT_NUMBERS = (*_LISTS, "empty_s", "prefix_blocks")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Measured:
    """The measurements of a run's rows.

    Programs that began before `since_s` are left out, and so are calls that are not `only`.
    """

    rows: pl.LazyFrame
    since_s: float = 0.0
    only: pl.Expr | None = None

    @classmethod
    def of(cls, run: Run | Trace) -> Measured:
        """Measure a run without its warm-up, or any table that holds the columns of service."""
        if isinstance(run, Run):
            return cls(run.rows, run.info.warmup_s)
        return cls(run.frame)

    @cached_property
    def calls(self) -> pl.DataFrame:
        """One row a call in the order of due times: its columns and every metric of calls.

        Lists of chunks are left out; `chunks` says how many there were, and `row` where the call
        stands in `rows`. A call of no program is one by itself.
        """
        return self.asked.with_columns(self._of_chunks)

    @cached_property
    def asked(self) -> pl.DataFrame:
        """The calls without what is made of their chunks, which takes the longest to read."""
        names = self.rows.collect_schema().names()
        require(names, "status", "due_s", "program_id")  # one column of each group that is needed
        numbers = [name for name in names if name not in _NOT_NUMBERS]
        made = [
            of_call(metric)
            for metric in METRICS.values()
            if metric.per == "call"
            and set(metric.needs) <= set(names)
            and not set(metric.needs) & set(_LISTS)
        ]
        calls = (
            self.rows.with_row_index("row")
            .select("row", *numbers, *made)
            .with_columns(program_id=pl.coalesce("program_id", "call_id"))
            .sort("due_s", "call_id", nulls_last=True)
            .collect(engine="streaming")
        )
        if self.since_s:
            calls = calls.filter(col("due_s").min().over("program_id") >= self.since_s)
        return calls if self.only is None else calls.filter(self.only)

    @cached_property
    def programs(self) -> pl.DataFrame:
        """One row a program: program_id, calls, failed calls, due_s of its first, its metrics."""
        return (
            with_ideal(with_path(self.calls))
            .group_by("program_id", maintain_order=True)
            .agg(
                calls=pl.len(),
                failed=(~ANSWERED).sum(),
                due_s=col("due_s").min(),
                **{m.name: m.expr for m in METRICS.values() if m.per == "program"},
            )
        )

    def values(self, name: str) -> pl.DataFrame:
        """Return the values of a metric of calls or programs: program_id, value, without nulls."""
        table = self.programs if METRICS[name].per == "program" else self.calls
        return table.select("program_id", value=self._column(name)).drop_nulls("value")

    def samples(
        self,
        names: Collection[str] = tuple(METRICS),
        owners: pl.DataFrame | None = None,
        blocks: int = 1,
    ) -> dict[str, Sample]:
        """Return the values of metrics by name, in the run's own sections or in those of `owners`.

        `owners` holds program_id and block, each in [0, blocks); values of programs that it lacks
        are left out. The file is read once for all metrics of gaps.
        """
        if owners is None:
            return {name: self.distributions[name] for name in names}
        return self._samples(names, owners, blocks)

    def sample(self, name: str, owners: pl.DataFrame | None = None, blocks: int = 1) -> Sample:
        """Return the values of one metric, as `samples` does."""
        if owners is not None or METRICS[name].per == "gap":
            return self.samples((name,), owners, blocks)[name]
        return self._samples((name,), *self.sections)[name]

    @cached_property
    def distributions(self) -> dict[str, Sample]:
        """Every metric's values, in the sections of the run's time."""
        return self._samples(tuple(METRICS), *self.sections)

    @cached_property
    def sections(self) -> tuple[pl.DataFrame, int]:
        """The section of each program (program_id, block) and their number; 1 for few programs."""
        starts = self.asked.group_by("program_id", maintain_order=True).agg(col("due_s").min())
        block = sections_of(starts["due_s"].to_numpy())
        if block is None:
            return starts.select("program_id", block=pl.lit(0, dtype=pl.Int64)), 1
        return starts.select("program_id", block=pl.Series(block)), SECTIONS

    def _samples(
        self, names: Collection[str], owners: pl.DataFrame, blocks: int
    ) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        if any(METRICS[name].per == "gap" for name in names):
            own = owners is self.sections[0]
            made, gaps = self._own if own else self._read(owners, blocks)
            self.__dict__.setdefault("_of_chunks", made)  # the same whoever owns: read once
            found |= gaps
        calls, programs = (_block_of(table, owners) for table in (self.calls, self.programs))
        for name in names:
            if name not in found:
                of_programs = METRICS[name].per == "program"
                found[name] = self._sample(name, programs if of_programs else calls, blocks)
        return {name: found[name] for name in names}

    def _sample(self, name: str, block: Ints, blocks: int) -> Sample:
        values = self._column(name).to_numpy()
        known = (block >= 0) & ~np.isnan(values)
        return Sample.of(values[known], block[known] if blocks > 1 else None, blocks)

    def _column(self, name: str) -> pl.Series:
        """Return a metric of calls or programs, null where there is no value."""
        metric = METRICS[name]
        table = self.programs if metric.per == "program" else self.calls
        if name not in table.columns:
            require(table.columns, *metric.needs)
        return table[name].cast(pl.Float64)

    @cached_property
    def _own(self) -> tuple[pl.DataFrame, dict[str, Sample]]:
        """What is read of the chunks in the sections of the run's time."""
        return self._read(*self.sections)

    @cached_property
    def _of_chunks(self) -> pl.DataFrame:
        """What is made of the chunks of each call, in the order of `asked`."""
        return self._own[0]

    def _read(self, owners: pl.DataFrame, blocks: int) -> tuple[pl.DataFrame, dict[str, Sample]]:
        """Read the chunks of all calls: what is made of each, and the gaps by who owns the call."""
        block = _block_of(self.asked, owners)
        rows = self.asked["row"].to_numpy().astype(np.int64)
        place = np.full(int(rows.max()) + 1 if len(rows) else 0, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        stall = np.full(len(rows), np.nan)
        count = np.full(len(rows), -1, dtype=np.int64)

        def digest(batch: pl.DataFrame, gaps: Gaps) -> None:
            row = batch["row"].to_numpy()
            at = place[row.clip(0, max(0, len(place) - 1))] if len(place) else row.astype(np.int64)
            chosen = (row < len(place)) & (at >= 0)
            if not chosen.all():
                batch, at = batch.filter(chosen), at[chosen]
            count[at] = batch["chunk_s"].list.len().fill_null(-1).to_numpy()
            stall[at] = gaps.add(batch, block[at])

        together = Gaps(blocks)
        for gaps in _in_threads(digest, self._batches("output_tokens"), lambda: Gaps(blocks)):
            together.join(gaps)
        made = pl.DataFrame(
            {
                "stall": pl.Series(stall).fill_nan(None),
                "chunks": pl.Series(count).replace(-1, None).cast(pl.UInt32),
            }
        )
        return made, together.samples()

    def fluidity(self, first_s: float, gap_s: float) -> pl.Series:
        """Return the share of token deadlines that each of `calls` met, null where not known."""
        asked = first_s, gap_s
        if asked not in self._fluidity:
            self._fluidity[asked] = self._read_fluidity(first_s, gap_s)
        return self._fluidity[asked]

    @cached_property
    def _fluidity(self) -> dict[tuple[float, float], pl.Series]:
        """What was read of the deadlines that were asked so far."""
        return {}

    def _read_fluidity(self, first_s: float, gap_s: float) -> pl.Series:
        share = np.full(int(self.calls["row"].max() or 0) + 1, np.nan)  # type: ignore[arg-type]
        for batch in self._batches("sent_s", "output_tokens"):
            counts = batch.filter(ANSWERED & (col("row") < len(share)))
            share[counts["row"].to_numpy()] = fluidity(counts, first_s, gap_s).to_numpy()
        return pl.Series("fluidity", share[self.calls["row"].to_numpy()]).fill_nan(None)

    def lists(self, *beside: str) -> pl.LazyFrame:
        """Return chunk_s, chunk_tokens and empty_s by `row`, and the columns that are asked beside.

        They are null where the run holds none; no call is left out.
        """
        return self._lists(self.rows.with_row_index("row"), *beside)

    @staticmethod
    def _lists(rows: pl.LazyFrame, *beside: str) -> pl.LazyFrame:
        names = rows.collect_schema().names()
        return rows.select(
            "row",
            *(
                col(name) if name in names else pl.lit(None, SCHEMA[name]).alias(name)
                for name in (*_LISTS, "empty_s", *beside)
            ),
        )

    def chunks(self, of: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Read the lists of calls, some thousands of calls at a time, in no order.

        `of` says which calls by `row`; its other columns stand beside the lists.
        """
        for batch in self.lists().collect_batches(chunk_size=BATCH_CALLS, maintain_order=False):
            yield batch.join(of, on="row")

    def chunks_in_order(self, of: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Read the lists of calls as `chunks` does, in the order of `of`."""
        for part in of.iter_slices(BATCH_CALLS):
            at = part["row"].to_numpy()
            # calls that are due after each other end near each other, so this is a stretch of rows
            first, count = int(at.min()), int(at.max() - at.min()) + 1
            near = self.rows.slice(first, count).with_row_index("row", offset=first)
            rows = self._lists(near).filter(col("row").is_in(part["row"].implode()))
            lists = rows.collect(engine="streaming")
            yield part.join(lists, on="row", how="left", maintain_order="left")

    def pooled(self, values: pl.Expr, of: pl.DataFrame) -> Sample:
        """Return what a list made of the chunks of each call holds, of all calls of `of` pooled.

        It is exact up to some millions of values, as the gaps of the run's own metrics are.
        """
        tally = Tally(1)
        for batch in self.chunks(of):
            tally.add_lists(batch.select(values).to_series(), np.zeros(batch.height, np.int64))
        return tally.sample()

    def where(self, chosen: pl.Expr) -> Measured:
        """Return the measurements of some of the calls."""
        return replace(self, only=chosen if self.only is None else self.only & chosen)

    def cut(self, cut: Cut) -> Measured:
        """Return the measurements of a part of the run, all of it for the cut that leaves none out.

        Raises InputError for what the run does not know.
        """
        return self.where(cut.chosen(self.asked.columns)) if cut else self

    def _batches(self, *needs: str) -> Iterator[pl.DataFrame]:
        """Read the lists of the calls, and the columns that are needed beside them."""
        names = dict.fromkeys(("row", "status", *_LISTS, *needs))
        rows = self.rows.with_row_index("row").select(*names)
        yield from rows.collect_batches(chunk_size=BATCH_CALLS, maintain_order=False)

    @cached_property
    def summary(self) -> pl.DataFrame:
        """One row a metric: name, n, mean, p50, p90, p99, max; `_low` and `_high` of all but max.

        A quantile is an order statistic: the smallest value with its share at or below it. It is
        null of fewer values than it needs (`intervals.fewest`), and its interval where there are
        too few programs for sections.
        """
        rows: list[dict[str, object]] = []
        for name, of in self.distributions.items():
            row: dict[str, object] = {"metric": name, "n": len(of), "mean": of.mean()}
            found = {"mean": of_mean(of)}
            for label, q in QUANTILES.items():
                row[label] = bounded(of, q)
            found |= zip(QUANTILES, of_quantiles(of, tuple(QUANTILES.values())), strict=True)
            row["max"] = of.max()
            for label, interval in found.items():
                row[f"{label}_low"] = interval and interval.low
                row[f"{label}_high"] = interval and interval.high
            rows.append(row)
        numbers = ("mean", *QUANTILES, "max")
        bounds = [f"{each}_{end}" for each in ("mean", *QUANTILES) for end in ("low", "high")]
        schema = {"metric": pl.String, "n": pl.Int64}
        return pl.DataFrame(rows, {**schema, **dict.fromkeys((*numbers, *bounds), pl.Float64)})


def _block_of(table: pl.DataFrame, owners: pl.DataFrame) -> Ints:
    """Return the block of each row's program, -1 for one that `owners` lacks: shape (rows,)."""
    joined = table.select("program_id").join(
        owners, on="program_id", how="left", maintain_order="left"
    )
    return joined["block"].fill_null(-1).to_numpy().astype(np.int64)


def _in_threads(
    work: Callable[[pl.DataFrame, T], None], batches: Iterator[pl.DataFrame], make: Callable[[], T]
) -> list[T]:
    """Do work on every batch, on all cores, and return what the threads made it into, one each.

    What works on columns lets other threads run; a batch is read only when a thread is free for it.
    """
    free: SimpleQueue[T] = SimpleQueue()
    made = [make() for _ in range(min(_THREADS, os.cpu_count() or 1))]
    for mine in made:
        free.put(mine)

    def done(batch: pl.DataFrame, mine: T) -> None:
        try:
            work(batch, mine)
        finally:
            free.put(mine)

    with ThreadPoolExecutor(len(made)) as pool:
        doing = [pool.submit(done, batch, free.get()) for batch in batches]
    for work_done in doing:
        work_done.result()
    return made
