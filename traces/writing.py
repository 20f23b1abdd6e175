"""Writing the canonical table: whole or not at all, and never all of it in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from servescope.traces import schema
from servescope.traces.errors import InputError, OutputExists, OutputFailed

if TYPE_CHECKING:
    from servescope.traces.trace import Trace

METADATA_KEY = "servescope"
TABLES_KEY = "servescope.tables"
ENDINGS = (".parquet", ".csv", ".jsonl")


def beside(path: Path, table: str) -> Path:
    """Return where a side table of the trace at `path` is kept: `trace.contents.parquet`."""
    return path.with_name(f"{path.stem}.{table}.parquet")


def refuse(path: Path, *, overwrite: bool = False) -> None:
    """Raise InputError for a name that no trace can have, OutputExists for one that is taken."""
    if path.suffix not in ENDINGS:
        raise InputError(
            f"A trace cannot be written as '{path.suffix}'.",
            "End the name in .parquet, .csv or .jsonl.",
        )
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already.", "Choose another name or add --overwrite.")


def write(trace: Trace, path: Path, *, overwrite: bool = False) -> None:
    """Write a trace as Parquet with its provenance, or as CSV or JSON lines by the ending.

    Side tables are written beside a Parquet file, as `trace.contents.parquet`; of the contents only
    those that a call still names. CSV and JSON lines hold the rows alone; CSV has no column for
    lists, so it leaves them out. Memory stays bounded, however long the trace is. Raises BadRow for
    rows that make no sense, OutputExists and OutputFailed for a place that is taken or refuses.
    """
    tables = trace.tables if path.suffix == ".parquet" else {}
    finals = [path, *(beside(path, name) for name in tables)]
    for final in finals:
        refuse(final, overwrite=overwrite)
    trace.check()
    # Written beside it and then moved: the table may be a lazy view of the file it replaces.
    partials = [final.with_name(f"{final.name}.part") for final in finals]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sink(trace, partials[0], path.suffix)
        for (name, table), partial in zip(tables.items(), partials[1:], strict=True):
            _named_by_a_call(trace, name, table).sink_parquet(partial)
        for partial, final in zip(partials, finals, strict=True):
            os.replace(partial, final)
    except pl.exceptions.PolarsError as error:
        raise trace.unreadable(error) from error
    except OSError as error:
        raise OutputFailed.of(path, error) from None
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def _sink(trace: Trace, path: Path, suffix: str) -> None:
    match suffix:
        case ".parquet":
            metadata = {
                METADATA_KEY: msgspec.json.encode(trace.provenance).decode(),
                TABLES_KEY: msgspec.json.encode(sorted(trace.tables)).decode(),
            }
            trace.frame.sink_parquet(path, metadata=metadata)
        case ".csv":
            lists = [c for c in trace.columns if isinstance(schema.SCHEMA[c], pl.List)]
            trace.frame.drop(lists).sink_csv(path)
        case _:
            trace.frame.sink_ndjson(path)


def _named_by_a_call(trace: Trace, name: str, table: pl.LazyFrame) -> pl.LazyFrame:
    """Leave out the texts of calls that are no longer in the trace."""
    if name != "contents" or "content_ref" not in trace.columns:
        return table
    return table.join(trace.frame.select("content_ref"), on="content_ref", how="semi")
