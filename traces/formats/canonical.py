"""servescope's own Parquet: the canonical table with its provenance in the file's metadata."""

from __future__ import annotations

import msgspec
import polars as pl

from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats.format import Format
from servescope.traces.formats.source import Source
from servescope.traces.provenance import Provenance
from servescope.traces.trace import Trace
from servescope.traces.writing import METADATA_KEY, TABLES_KEY, beside


def sniff(head: bytes) -> bool:
    """Recognise Parquet by its first four bytes."""
    return head.startswith(b"PAR1")


def read(source: Source) -> Trace:
    """Read what Trace.write wrote, or any Parquet file whose columns have canonical names.

    The file is scanned, never read whole; side tables are looked for beside it.
    """
    if len(source.files) > 1:
        raise InputError(
            f"{source.name} is more than one Parquet file.",
            "Read them one by one and merge the traces.",
        )
    path = source.files[0].path
    try:
        metadata = pl.read_parquet_metadata(path)
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
        if METADATA_KEY in metadata:
            provenance = msgspec.json.decode(metadata[METADATA_KEY], type=Provenance)
        else:
            provenance = Provenance(format="canonical", source=source.name, sha256=source.sha256)
    except (pl.exceptions.PolarsError, msgspec.DecodeError, OSError) as error:
        raise BadRow(
            f"{source.name} is not a readable Parquet file: {str(error).split(chr(10))[0]}.",
            "Unpack it if it is gzipped, or write it again.",
        ) from None
    named = msgspec.json.decode(metadata.get(TABLES_KEY, "[]"), type=list[str])
    kept = {name: beside(path, name) for name in named}
    lost = [str(table) for table in kept.values() if not table.exists()]
    tables = {n: pl.scan_parquet(t, glob=False) for n, t in kept.items() if t.exists()}
    trace = Trace.of(frame, provenance, tables)
    return trace.doubting(f"{', '.join(lost)} is gone, and what it held.") if lost else trace


FORMAT = Format(sniff, read, "servescope's own Parquet", "the first bytes of Parquet")
