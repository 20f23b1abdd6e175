"""servescope's own Parquet: the canonical table with its provenance in the file's metadata."""

import msgspec
import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats.source import Source
from servescope.traces.trace import METADATA_KEY, Provenance, Trace


def sniff(head: bytes) -> bool:
    """Recognise Parquet by its first four bytes."""
    return head.startswith(b"PAR1")


def read(source: Source) -> Trace:
    """Read what Trace.write wrote, or any Parquet file whose columns have canonical names."""
    try:
        metadata = pl.read_parquet_metadata(source.path)
        frame = pl.scan_parquet(source.path, glob=False)
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
    return Trace.of(frame, provenance)
