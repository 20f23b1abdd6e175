"""What transforms of a trace are made of: expressions and steps on the canonical table."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import polars as pl

from servescope.traces import schema
from servescope.traces.provenance import Provenance

# A call outside every program is a program of its own.
OWN_PROGRAM = pl.coalesce("program_id", pl.concat_str(pl.lit("call "), "call_id"))
_NS = 1_000_000_000


def draw(names: pl.Expr, seed: int) -> pl.Expr:
    """Return a uniform number in [0, 1) for every name: the same for the same name and seed.

    It depends on nothing else, so it is the same in any order, batch and version of a library.
    """

    def numbers(column: pl.Series) -> pl.Series:
        codes = np.fromiter(
            (zlib.crc32(name.encode()) for name in column), dtype=np.uint64, count=len(column)
        )
        with np.errstate(over="ignore"):  # SplitMix64's finaliser, Steele et al. 2014
            z = codes + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
        return pl.Series(column.name, (z >> np.uint64(11)) * 2.0**-53)

    return names.map_batches(numbers, return_dtype=pl.Float64, is_elementwise=True)


def moved(frame: pl.LazyFrame, by_s: pl.Expr | float) -> pl.LazyFrame:
    """Return the table with every moment `by_s` later, one for all rows or one a row."""
    there = frame.collect_schema().names()
    return frame.with_columns(pl.col(c) + by_s for c in schema.MOMENTS if c in there)


def as_from(provenance: Provenance, since_s: float) -> dict[str, Any]:
    """Return the t0 of a trace whose zero is now `since_s` later."""
    changes: dict[str, Any] = {}
    if provenance.t0 is not None and since_s:
        changes["t0"] = f"{provenance.t0}, plus {since_s:.15g} s"
    if provenance.t0_ns is not None:
        changes["t0_ns"] = provenance.t0_ns + round(since_s * _NS)
    return changes


def renamed(frame: pl.LazyFrame, ending: str) -> pl.LazyFrame:
    """Return the table with an ending on every name of a call and a program."""
    names = frame.collect_schema().names()
    new = [pl.concat_str(c, pl.lit(ending)) for c in ("call_id", "program_id") if c in names]
    if "parents" in names:
        ended = pl.concat_str(pl.element(), pl.lit(ending))
        new.append(pl.col("parents").list.eval(ended))
    return frame.with_columns(new)


def cut_blocks(provenance: Provenance, input_tokens: int) -> pl.Expr:
    """Return the prefix blocks of prompts that are cut to so many tokens."""
    blocks = pl.col("prefix_blocks")
    size, rule = provenance.block_tokens, provenance.block_rule
    if size is None or rule not in ("ceil", "floor"):
        return pl.when(pl.col("input_tokens") <= input_tokens).then(blocks)
    most = -(-input_tokens // size) if rule == "ceil" else input_tokens // size
    return blocks.list.head(most)


def forget_lost_parents(frame: pl.LazyFrame) -> pl.LazyFrame:
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
