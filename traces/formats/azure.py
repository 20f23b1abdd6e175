"""Azure LLM inference traces (2023: Patel et al., Splitwise; 2024: Stojkovic et al., DynamoLLM)."""

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats import csv
from servescope.traces.formats.arrivals import in_order
from servescope.traces.formats.source import Source
from servescope.traces.trace import Provenance, Trace

_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_TICKS_PER_S = 10_000_000
_ZONE = "+00:00"


def sniff(head: bytes) -> bool:
    """Recognise the three columns of the 2023 and 2024 files."""
    return csv.header(head) == _COLUMNS


def read(source: Source) -> Trace:
    """Read an Azure file: 100 ns ticks without a zone (2023) or microseconds in UTC (2024)."""
    text = csv.read_text(source, *_COLUMNS)
    stamps = csv.words(text, "TIMESTAMP")
    moments = stamps.str.strip_suffix(_ZONE).str.to_datetime(
        "%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False
    )
    bad = moments.is_null()
    if bad.any():
        row = bad.arg_max() or 0
        raise BadRow(
            f"{source.name}, row {text['source_row'][row]}: 'TIMESTAMP' is"
            f" {stamps[row] or ''!r}, not a date and time.",
            "Azure writes 2023-11-16 18:15:46.6805900; mend the row.",
        )
    ticks = moments.to_physical() // (1_000_000_000 // _TICKS_PER_S)
    first = moments.arg_min() or 0
    zoned = stamps[first].endswith(_ZONE)
    calls, moved = in_order(
        pl.DataFrame(
            {
                "call_id": text["source_row"],
                "source_row": text["source_row"],
                # Whole ticks are subtracted first and divided by numpy, which rounds correctly
                # where polars multiplies by the inverse: no tick is lost to the float.
                "arrival_s": (ticks - ticks[first]).to_numpy() / _TICKS_PER_S,
                "input_tokens": csv.numbers(text, "ContextTokens", pl.Int64, source),
                "output_tokens": csv.numbers(text, "GeneratedTokens", pl.Int64, source),
            }
        )
    )
    paper = (
        "Stojkovic et al., DynamoLLM, HPCA 2025" if zoned else "Patel et al., Splitwise, ISCA 2024"
    )
    provenance = Provenance(
        format="azure",
        source=source.name,
        sha256=source.sha256,
        licence="CC-BY-4.0",
        attribution=f"{paper}; Azure/AzurePublicDataset",
        rows_read=text.height,
        t0=stamps[first] if zoned else f"{stamps[first]}, no zone given",
        tick_s=1e-6 if zoned else 1 / _TICKS_PER_S,
        doubts=moved,
    )
    return Trace.of(calls, provenance)
