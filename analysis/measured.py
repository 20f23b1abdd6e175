"""What was measured of one run, worked out once and in bounded memory.

The moments of hundreds of millions of tokens do not fit in memory, so they are read from the run's
file in batches: each call keeps what is one number of it, and gaps go into a `Sample` that is exact
up to some millions of them and right to a twentieth of a percent beyond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.critical_path import with_path
from servescope.analysis.fluidity import fluidity
from servescope.analysis.ideal import with_ideal
from servescope.analysis.intervals import SECTIONS, fewest, of_mean, of_quantile, sections_of
from servescope.analysis.metrics import ANSWERED, CHUNK_IS_TOKEN, METRICS, QUANTILES, of_call
from servescope.analysis.sample import Floats, Ints, Sample
from servescope.traces.run import Run
from servescope.traces.schema import SCHEMA, require
from servescope.traces.trace import Trace

BATCH_CALLS = 10_000
EXACT_VALUES = 4_000_000
# A bucket is a double without its last 42 bits: 1,024 buckets for each power of two, so that its
# middle is at most a twentieth of a percent off. They reach from 2^-40 s to 2^24 s.
_DROPPED_BITS, _LOWEST, _HIGHEST = 42, -40, 24
_BUCKETS = (_HIGHEST - _LOWEST) << 10
_FIRST_KEY = (1023 + _LOWEST) << 10
_LISTS = ("chunk_s", "chunk_tokens")
_NOT_NUMBERS = (*_LISTS, "empty_s", "prefix_blocks")


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
        names = self.rows.collect_schema().names()
        require(names, "status", "due_s", "program_id")  # one column of each group that is needed
        numbers = [name for name in names if name not in _NOT_NUMBERS]
        made = [
            of_call(metric)
            for metric in METRICS.values()
            if metric.per == "call" and set(metric.needs) <= set(names)
        ]
        # a list becomes numbers while it is read, and is not kept
        rows = self.rows.with_row_index("row").select(
            "row", *numbers, *made, chunks=col("chunk_s").list.len()
        )
        calls = (
            rows.with_columns(program_id=pl.coalesce("program_id", "call_id"))
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
        starts = self.calls.group_by("program_id", maintain_order=True).agg(col("due_s").min())
        block = sections_of(starts["due_s"].to_numpy())
        if block is None:
            return starts.select("program_id", block=pl.lit(0, dtype=pl.Int64)), 1
        return starts.select("program_id", block=pl.Series(block)), SECTIONS

    def _samples(
        self, names: Collection[str], owners: pl.DataFrame, blocks: int
    ) -> dict[str, Sample]:
        calls, programs = (
            table.select("program_id")
            .join(owners, on="program_id", how="left", maintain_order="left")["block"]
            .fill_null(-1)
            .to_numpy()
            for table in (self.calls, self.programs)
        )
        found = {}
        if any(METRICS[name].per == "gap" for name in names):
            found = self._gaps(calls, blocks)
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

    def _gaps(self, block: Ints, blocks: int) -> dict[str, Sample]:
        block_of = np.full(int(self.calls["row"].max() or 0) + 1, -1, dtype=np.int64)  # type: ignore[arg-type]
        block_of[self.calls["row"].to_numpy()] = block
        # where a chunk is a token, a gap between chunks is one between tokens
        of_both, of_chunks, of_tokens = (_Tally(blocks) for _ in range(3))
        for batch in self._batches("output_tokens"):
            here = batch["row"].to_numpy()
            owned = batch.with_columns(block=block_of[here.clip(0, len(block_of) - 1)])
            owned = owned.filter((col("row") < len(block_of)) & (col("block") >= 0))
            same = CHUNK_IS_TOKEN.fill_null(False)
            of_both.add(owned.filter(same).select("block", value=METRICS["icl"].expr))
            apart = owned.filter(~same)
            if apart.height:
                of_chunks.add(apart.select("block", value=METRICS["icl"].expr))
                of_tokens.add(apart.select("block", value=METRICS["tbt"].expr))
        both = of_both.sample()
        return {"tbt": _joined(both, of_tokens.sample()), "icl": _joined(both, of_chunks.sample())}

    def fluidity(self, first_s: float, gap_s: float) -> pl.Series:
        """Return the share of token deadlines that each of `calls` met, null where not known."""
        share = np.full(int(self.calls["row"].max() or 0) + 1, np.nan)  # type: ignore[arg-type]
        for batch in self._batches("sent_s", "output_tokens"):
            counts = batch.filter(col("row") < len(share))
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
        tally = _Tally(1)
        for batch in self.chunks(of):
            tally.add(batch.select(block=pl.lit(0, pl.Int64), value=values))
        return tally.sample()

    def where(self, chosen: pl.Expr) -> Measured:
        """Return the measurements of some of the calls."""
        return replace(self, only=chosen if self.only is None else self.only & chosen)

    def _batches(self, *needs: str) -> Iterator[pl.DataFrame]:
        """Read the lists of the answered calls, and the columns that are needed beside them."""
        names = dict.fromkeys(("row", "status", *_LISTS, *needs))
        rows = self.rows.with_row_index("row").select(*names).filter(ANSWERED)
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
                row[label] = of.quantile(q) if len(of) >= fewest(q) else None
                found[label] = of_quantile(of, q)
            row["max"] = of.max()
            for label, interval in found.items():
                row[f"{label}_low"] = interval and interval.low
                row[f"{label}_high"] = interval and interval.high
            rows.append(row)
        numbers = ("mean", *QUANTILES, "max")
        bounds = [f"{each}_{end}" for each in ("mean", *QUANTILES) for end in ("low", "high")]
        schema = {"metric": pl.String, "n": pl.Int64}
        return pl.DataFrame(rows, {**schema, **dict.fromkeys((*numbers, *bounds), pl.Float64)})


class _Tally:
    """Values on their way to a sample: as they are while they are few, then counted in buckets."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._held: list[tuple[Floats, Ints]] = []
        self._size = 0
        self._counts: Ints | None = None

    def add(self, lists: pl.DataFrame) -> None:
        """Take a list of values a row, and the block of each row."""
        lists = lists.filter(col("value").list.len() > 0)
        block = lists["block"].to_numpy().repeat(lists["value"].list.len().to_numpy())
        flat = lists["value"].explode()
        if flat.null_count():
            known = flat.is_not_null().to_numpy()
            block, flat = block[known], flat.drop_nulls()
        self._held.append((flat.to_numpy(), block))
        self._size += len(flat)
        if self._counts is not None or self._size > EXACT_VALUES:
            self._count()

    def _count(self) -> None:
        if self._counts is None:
            self._counts = np.zeros(self._blocks * (_BUCKETS + 1), dtype=np.int64)
        for values, block in self._held:
            key = np.maximum(values, 0.0).view(np.int64)
            key >>= _DROPPED_BITS
            key -= _FIRST_KEY - 1
            np.clip(key, 0, _BUCKETS, out=key)  # the first bucket holds what is no time at all
            if self._blocks > 1:
                key += block * (_BUCKETS + 1)
            self._counts += np.bincount(key, minlength=len(self._counts))
        self._held.clear()

    def sample(self) -> Sample:
        if self._counts is None:
            values = np.concatenate([np.empty(0), *(v for v, _ in self._held)])
            block = np.concatenate([np.empty(0, np.int64), *(b for _, b in self._held)])
            return Sample.of(values, block, self._blocks)
        places = np.flatnonzero(self._counts)
        block, key = np.divmod(places, _BUCKETS + 1)
        low = (key - 1 + _FIRST_KEY) << _DROPPED_BITS
        middle = (low + (1 << (_DROPPED_BITS - 1))).view(np.float64)
        values = np.where(key == 0, 0.0, middle)
        return Sample.of(values, block, self._blocks, self._counts[places])


def _joined(a: Sample, b: Sample) -> Sample:
    """Put two samples of the same blocks into one."""
    if not len(b.values):
        return a
    return Sample.of(
        np.concatenate([a.values, b.values]),
        np.concatenate([a.block, b.block]),
        a.blocks,
        np.concatenate([a.weights, b.weights]),
    )
