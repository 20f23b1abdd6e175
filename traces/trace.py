"""A trace: the canonical table with what is known about where it came from."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import polars as pl

from servescope.traces import schema
from servescope.traces.errors import BadRow, InputError, OutputExists

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = "servescope"


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a trace came from and what was done to it since.

    `t0` is the moment that `arrival_s` 0 stands for, exactly as the source writes it. `tick_s` is
    the resolution of the source's clock. `block_*` say what an id of `prefix_blocks` stands for.
    """

    format: str
    source: str
    kind: Literal["real", "derived", "synthetic", "measured"] = "real"
    sha256: str | None = None
    licence: str | None = None
    attribution: str | None = None
    rows_read: int | None = None
    t0: str | None = None
    tick_s: float | None = None
    block_tokens: int | None = None
    block_rule: Literal["ceil", "floor"] | None = None
    block_scope: Literal["global", "program"] | None = None
    doubts: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A lazy canonical table and its provenance; every method returns a new Trace."""

    frame: pl.LazyFrame
    provenance: Provenance

    @classmethod
    def of(cls, frame: pl.DataFrame | pl.LazyFrame, provenance: Provenance) -> Trace:
        """Make a trace of a table, conformed to the schema and with call ids where it has none."""
        lazy = frame.lazy()
        if "call_id" not in lazy.collect_schema().names():
            lazy = lazy.with_columns(call_id=pl.int_range(pl.len()).cast(pl.String))
        return cls(schema.conform(lazy), provenance)

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
            raise BadRow(
                f"{self.provenance.source} cannot be read: {str(error).split(chr(10))[0]}.",
                "Mend the file, or write it again.",
            ) from error
        schema.check(frame)
        return frame

    def window(self, start_s: float = 0.0, end_s: float | None = None) -> Trace:
        """Keep the calls that arrive in [start_s, end_s); every moment counts from the new start.

        A parent outside the window is forgotten: a child that loses its last one becomes a root.
        Calls without an arrival of their own are left out.
        """
        self.require("arrival_s")
        inside = pl.col("arrival_s") >= start_s
        if end_s is not None:
            inside &= pl.col("arrival_s") < end_s
        moments = [c for c in schema.MOMENTS if c in self.columns]
        kept = self.frame.filter(inside).with_columns(
            pl.col(c).list.eval(pl.element() - start_s)
            if isinstance(schema.SCHEMA[c], pl.List)
            else pl.col(c) - start_s
            for c in moments
        )
        t0 = self.provenance.t0
        if t0 is not None and start_s:
            t0 = f"{t0}, plus {start_s:.15g} s"
        step = f"window {start_s:.15g} s to {'the end' if end_s is None else f'{end_s:.15g} s'}"
        return self._step(_forget_lost_parents(kept), step, t0=t0)

    def head(self, calls: int) -> Trace:
        """Keep the first `calls` rows; a parent that is cut off is forgotten as in `window`."""
        if calls < 0:
            raise InputError(f"There are no first {calls} calls.", "Give 0 or more.")
        return self._step(_forget_lost_parents(self.frame.head(calls)), f"first {calls} calls")

    def scale_rate(self, factor: float) -> Trace:
        """Make everything `factor` times as fast: arrivals and pauses shrink alike.

        A deadline stays as far from its call's arrival as it was.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise InputError(f"A rate cannot be scaled by {factor}.", "Give a number above 0.")
        there = self.columns
        faster = [pl.col(c) / factor for c in ("arrival_s", "delay_s") if c in there]
        if "deadline_s" in there and "arrival_s" in there:
            faster.append(pl.col("deadline_s") - pl.col("arrival_s") * (1 - 1 / factor))
        tick_s = self.provenance.tick_s
        return self._step(
            self.frame.with_columns(faster),
            f"rate x {factor:.15g}",
            tick_s=None if tick_s is None else tick_s / factor,
        )

    def doubting(self, *doubts: str) -> Trace:
        """Return the trace with more doubts said of it."""
        said = self.provenance.doubts
        new = tuple(doubt for doubt in doubts if doubt not in said)
        return replace(self, provenance=msgspec.structs.replace(self.provenance, doubts=said + new))

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
        """Write the trace as Parquet with its provenance, or as CSV or JSON lines by the ending.

        CSV and JSON lines hold the rows alone; CSV has no column for lists, so it leaves them out.
        """
        if path.suffix not in (".parquet", ".csv", ".jsonl"):
            raise InputError(
                f"A trace cannot be written as '{path.suffix}'.",
                "End the name in .parquet, .csv or .jsonl.",
            )
        if path.exists() and not overwrite:
            raise OutputExists(f"{path} exists already.", "Choose another name or add --overwrite.")
        frame = self.collect()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside it and then moved: the table may be a lazy view of the file it replaces.
        partial = path.with_name(f"{path.name}.part")
        match path.suffix:
            case ".parquet":
                text = msgspec.json.encode(self.provenance).decode()
                frame.write_parquet(partial, metadata={METADATA_KEY: text})
            case ".csv":
                frame.select(~pl.selectors.list()).write_csv(partial)
            case _:
                frame.write_ndjson(partial)
        os.replace(partial, path)

    def _step(self, frame: pl.LazyFrame, step: str, **changes: str | float | None) -> Trace:
        """Return the trace of `frame`; what was real is derived now, the rest stays what it was."""
        before = self.provenance
        provenance = msgspec.structs.replace(
            before,
            kind="derived" if before.kind == "real" else before.kind,
            steps=(*before.steps, step),
            **changes,
        )
        return Trace(frame, provenance)


def _forget_lost_parents(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Drop parents that are no longer in the table; a call that loses its last one is a root."""
    if "parents" not in frame.collect_schema().names():
        return frame
    links = frame.select("call_id", "parents").explode("parents").drop_nulls("parents")
    kept = (
        links.join(frame.select(parents="call_id"), on="parents", how="semi")
        .group_by("call_id")
        .agg(kept="parents")
    )
    known = pl.coalesce("kept", pl.lit([], dtype=pl.List(pl.String)))
    waits = pl.col("parents").list.len() > 0
    return (
        frame.join(kept, on="call_id", how="left", maintain_order="left")
        .with_columns(parents=pl.when(pl.col("parents").is_not_null()).then(known))
        .with_columns(pl.when(waits).then(pl.col("delay_s", "delay_kind")))
        .drop("kept")
    )
