"""Azure LLM inference traces (2023: Patel et al., Splitwise; 2024: Stojkovic et al., DynamoLLM)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from servescope.traces.formats import clock, csv
from servescope.traces.formats.export import losses, new_file, placed
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

_NEEDED = {"TIMESTAMP": pl.String, "ContextTokens": pl.Int64, "GeneratedTokens": pl.Int64}
_OPTIONAL = {"NumImages": pl.Int64}
_ZONE = "+00:00"


def sniff(head: bytes) -> bool:
    """Recognise the columns of 2023, 2024 and 2025, in any order."""
    return _NEEDED.keys() <= set(csv.header(head)) <= {*_NEEDED, *_OPTIONAL}


def read(source: Source) -> Trace:
    """Read an Azure file: 100 ns ticks without a zone (2023), or UTC (2024, 2025)."""
    batches = csv.batches(source, _NEEDED, _OPTIONAL)
    first = next(batches)
    stamp = first["TIMESTAMP"].drop_nulls().first() or ""
    zoned = str(stamp).endswith(_ZONE)
    images = "NumImages" in first.columns
    paper = "Patel et al., Splitwise, ISCA 2024"
    if zoned or images:
        paper = "Stojkovic et al., DynamoLLM, HPCA 2025" if not images else "multimodal trace, 2025"

    def calls() -> Iterator[pl.DataFrame]:
        for batch in itertools.chain([first], batches):
            yield _stamped(_of_one_clock(batch, source, zoned), source)

    digits = 6 if zoned else 7
    return gather(
        source,
        calls(),
        format="azure",
        licence="CC-BY-4.0",
        attribution=f"{paper}; Azure/AzurePublicDataset",
        t0=lambda ns: _written(ns, digits) + (_ZONE if zoned else ", no zone given"),
        clock="utc" if zoned else "local",
        units="dates and times",
        tick_s=1e-6 if zoned else 1e-7,
    )


def _of_one_clock(batch: pl.DataFrame, source: Source, zoned: bool) -> pl.DataFrame:
    other = pl.col("TIMESTAMP").str.ends_with(_ZONE).fill_null(zoned) != zoned
    for row, stamp in batch.filter(other).select("source_row", "TIMESTAMP").iter_rows():
        source.reject(
            row,
            f"'TIMESTAMP' is {stamp!r}, and the first one has {'a' if zoned else 'no'} zone.",
            "Files with and without a zone are on different clocks: load them apart, and merge.",
            reason="TIMESTAMP is on another clock",
        )
    return batch.filter(~other)


def _stamped(batch: pl.DataFrame, source: Source) -> pl.DataFrame:
    stamps = pl.col("TIMESTAMP").str.strip_suffix(_ZONE)
    moment = stamps.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    # Beyond 2262 polars' nanoseconds begin again in the year 1677.
    in_range = moment.dt.year().cast(pl.String) == pl.col("TIMESTAMP").str.slice(0, 4)
    batch = batch.with_columns(stamp_ns=pl.when(in_range).then(moment.to_physical()))
    for row, stamp in (
        batch.filter(pl.col("stamp_ns").is_null()).select("source_row", "TIMESTAMP").iter_rows()
    ):
        source.reject(
            row,
            f"'TIMESTAMP' is {stamp or ''!r}, not a date and time.",
            "Azure writes 2023-11-16 18:15:46.6805900; mend the row.",
            reason="TIMESTAMP is no time",
        )
    return batch.drop_nulls("stamp_ns").select(
        "source_row",
        "stamp_ns",
        pl.col("ContextTokens").alias("input_tokens"),
        pl.col("GeneratedTokens").alias("output_tokens"),
        *(pl.col(c).alias("image_count") for c in _OPTIONAL if c in batch.columns),
    )


def _written(stamp_ns: int, digits: int) -> str:
    whole, _, fraction = clock.text_of(stamp_ns).partition(".")
    return f"{whole}.{fraction.ljust(digits, '0')}"


def write(trace: Trace, path: Path) -> list[str]:
    """Write the columns of 2023 in 100 ns ticks, or those of 2024 in microseconds where in UTC.

    A trace without a date begins on 1970-01-01. Images get their column (2025) where counted.
    """
    calls, doubts = placed(trace, "arrival_s", "input_tokens", "output_tokens")
    about = trace.provenance
    dated = about.clock in ("utc", "local") and about.t0_ns is not None
    if not dated:
        doubts.append("The trace has no date: the file begins on 1970-01-01.")
    zero_ns = about.t0_ns or 0 if dated else 0
    utc = about.clock == "utc"
    step_ns, digits = (1_000, 6) if utc else (100, 7)
    held = [c for c in _HELD if c in trace.columns]
    if (
        trace.frame.select(pl.col("image_count").count() if "image_count" in held else 0)
        .collect()
        .item()
        == 0
    ):
        held = [c for c in held if c != "image_count"]
    rounded = 0
    with new_file(path) as file:
        for number, batch in enumerate(calls.batches(*held)):
            ns = batch.select(clock.to_ns(pl.col("arrival_s")) + zero_ns).to_series()
            rounded += int((ns % step_ns != 0).sum())
            ticks = (ns + step_ns // 2) // step_ns
            rows = batch.select(
                TIMESTAMP=_stamps(ticks * step_ns, digits) + (_ZONE if utc else ""),
                **{new: pl.col(old) for old, new in _HELD.items() if old in held[1:]},
            )
            file.write(rows.write_csv(include_header=number == 0).encode())
    if rounded:
        doubts.append(f"{rounded} arrivals are rounded to {step_ns} ns.")
    return doubts + losses(calls, *held)


_HELD = {
    "arrival_s": "TIMESTAMP",
    "image_count": "NumImages",
    "input_tokens": "ContextTokens",
    "output_tokens": "GeneratedTokens",
}


def _stamps(ns: pl.Series, digits: int) -> pl.Series:
    moments = ns.cast(pl.Datetime("ns"))
    return moments.dt.strftime("%Y-%m-%d %H:%M:%S%.9f").str.head(20 + digits)


FORMAT = Format(
    sniff,
    read,
    "Azure LLM inference CSV, 2023, 2024 and 2025 (with images)",
    "the columns TIMESTAMP, ContextTokens and GeneratedTokens",
    write,
)
