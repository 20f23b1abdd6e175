"""Vidur's replay traces: when requests arrive, how long they are (Agrawal et al., MLSys 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from servescope.traces.formats import clock, csv, mooncake
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

_NEEDED = {
    "arrived_at": pl.String,
    "num_prefill_tokens": pl.Int64,
    "num_decode_tokens": pl.Int64,
}


def sniff(head: bytes) -> bool:
    """Recognise the columns, among others and in any order."""
    return set(csv.header(head)) >= _NEEDED.keys()


def read(source: Source) -> Trace:
    """Read arrivals, in seconds unless the user says else, and the tokens of each request."""

    def calls() -> Iterator[pl.DataFrame]:
        for batch in csv.batches(source, _NEEDED):
            yield stamped(batch, source, "arrived_at").select(
                "source_row",
                "stamp_ns",
                input_tokens="num_prefill_tokens",
                output_tokens="num_decode_tokens",
            )

    return mooncake.on_its_clock(gather(source, calls(), format="vidur", **timing(source)))


def timing(source: Source) -> dict[str, Any]:
    """Return what `gather` is told of stamps that are bare numbers, seconds by default."""
    unit = source.options.unit or "s"
    return {
        "t0": lambda ns: mooncake.t0_of(ns, unit),
        "clock": "source",
        "units": mooncake.units_of(unit),
    }


def stamped(batch: pl.DataFrame, source: Source, column: str) -> pl.DataFrame:
    """Give a batch `stamp_ns` from a column of numbers; rows without one there are rejected.

    The column holds texts: their digits say more than the doubles that they would become.
    """
    unit = source.options.unit or "s"
    batch = batch.with_columns(stamp_ns=clock.from_column(pl.col(column), unit))
    odd = batch.filter(pl.col("stamp_ns").is_null())
    for row, text in odd.select("source_row", column).iter_rows():
        source.reject(
            row,
            f"{column!r} is {text or ''!r}, not a moment as a number.",
            "Every row says when it arrived; mend the row.",
            reason=f"{column} is no time",
        )
    return batch.drop_nulls("stamp_ns")


FORMAT = Format(
    sniff,
    read,
    "Vidur's replay CSV: arrivals and tokens",
    "the columns arrived_at, num_prefill_tokens and num_decode_tokens",
)
