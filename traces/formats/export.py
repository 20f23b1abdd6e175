"""Writing a trace as another tool's file: streamed, whole or not at all, its losses said."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import polars as pl
import zstandard

from servescope.traces.errors import InputError, OutputFailed
from servescope.traces.formats import clock
from servescope.traces.trace import Trace

# What a reader makes up again from the order of the rows.
_MADE = ("call_id", "source_row", "turn", "parents", "delay_kind")


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is whole; .gz and .zst are packed."""
    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            match path.suffix:
                case ".gz":
                    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
                        yield packed  # type: ignore[misc]
                case ".zst":
                    with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as packed:
                        yield packed
                case _:
                    yield file
        os.replace(partial, path)
    except OSError as error:
        raise OutputFailed.of(path, error) from None
    finally:
        partial.unlink(missing_ok=True)


def placed(trace: Trace, *needed: str) -> tuple[Trace, list[str]]:
    """Return the calls that have all of `needed`, and a sentence about those that have not.

    Raises MissingColumns or InputError where arrivals are needed and the trace has none on one
    clock.
    """
    trace.require(*needed)
    if "arrival_s" in needed and trace.provenance.arrival_basis == "program":
        raise InputError(
            "The programs of this trace have a clock each; the format has one for all calls.",
            "Export to a format of programs, such as aiperf_dag.",
        )
    has = pl.all_horizontal(pl.col(c).is_not_null() for c in needed)
    counts = trace.frame.select(lost=(~has).sum(), kept=has.sum()).collect()
    lost, kept = counts.row(0)
    if not kept:
        raise InputError(
            f"No call of the trace has {' and '.join(needed)}.", "Choose another format."
        )
    if not lost:
        return trace, []
    kept_alone = replace(trace, frame=trace.frame.filter(has))
    return kept_alone, [f"{lost} calls without {' or '.join(needed)} are left out."]


def stamps(trace: Trace) -> pl.Expr:
    """Return the expression of arrivals in whole nanoseconds, from the source's own zero if known.

    Dates are kept by formats that have them; here they begin at 0.
    """
    about = trace.provenance
    zero_ns = about.t0_ns if about.clock == "source" and about.t0_ns else 0
    return clock.to_ns(pl.col("arrival_s")) + zero_ns


def unchained(trace: Trace) -> list[str]:
    """Return a sentence about calls that wait for others than the call before in their program."""
    before = pl.col("call_id").shift(1).over("program_id")
    chain = pl.concat_list(before).list.drop_nulls()
    others = pl.col("parents").is_not_null() & (pl.col("parents") != chain)
    count = trace.frame.select(others.sum()).collect().item()
    return (
        [f"{count} calls wait for others than the call before them; the format has chains only."]
        if count
        else []
    )


def losses(trace: Trace, *held: str) -> list[str]:
    """Return a sentence that names the columns with values that the format has no place for."""
    others = [c for c in trace.columns if c not in held and c not in _MADE]
    counts = trace.frame.select(pl.col(c).count() for c in others).collect()
    lost = [name for name in others if counts[name][0]]
    return [f"The format has no place for {', '.join(lost)}."] if lost else []
