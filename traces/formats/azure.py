"""Azure LLM inference traces, 2023 (Patel et al., Splitwise, ISCA 2024)."""

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats import csv
from servescope.traces.formats.source import Source
from servescope.traces.trace import Provenance, Trace

_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_TICKS_PER_S = 10_000_000


def sniff(head: bytes) -> bool:
    """Recognise the three columns of the 2023 files."""
    return csv.header(head) == _COLUMNS


def read(source: Source) -> Trace:
    """Read an Azure 2023 file: 100 ns ticks without a zone, kept exactly."""
    text = csv.read_text(source)
    stamps = text["TIMESTAMP"].str.strip_chars()
    moments = stamps.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    bad = moments.is_null()
    if bad.any():
        row = bad.arg_max() or 0
        raise BadRow(
            f"{source.name}, row {row + 1}: TIMESTAMP is {stamps[row]!r}, not a date and time.",
            "Azure writes 2023-11-16 18:15:46.6805900; mend the row.",
        )
    ticks = moments.to_physical() // (1_000_000_000 // _TICKS_PER_S)
    first = moments.arg_min() or 0
    calls = pl.DataFrame(
        {
            "source_row": pl.int_range(1, text.height + 1, eager=True),
            # whole ticks are subtracted before dividing, so no tick is lost to the float
            "arrival_s": (ticks - ticks[first]) / _TICKS_PER_S,
            "input_tokens": csv.numbers(text, "ContextTokens", pl.Int64, source),
            "output_tokens": csv.numbers(text, "GeneratedTokens", pl.Int64, source),
        }
    ).with_columns(call_id=pl.col("source_row").cast(pl.String))
    provenance = Provenance(
        format="azure",
        source=source.name,
        sha256=source.sha256,
        licence="CC-BY-4.0",
        attribution="Patel et al., Splitwise, ISCA 2024; Azure/AzurePublicDataset",
        rows_read=text.height,
        t0=f"{stamps[first]}, no zone given",
        tick_s=1 / _TICKS_PER_S,
    )
    return Trace.of(calls.sort("arrival_s", maintain_order=True), provenance)
