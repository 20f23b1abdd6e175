"""What was measured of one run, worked out once and in bounded memory.

The moments of hundreds of millions of tokens do not fit in memory, so they are read from the run's
file in batches: each call keeps what is one number of it, and gaps go into a `Sample` that is exact
up to some millions of them and right to a twentieth of a percent beyond.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from queue import SimpleQueue
from typing import Literal, TypeVar

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.critical_path import with_path
from servescope.analysis.cut import Cut, Group, groups_of
from servescope.analysis.fluidity import fluidity
from servescope.analysis.gaps import Gaps, Taken, Tally
from servescope.analysis.ideal import with_ideal
from servescope.analysis.intervals import SECTIONS, bounded, of_mean, of_quantiles, sections_of
from servescope.analysis.kept import Keeper, Kept
from servescope.analysis.metrics import ANSWERED, METRICS, QUANTILES, of_call
from servescope.analysis.sample import AnyInts, Bools, Ints, Ranked, Sample
from servescope.analysis.slo import SLO
from servescope.traces.run import Run
from servescope.traces.schema import SCHEMA, require
from servescope.traces.status import NOT_SENT
from servescope.traces.trace import Trace

BATCH_CALLS = 10_000
_THREADS = 4  # more have nothing to do: one reads
_LISTS = ("chunk_s", "chunk_tokens")
_NOT_NUMBERS = (*_LISTS, "empty_s", "prefix_blocks")
_OF_CHUNKS = ("stall", "chunks")
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
        calls = _by_due(
            self.rows.with_row_index("row")
            .select("row", *numbers, *made)
            .with_columns(program_id=pl.coalesce("program_id", "call_id"))
            .collect(engine="streaming")
        )
        if self.since_s:
            calls = calls.filter(col("due_s").min().over("program_id") >= self.since_s)
        return calls if self.only is None else calls.filter(self.only)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns of `calls`."""
        return (*self.asked.columns, *_OF_CHUNKS)

    @property
    def height(self) -> int:
        """How many calls there are."""
        return self.asked.height

    def columns(self, *names: str) -> pl.DataFrame:
        """Return columns of `calls`; those of no chunks cost no reading of them."""
        table = self.calls if set(names) & set(_OF_CHUNKS) else self.asked
        return table.select(*dict.fromkeys(names))

    @cached_property
    def programs(self) -> pl.DataFrame:
        """One row a program: program_id, calls, failed calls, due_s of its first, its metrics."""
        return self._made_programs()

    def _made_programs(self) -> pl.DataFrame:
        return (
            with_ideal(with_path(self.asked))
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
        found: dict[str, Sample] = {}
        if any(METRICS[name].per == "gap" for name in names):
            made, found = self._read(_block_of(self.asked, owners), blocks)
            self.__dict__.setdefault("_of_chunks", made)  # the same whoever owns: read once
        for name in names:
            if name not in found:
                block = _block_of(self._table(name).select("program_id"), owners)
                found[name] = self._ranked(name).sample(block >= 0, block, blocks)
        return {name: found[name] for name in names}

    def sample(self, name: str, owners: pl.DataFrame | None = None, blocks: int = 1) -> Sample:
        """Return the values of one metric, as `samples` does."""
        return self.samples((name,), owners, blocks)[name]

    def spread(self, name: str) -> Sample:
        """Return the values of one metric where no interval is asked for: in one block."""
        if METRICS[name].per == "gap":
            return self.distributions[name]
        if "kept" not in self.__dict__:  # nobody will ask for parts, which need the order
            return Sample.of(self._column(name).drop_nulls())
        return self._ranked(name).sample(None)

    @cached_property
    def distributions(self) -> Mapping[str, Sample]:
        """Every metric's values, in the sections of the run's time, each when it is asked for."""
        return _Distributions(self._in_sections)

    def _in_sections(self, name: str) -> Sample:
        if METRICS[name].per == "gap":
            return self._own[1][name]
        of_programs, of_calls, blocks = self.sections
        block = of_programs if METRICS[name].per == "program" else of_calls
        return self._ranked(name).sample(None, block, blocks)

    @cached_property
    def sections(self) -> tuple[Ints, Ints, int]:
        """The section of each of `programs`, that of each of `calls`, and their number.

        It is 1 for few programs.
        """
        first = self.first_calls
        block = sections_of(self.columns("due_s")["due_s"].to_numpy()[first])
        blocks = 1 if block is None else SECTIONS
        block = np.zeros(len(first), np.int64) if block is None else block
        return block, block[self.program_of], blocks

    @cached_property
    def answered(self) -> pl.Series:
        """Which of `calls` were answered."""
        return self.columns("status").select(ANSWERED).to_series()

    @cached_property
    def sent(self) -> pl.Series:
        """Which of `calls` were sent, or may have been."""
        return self.columns("status").select(col("status").ne_missing(NOT_SENT)).to_series()

    @cached_property
    def program_of(self) -> Ints:
        """The number of each call's program, in the order of `programs`: shape (calls,)."""
        calls = self.asked.select("program_id").with_row_index("place")
        first = calls.select(col("place").min().over("program_id")).to_series().to_numpy()
        begins = first == np.arange(len(first))
        return np.asarray((np.cumsum(begins) - 1)[first], np.int64)

    @cached_property
    def first_calls(self) -> Ints:
        """The place of the first call of each of `programs`: shape (programs,)."""
        program = self.program_of
        begins = np.diff(np.maximum.accumulate(program), prepend=-1) > 0
        return np.flatnonzero(begins)

    @cached_property
    def starts(self) -> pl.Series:
        """When the first call of each of `programs` was due (s)."""
        return self.columns("due_s")["due_s"].gather(self.first_calls)

    def _ranked(self, name: str) -> Ranked:
        """Return the values of a metric of calls or programs in order."""
        if name not in self._in_order:
            self._in_order[name] = Ranked.of(self._column(name).to_numpy())
        return self._in_order[name]

    @cached_property
    def _in_order(self) -> dict[str, Ranked]:
        """The metrics that were put in order so far."""
        return {}

    def _table(self, name: str) -> pl.DataFrame:
        """Return the table that a metric is a column of."""
        if METRICS[name].per == "program":
            return self.programs
        return self.calls if name in _OF_CHUNKS else self.asked

    def _column(self, name: str) -> pl.Series:
        """Return a metric of calls or programs, null where there is no value."""
        table = self._table(name)
        if name not in table.columns:
            require(table.columns, *METRICS[name].needs)
        return table[name].cast(pl.Float64)

    @cached_property
    def _own(self) -> tuple[pl.DataFrame, dict[str, Sample]]:
        """What is read of the chunks in the sections of the run's time."""
        _, block, blocks = self.sections
        return self._read(block, blocks)

    @cached_property
    def _of_chunks(self) -> pl.DataFrame:
        """What is made of the chunks of each call, in the order of `asked`."""
        return self._own[0]

    @cached_property
    def kept(self) -> Kept:
        """The gaps of each call, so that those of a part need no reading: some bytes a token."""
        keepers: list[Keeper] = []
        _, block, blocks = self.sections
        self.__dict__["_own"] = self._read(block, blocks, keepers)
        together = Keeper()
        while keepers:
            together.join(keepers.pop())
        kept = together.kept(self.asked.height)
        if not kept.exact:
            kept.count(groups_of(self.asked))
        return kept

    def _read(
        self, block: Ints, blocks: int, keepers: list[Keeper] | None = None
    ) -> tuple[pl.DataFrame, dict[str, Sample]]:
        """Read the chunks of all calls: what is made of each, and the gaps by the block of each.

        What is kept of each call goes into `keepers`.
        """
        rows = self.asked["row"].to_numpy().astype(np.int64)
        place = np.full(int(rows.max()) + 1 if len(rows) else 0, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        stall = np.full(len(rows), np.nan)
        count = np.full(len(rows), -1, dtype=np.int64)

        def digest(batch: pl.DataFrame, mine: tuple[Gaps, Keeper]) -> None:
            row = batch["row"].to_numpy()
            at = place[row.clip(0, max(0, len(place) - 1))] if len(place) else row.astype(np.int64)
            chosen = (row < len(place)) & (at >= 0)
            if not chosen.all():
                batch, at = batch.filter(chosen), at[chosen]
            count[at] = batch["chunk_s"].list.len().fill_null(-1).to_numpy()
            taken = Taken.of(batch)
            stall[at] = taken.longest()
            gaps, keeper = mine
            gaps.add(taken, block[at])
            if keepers is not None:
                keeper.add(taken, at)

        together = Gaps(blocks)
        batches = self._batches("output_tokens")
        for gaps, keeper in _in_threads(digest, batches, lambda: (Gaps(blocks), Keeper())):
            together.join(gaps)
            if keepers is not None:
                keepers.append(keeper)
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
        """Return the measurements of some of the calls; programs are made of those alone."""
        if "kept" in self.__dict__:
            return self._part(chosen, whole_programs=False)
        return replace(self, only=chosen if self.only is None else self.only & chosen)

    def cut(self, cut: Cut) -> Measured:
        """Return the measurements of a part of the run, all of it for the cut that leaves none out.

        The run's file is read once for all parts: ask for a cut before anything of chunks. Raises
        InputError for what the run does not know.
        """
        asked = cut.chosen(self.asked.columns)
        if not cut:
            self.kept  # noqa: B018  # read now, for the parts to come
            return self
        return self._part(asked, cut.groups, whole_programs=True)

    def _part(
        self, chosen: pl.Expr, groups: tuple[Group, ...] = (), *, whole_programs: bool
    ) -> Part:
        return Part(
            self.rows,
            self.since_s,
            self.only,
            whole=self,
            chosen=self._which(chosen),
            groups=groups,
            whole_programs=whole_programs,
        )

    def _which(self, chosen: pl.Expr) -> Bools:
        """Return which of the calls are chosen: shape (calls,)."""
        looked_at = self.columns("row", *chosen.meta.root_names())
        return looked_at.with_columns(chosen=chosen.fill_null(False))["chosen"].to_numpy()

    @property
    def gaps_are(self) -> Literal["exact", "in buckets"]:
        """How gaps of parts are taken: in buckets they are right to a twentieth of a percent."""
        return "exact" if self.kept.exact else "in buckets"

    @cached_property
    def judgements(self) -> dict[SLO, pl.DataFrame]:
        """The tables of `attainment.judged` so far, which parts of the run are parts of."""
        return {}

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


@dataclass(frozen=True, eq=False)
class Part(Measured):
    """The measurements of the `chosen` calls of `whole`, made of what that one knows already.

    All of them are of each of `groups`. Programs whose first call is chosen are in it as they were
    in the whole; without `whole_programs` they are made of chosen calls alone.
    """

    whole: Measured = field(kw_only=True)
    chosen: Bools = field(kw_only=True)
    groups: tuple[Group, ...] = field(kw_only=True)
    whole_programs: bool = field(kw_only=True)

    @cached_property
    def asked(self) -> pl.DataFrame:
        """The calls without what is made of their chunks."""
        return self.of_calls(self.whole.asked)

    @cached_property
    def calls(self) -> pl.DataFrame:
        """One row a call, as the whole has them."""
        return self.of_calls(self.whole.calls)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of `calls`."""
        return self.whole.names

    @property
    def height(self) -> int:
        """How many calls are chosen."""
        return self._stretch[1]

    def columns(self, *names: str) -> pl.DataFrame:
        """Return columns of `calls`, and cut no others."""
        return self.of_calls(self.whole.columns(*names))

    def of_calls(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a table that holds a row for each call of the whole."""
        first, count = self._stretch
        return table.filter(self._mask) if first is None else table.slice(first, count)

    def of_programs(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a table that holds a row for each program of the whole."""
        return table.filter(pl.Series(self._begun))

    @cached_property
    def programs(self) -> pl.DataFrame:
        """One row a program that begins with a chosen call, as the whole has them."""
        whole = self.whole_programs
        return self.of_programs(self.whole.programs) if whole else self._made_programs()

    @cached_property
    def answered(self) -> pl.Series:
        """Which of `calls` were answered."""
        return self.of_calls(self.whole.answered.to_frame()).to_series()

    @cached_property
    def sent(self) -> pl.Series:
        """Which of `calls` were sent, or may have been."""
        return self.of_calls(self.whole.sent.to_frame()).to_series()

    @cached_property
    def program_of(self) -> Ints:
        """The number of each call's program, in the order of their first calls here."""
        program = self.whole.program_of[np.flatnonzero(self.chosen)]
        places = np.arange(len(program))
        first = np.empty(len(self.whole.first_calls), np.int64)
        first[program[::-1]] = places[::-1]  # of several the last that is written stays
        begins = first[program] == places
        return np.asarray((np.cumsum(begins) - 1)[first[program]], np.int64)

    @cached_property
    def starts(self) -> pl.Series:
        """When the first call of each of `programs` was due (s)."""
        starts = self.whole.starts if self.whole_programs else super().starts
        return starts.filter(pl.Series(self._begun)) if self.whole_programs else starts

    def spread(self, name: str) -> Sample:
        """Return the values of one metric where no interval is asked for: in one block."""
        if name not in self._spreads:
            self._spreads[name] = self._sample(name, np.zeros(0, np.int64), 1)
        return self._spreads[name]

    @cached_property
    def _spreads(self) -> dict[str, Sample]:
        """The values that were asked for so far."""
        return {}

    def fluidity(self, first_s: float, gap_s: float) -> pl.Series:
        """Return the share of token deadlines that each of `calls` met, null where not known."""
        return self.of_calls(self.whole.fluidity(first_s, gap_s).to_frame()).to_series()

    def where(self, chosen: pl.Expr) -> Measured:
        """Return the measurements of some of the calls; programs are made of those alone."""
        return self._part(chosen, whole_programs=False)

    def cut(self, cut: Cut) -> Measured:
        """Return the measurements of a part of this part."""
        asked = cut.chosen(self.names)
        return self._part(asked, cut.groups, whole_programs=True) if cut else self

    @property
    def kept(self) -> Kept:
        """The gaps of each call of the whole."""
        return self.whole.kept

    def _part(
        self, chosen: pl.Expr, groups: tuple[Group, ...] = (), *, whole_programs: bool
    ) -> Part:
        mask = np.zeros(len(self.chosen), np.bool_)
        mask[np.flatnonzero(self.chosen)] = self._which(chosen)
        every = (*self.groups, *groups)
        return replace(self, chosen=mask, groups=every, whole_programs=whole_programs)

    def _in_sections(self, name: str) -> Sample:
        return self._sample(name, self._block, self.sections[2])

    @cached_property
    def _block(self) -> AnyInts:
        """The section of each call of the whole, 0 for one that is not chosen."""
        block = np.zeros(len(self.chosen), np.int8)  # a small table is looked up faster
        block[np.flatnonzero(self.chosen)] = self.sections[1]
        return block

    def _sample(self, name: str, block: AnyInts, blocks: int) -> Sample:
        """Return the values of a metric by the block of each call of the whole."""
        per = METRICS[name].per
        if per == "gap":
            return self.kept.sample(name, self.chosen, block, blocks, self.groups)
        if per == "program" and not self.whole_programs:
            of_programs, _, blocks = self.sections if blocks > 1 else (None, None, 1)
            return self._ranked(name).sample(None, of_programs, blocks)
        ranked = self.whole._ranked(name)
        if per == "call":
            return ranked.sample(self.chosen, block, blocks)
        begins = block[self.whole.first_calls] if blocks > 1 else block
        return ranked.sample(self._begun, begins, blocks)

    @cached_property
    def _begun(self) -> Bools:
        """Which programs of the whole begin with a chosen call."""
        return self.chosen[self.whole.first_calls]

    @cached_property
    def _mask(self) -> pl.Series:
        return pl.Series(self.chosen)

    @cached_property
    def _stretch(self) -> tuple[int | None, int]:
        """Where the chosen calls begin and how many there are, if no other is between them."""
        count = int(np.count_nonzero(self.chosen))
        first = int(self.chosen.argmax()) if count else 0
        alone = bool(self.chosen[first : first + count].all())
        return (first if alone else None), count


class _Distributions(Mapping[str, Sample]):
    """The sample of every metric, made when it is asked for."""

    def __init__(self, make: Callable[[str], Sample]) -> None:
        self._make = make
        self._made: dict[str, Sample] = {}

    def __getitem__(self, name: str) -> Sample:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(METRICS)

    def __len__(self) -> int:
        return len(METRICS)


def _by_due(calls: pl.DataFrame) -> pl.DataFrame:
    """Sort calls by due_s, and those of one moment by name: both at once take ten times as long.

    A few columns at a time take the place of those before, so that there are never two tables.
    """
    order = calls["due_s"].arg_sort(nulls_last=True)
    due = calls["due_s"].gather(order).to_numpy()
    if calls["due_s"].null_count() > 1 or (due[1:] == due[:-1]).any():
        order = calls.select(pl.arg_sort_by("due_s", "call_id", nulls_last=True)).to_series()
    sorted_parts = []
    while calls.width:
        few = calls.columns[:8]
        sorted_parts.append(calls.select(pl.col(few).gather(order)))
        calls = calls.drop(few)
    return pl.concat(sorted_parts, how="horizontal")


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
