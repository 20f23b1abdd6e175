"""A trace: the canonical table with what is known about where it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import polars as pl

from servescope.traces import schema
from servescope.traces.errors import InputError, MissingColumns, OutputExists

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = "servescope"


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a trace came from and what was done to it since.

    `t0` is the moment that `arrival_s` 0 stands for, exactly as the source writes it. `tick_s` is the
    resolution of the source's clock. `block_*` say what an id of `prefix_blocks` stands for.
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
        """Read the table into memory, checked row by row."""
        frame = self.frame.collect()
        schema.check(frame)
        return frame

    def window(self, start_s: float = 0.0, end_s: float | None = None) -> Trace:
        """Keep the calls that arrive in [start_s, end_s), counted from the new start.

        A parent outside the window is forgotten: its child becomes a root.
        """
        self.require("arrival_s")
        inside = pl.col("arrival_s") >= start_s
        if end_s is not None:
            inside &= pl.col("arrival_s") < end_s
        kept = self.frame.filter(inside).with_columns(pl.col("arrival_s") - start_s)
        return self._step(_forget_lost_parents(kept), f"window {start_s:g} s to {_end(end_s)}")

    def head(self, calls: int) -> Trace:
        """Keep the first `calls` rows."""
        return self._step(_forget_lost_parents(self.frame.head(calls)), f"first {calls} calls")

    def scale_rate(self, factor: float) -> Trace:
        """Make everything `factor` times as fast: arrivals and pauses shrink alike."""
        if not factor > 0:
            raise InputError(f"A rate cannot be scaled by {factor:g}.", "Give a factor above 0.")
        faster = [pl.col(c) / factor for c in ("arrival_s", "delay_s") if c in self.columns]
        return self._step(self.frame.with_columns(faster), f"rate x {factor:g}")

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
            raise MissingColumns(
                "pandas and pyarrow are not installed.", "Run: pip install 'servescope[pandas]'."
            ) from None
        return self.collect().to_pandas()

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the trace as Parquet with its provenance, or as CSV or JSON lines by the ending.

        CSV and JSON lines hold the rows alone; CSV has no column for lists, so it leaves them out.
        """
        if path.exists() and not overwrite:
            raise OutputExists(f"{path} exists already.", "Choose another name or add --overwrite.")
        frame = self.collect()
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix:
            case ".parquet":
                text = msgspec.json.encode(self.provenance).decode()
                frame.write_parquet(path, metadata={METADATA_KEY: text})
            case ".csv":
                frame.select(~pl.selectors.list()).write_csv(path)
            case ".jsonl":
                frame.write_ndjson(path)
            case other:
                raise InputError(
                    f"A trace cannot be written as '{other}'.",
                    "End the name in .parquet, .csv or .jsonl.",
                )

    def _step(self, frame: pl.LazyFrame, step: str) -> Trace:
        provenance = msgspec.structs.replace(
            self.provenance, kind="derived", steps=(*self.provenance.steps, step)
        )
        return Trace(frame, provenance)


def _end(end_s: float | None) -> str:
    return "the end" if end_s is None else f"{end_s:g} s"


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
    return (
        frame.join(kept, on="call_id", how="left", maintain_order="left")
        .with_columns(parents=pl.when(pl.col("parents").is_not_null()).then(known))
        .with_columns(delay_s=pl.when(pl.col("parents").list.len() > 0).then(pl.col("delay_s")))
        .drop("kept")
    )
