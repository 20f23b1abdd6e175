"""A trace: the canonical table with what is known about where it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import polars as pl

from servescope.traces import schema, writing
from servescope.traces.errors import BadRow, InputError
from servescope.traces.provenance import Provenance
from servescope.traces.reshape import (
    OWN_PROGRAM,
    as_from,
    cut_blocks,
    draw,
    forget_lost_parents,
    moved,
    renamed,
)

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 250_000
JITTERED = (
    "Arrivals within one tick of the source's clock are drawn at random: nothing finer than the"
    " tick is real."
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A lazy canonical table and its provenance; every method returns a new Trace.

    `tables` are what the source holds beside calls, by name: `contents` (the texts that
    `content_ref` names), `client_windows`, `block_lengths`, `job_durations`. `checked` says that
    every row was looked at when it was read, so that it need not be again.
    """

    frame: pl.LazyFrame
    provenance: Provenance
    tables: Mapping[str, pl.LazyFrame] = field(default_factory=dict)
    checked: bool = False

    @classmethod
    def of(
        cls,
        frame: pl.DataFrame | pl.LazyFrame,
        provenance: Provenance,
        tables: Mapping[str, pl.LazyFrame] | None = None,
        checked: bool = False,
    ) -> Trace:
        """Make a trace of a table, conformed to the schema and with call ids where it has none."""
        lazy = frame.lazy()
        if "call_id" not in lazy.collect_schema().names():
            lazy = lazy.with_columns(call_id=pl.int_range(pl.len()).cast(pl.String))
        return cls(schema.conform(lazy), provenance, tables or {}, checked)

    # --- what is in it ---------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in canonical order."""
        return self.frame.collect_schema().names()

    def require(self, *needed: str) -> None:
        """Raise MissingColumns unless the table has every column of `needed`."""
        schema.require(self.columns, *needed)

    def collect(self) -> pl.DataFrame:
        """Read the table into memory; raises BadRow for rows that make no sense."""
        try:
            frame = self.frame.collect()
        except pl.exceptions.PolarsError as error:
            raise self.unreadable(error) from error
        if not self.checked:
            schema.check(frame)
        return frame

    def batches(self, *columns: str) -> Iterator[pl.DataFrame]:
        """Read the table, or some columns of it, in checked pieces and in order.

        Memory stays that of a few pieces, and 8 bytes a call for calls that are not `checked`.
        Raises BadRow as `collect` does; for two calls of one name only at the end.
        """
        wanted = columns or tuple(self.columns)
        if not self.checked:
            wanted = ("call_id", *wanted)
        names: list[np.ndarray[Any, Any]] = []
        query = self.frame.select(*dict.fromkeys(wanted))
        try:
            for batch in query.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                if not self.checked:
                    schema.check_rows(batch)
                    names.append(batch["call_id"].hash().to_numpy())
                yield batch
        except pl.exceptions.PolarsError as error:
            raise self.unreadable(error) from error
        hashes = np.sort(np.concatenate(names)) if names else np.empty(0)
        if (hashes[1:] == hashes[:-1]).any():  # rarely two names of one hash: make sure
            twice = self.frame.filter(pl.col("call_id").is_duplicated()).select("call_id").head(1)
            for (name,) in twice.collect().iter_rows():
                raise schema.repeated(name)

    def check(self) -> None:
        """Raise BadRow for rows that make no sense, without keeping them."""
        if self.checked:
            return
        for _ in self.batches(*(name for name in schema.CHECKED if name in self.columns)):
            pass

    def unreadable(self, error: pl.exceptions.PolarsError) -> BadRow:
        """Say what polars said of the table."""
        return BadRow(
            f"{self.provenance.source} cannot be read: {str(error).split(chr(10))[0]}.",
            "Mend the file, or write it again.",
        )

    # --- which calls -----------------------------------------------------------------------------

    def window(self, start_s: float = 0.0, end_s: float | None = None) -> Trace:
        """Keep the calls that arrive in [start_s, end_s); every moment counts from the new start.

        A parent outside the window is forgotten: a child that loses its last one becomes a root.
        Calls without an arrival of their own are left out.
        """
        self.require("arrival_s")
        inside = pl.col("arrival_s") >= start_s
        if end_s is not None:
            inside &= pl.col("arrival_s") < end_s
        kept = moved(self.frame.filter(inside), -start_s)
        step = f"window {start_s:.15g} s to {'the end' if end_s is None else f'{end_s:.15g} s'}"
        return self._step(forget_lost_parents(kept), step, **as_from(self.provenance, start_s))

    def head(self, calls: int) -> Trace:
        """Keep the first `calls` rows; a parent that is cut off is forgotten as in `window`."""
        if calls < 0:
            raise InputError(f"There are no first {calls} calls.", "Give 0 or more.")
        return self._step(forget_lost_parents(self.frame.head(calls)), f"first {calls} calls")

    def where(self, **wanted: str | list[str | None] | None) -> Trace:
        """Keep the calls whose column has one of the values wanted; None stands for unknown.

        `trace.where(model="GPT-4", status=["ok", None])`. Columns are those of text: model,
        call_class, client_id, status, program_id, ... A program may lose some of its calls; a
        parent that is left out is forgotten as in `window`.
        """
        texts = [c for c in self.columns if schema.SCHEMA[c] == pl.String]
        schema.require(texts, *wanted)
        inside, said = pl.lit(True), []
        for column, one_or_more in wanted.items():
            values = one_or_more if isinstance(one_or_more, list) else [one_or_more]
            inside &= pl.col(column).is_in(_set_of(values), nulls_equal=True)
            said.append(f"{column} is {' or '.join(value or 'unknown' for value in values)}")
        kept = forget_lost_parents(self.frame.filter(inside))
        return self._step(kept, f"where {' and '.join(said)}")

    def sample(self, share: float, seed: int = 0) -> Trace:
        """Keep each program with the probability `share`, and all of its calls with it.

        A call outside every program is one of its own. The same seed keeps the same programs,
        whatever was done to the trace before.
        """
        if not 0 <= share <= 1:
            raise InputError(f"There is no share of {share:g}.", "Give a number from 0 to 1.")
        kept = self.frame.filter(draw(self._program(), seed) < share)
        return self._step(kept, f"sample {share:.15g} of the programs, seed {seed}")

    # --- when they come --------------------------------------------------------------------------

    def scale_time(self, factor: float) -> Trace:
        """Make everything take `factor` times as long: arrivals and pauses stretch alike.

        A deadline stays as far from its call's arrival as it was.
        """
        factor = _above_0(factor)
        there = self.columns
        slower = [pl.col(c) * factor for c in ("arrival_s", "delay_s") if c in there]
        if "deadline_s" in there and "arrival_s" in there:
            slower.append(pl.col("deadline_s") + pl.col("arrival_s") * (factor - 1))
        tick_s = self.provenance.tick_s
        return self._step(
            self.frame.with_columns(slower),
            f"time x {factor:.15g}",
            tick_s=None if tick_s is None else tick_s * factor,
        )

    def scale_rate(
        self,
        factor: float,
        by: Literal["thin", "superpose", "compress"] = "compress",
        seed: int = 0,
    ) -> Trace:
        """Make programs arrive `factor` times as often.

        "thin" (factor up to 1) keeps each program with that probability; "superpose" lays copies
        over each other, each shifted round the trace by a random time; both let arrivals come
        nearer to Poisson the further they go. "compress" brings the starts of programs nearer, so
        burstiness stays and comes faster. Pauses inside programs stay as they are in all three.
        docs/explanation/scaling.md measures what they do.
        """
        factor = _above_0(factor)
        if by == "thin":
            if factor > 1:
                raise InputError(
                    f"Thinning cannot make a rate {factor:g} times as high.",
                    "Give 1 or less, or superpose or compress.",
                )
            return self.sample(factor, seed)
        self._on_one_clock(f"--rate by {by}")
        step = f"rate x {factor:.15g} by {'compression' if by == 'compress' else 'superposition'}"
        start = pl.col("arrival_s").min().over(self._program())
        if by == "compress":
            near = moved(self.frame, start / factor - start)
            return self._step(near.sort("arrival_s", maintain_order=True, nulls_last=True), step)
        span = self.frame.select(
            first=pl.col("arrival_s").min(), last=pl.col("arrival_s").max()
        ).collect()
        first, last = span.row(0)
        period = (last or 0.0) - (first or 0.0) or 1.0
        shifts = np.random.default_rng(seed).uniform(0, period, math.ceil(factor))
        copies = []
        for number, shift in enumerate(shifts):
            copy = self.frame if number == 0 else renamed(self.frame, f"~{number}")
            part = min(1.0, factor - number)
            if part < 1:
                copy = copy.filter(draw(self._program(), seed + number) < part)
            round_ = (start - first + shift) % period + first - start
            copies.append(copy if number == 0 else moved(copy, round_))
        laid = pl.concat(copies).sort("arrival_s", maintain_order=True, nulls_last=True)
        return self._step(laid, f"{step}, seed {seed}")

    def jitter(self, seed: int = 0, within_s: float | None = None) -> Trace:
        """Spread arrivals over the tick that their stamp was rounded down to, in unchanged order.

        The tick is that of the provenance unless `within_s` says otherwise. Calls of one stamp get
        sorted uniform draws; the trace then says as a doubt that they are drawn.
        """
        self._on_one_clock("jitter")
        tick_s = within_s or self.provenance.tick_s
        if tick_s is None:
            raise InputError(
                "The resolution of the trace's clock is not known.", "Say how wide a tick is."
            )
        later = tick_s * draw(pl.col("call_id"), seed).sort().over("arrival_s")
        spread = self._step(moved(self.frame, later), f"jitter within {tick_s:.15g} s, seed {seed}")
        return spread.doubting(JITTERED)

    def shift_to_zero(self) -> Trace:
        """Let the first call arrive at 0."""
        self.require("arrival_s")
        first = self.frame.select(pl.col("arrival_s").min()).collect().item() or 0.0
        frame = moved(self.frame, -first)
        return self._step(frame, "shift to zero", **as_from(self.provenance, first))

    # --- how long they are -----------------------------------------------------------------------

    def clip(self, input_tokens: int | None = None, output_tokens: int | None = None) -> Trace:
        """Cut prompts and answers to at most so many tokens, and prefix blocks with the prompt.

        Where blocks are components of the prompt, those of a prompt that is cut become unknown.
        """
        asked = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        most = {name: limit for name, limit in asked.items() if limit is not None}
        if any(limit < 0 for limit in most.values()):
            raise InputError("Lengths cannot be cut below 0.", "Give 0 or more tokens.")
        frame = self.frame
        if input_tokens is not None and "prefix_blocks" in self.columns:
            frame = frame.with_columns(cut_blocks(self.provenance, input_tokens))
        frame = frame.with_columns(pl.col(n).clip(upper_bound=limit) for n, limit in most.items())
        said = ", ".join(f"{name} {limit}" for name, limit in most.items())
        return self._step(frame, f"clip to {said or 'nothing'}")

    # --- what is said of it ----------------------------------------------------------------------

    def known(self, **facts: Any) -> Trace:
        """Return the trace with these fields of its provenance set."""
        return replace(self, provenance=msgspec.structs.replace(self.provenance, **facts))

    def doubting(self, *doubts: str) -> Trace:
        """Return the trace with more doubts said of it."""
        said = self.provenance.doubts
        new = tuple(doubt for doubt in doubts if doubt not in said)
        return self.known(doubts=said + new)

    # --- where it goes ---------------------------------------------------------------------------

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas frame; needs the extra servescope[pandas]."""
        try:
            import pandas  # noqa: F401
            import pyarrow  # noqa: F401
        except ImportError:
            raise InputError(
                "pandas and pyarrow are not installed.", "Run: pip install 'servescope[pandas]'."
            ) from None
        return self.collect().to_pandas()

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the canonical table as .parquet, .csv or .jsonl; see `writing.write`."""
        writing.write(self, path, overwrite=overwrite)

    def pipe(self, step: Callable[..., Trace], *args: Any, **kwargs: Any) -> Trace:
        """Apply a function of a trace: `trace.pipe(infer_sessions)`."""
        return step(self, *args, **kwargs)

    def _program(self) -> pl.Expr:
        return OWN_PROGRAM if "program_id" in self.columns else pl.col("call_id")

    def _on_one_clock(self, what: str) -> None:
        self.require("arrival_s")
        if self.provenance.arrival_basis == "program":
            raise InputError(
                f"The programs of this trace have a clock each, so {what} has no meaning.",
                "Sample programs or scale the time instead.",
            )

    def _step(self, frame: pl.LazyFrame, step: str, **changes: Any) -> Trace:
        """Return the trace of `frame`; what was real is derived now, the rest stays what it was."""
        before = self.provenance
        provenance = msgspec.structs.replace(
            before,
            kind="derived" if before.kind == "real" else before.kind,
            steps=(*before.steps, step),
            **changes,
        )
        return replace(self, frame=frame, provenance=provenance)


def _set_of(values: list[str | None]) -> pl.Expr:
    return pl.lit(pl.Series(values, dtype=pl.String)).implode()


def _above_0(factor: float) -> float:
    if not (factor > 0 and math.isfinite(factor)):
        raise InputError(f"Nothing can be scaled by {factor}.", "Give a number above 0.")
    return factor
