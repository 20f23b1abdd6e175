"""Traces that look like Mooncake's and have another unit and block size, as GMI's of LMBench."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import polars as pl

from servescope.traces.errors import InputError
from servescope.traces.formats import clock, csv, jsonl, mooncake, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

_ROWS = 1000  # that the block rule is judged by
_CSV = {
    "timestamp": pl.String,
    "input_length": pl.Int64,
    "output_length": pl.Int64,
    "hash_ids": pl.String,
}
Rule = Literal["ceil", "floor"]


def sniff(head: bytes) -> bool:
    """Recognise Mooncake's fields with a timestamp that is text, or as columns of a CSV file."""
    if mooncake.has_text_stamp(head):
        found = peek.paths(head)
        return found >= mooncake.FIELDS and "hash_ids[]" in found and "chat_id" not in found
    return set(csv.header(head)) == mooncake.FIELDS


def read(source: Source) -> Trace:
    """Read JSON lines, or CSV with the ids parted by blanks, in the unit and blocks the user names.

    Raises InputError unless both are named: nothing in the file says them. If the rule of the last,
    partial block is not named, the one that more of the first rows obey is taken, and said.
    """
    unit, block_tokens = source.options.unit, source.options.block_tokens
    if unit is None or block_tokens is None:
        raise InputError(
            f"{source.name} is like a Mooncake trace, but its unit of time and the size of its"
            " blocks are not Mooncake's, and the file does not say them.",
            "Name both with --unit (ns where timestamps have 19 digits) and --block-tokens, and"
            " with --block-rule (ceil or floor) what becomes of a last, partial block.",
        )
    if block_tokens < 1:
        raise InputError(f"A block cannot hold {block_tokens} tokens.", "Give 1 or more.")
    is_json = source.head().lstrip().startswith(b"{")
    batches = _of_lines(source, unit) if is_json else _of_columns(source, unit)
    first = next(batches, None)
    rule, doubts = source.options.block_rule, []
    if rule is None and first is not None:
        rule, doubt = _rule(first, block_tokens, source.name)
        doubts = [doubt]
    trace = gather(
        source,
        _all(first, batches),
        format="gmi",
        t0=lambda ns: mooncake.t0_of(ns, unit),
        clock="source",
        units=mooncake.units_of(unit),
        tick_s=clock.NS_PER[unit] / clock.NS_PER["s"],
        block_tokens=block_tokens,
        block_rule=rule,
        block_scope="global",
        doubts=doubts,
    )
    return mooncake.on_its_clock(trace)


def _all(first: pl.DataFrame | None, rest: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    if first is not None:
        yield first
    yield from rest


def _of_lines(source: Source, unit: str) -> Iterator[pl.DataFrame]:
    def calls() -> Iterator[dict[str, Any]]:
        for row, line in jsonl.records(source, mooncake.Line):
            ns = _stamp(source, row, line.timestamp, unit)
            if ns is not None:
                yield {
                    "source_row": row,
                    "stamp_ns": ns,
                    "input_tokens": line.input_length,
                    "output_tokens": line.output_length,
                    "prefix_blocks": line.hash_ids,
                }

    return tabulate(source, calls(), "stamp_ns", "input_tokens", "output_tokens", "prefix_blocks")


def _of_columns(source: Source, unit: str) -> Iterator[pl.DataFrame]:
    for batch in csv.batches(source, _CSV):
        stamps = [
            _stamp(source, row, stamp, unit)
            for row, stamp in batch.select("source_row", "timestamp").iter_rows()
        ]
        ids = pl.col("hash_ids").str.extract_all(r"[^\s\[\],]+")
        read = batch.with_columns(
            stamp_ns=pl.Series(stamps, dtype=pl.Int64),
            prefix_blocks=ids.list.eval(pl.element().cast(pl.UInt64, strict=False)),
        ).drop_nulls("stamp_ns")
        odd = pl.col("prefix_blocks").list.eval(pl.element().is_null()).list.any().fill_null(False)
        for row, written in read.filter(odd).select("source_row", "hash_ids").iter_rows():
            source.reject(
                row,
                f"its hash_ids {written[:100]!r} are not whole numbers of 64 bits.",
                "Write them with blanks between.",
                reason="hash_ids are no numbers",
            )
        yield read.filter(~odd).select(
            "source_row",
            "stamp_ns",
            pl.col("input_length").alias("input_tokens"),
            pl.col("output_length").alias("output_tokens"),
            "prefix_blocks",
        )


def _stamp(source: Source, row: int, stamp: float | str | None, unit: str) -> int | None:
    """Return a timestamp in nanoseconds; None, and the row rejected, if it is none."""
    if stamp is not None:
        return mooncake.stamp_of(source, row, stamp, unit)
    source.reject(
        row, "it has no `timestamp`.", "Say when the call arrived.", reason="no timestamp"
    )
    return None


def _rule(batch: pl.DataFrame, block_tokens: int, name: str) -> tuple[Rule, str]:
    """Return the rule that more of the first rows obey, and a doubt that says so."""
    rows = batch.head(_ROWS).drop_nulls(["input_tokens", "prefix_blocks"])
    count, tokens = rows["prefix_blocks"].list.len().cast(pl.Int64), rows["input_tokens"]
    fit: dict[Rule, int] = {
        "ceil": int((count == (tokens + block_tokens - 1) // block_tokens).sum()),
        "floor": int((count == tokens // block_tokens).sum()),
    }
    best: Rule = "ceil" if fit["ceil"] >= fit["floor"] else "floor"
    if rows.height and not fit[best]:
        raise InputError(
            f"In none of the first {rows.height} rows of {name} do the hash_ids fit blocks of"
            f" {block_tokens} tokens, be the last one partial or left out.",
            "Name another size with --block-tokens.",
        )
    return best, (
        f"The block rule is not recorded; {best} is taken, since {fit[best]} of the first"
        f" {rows.height} rows obey it."
    )


FORMAT = Format(
    sniff,
    read,
    "Mooncake-like JSON lines and CSV of another unit and block size (GMI)",
    "Mooncake's four fields with timestamps that are texts, or as columns of a CSV file",
)
