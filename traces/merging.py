"""Several traces as one: their calls side by side on one clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import polars as pl

from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance
from servescope.traces.reshape import moved, renamed
from servescope.traces.trace import Trace

_NS = 1_000_000_000
_SALT = 0x9E3779B97F4A7C15  # an odd number: multiplied by the part it spreads over 64 bits


def merge(traces: Sequence[Trace], align: Literal["start", "clock"] = "start") -> Trace:
    """Lay traces over each other, in order of arrival.

    With `align` "start" all of them begin together; with "clock" each call keeps its moment, which
    needs traces stamped in UTC. Names of calls, programs and prefix blocks get the number of their
    trace, so that equal ones stay apart. Raises InputError for traces that have no common clock.
    """
    if not traces:
        raise InputError("There is nothing to merge.", "Name two traces or more.")
    _refuse_programs_clocks(traces)
    shifts = _shifts(traces, align)
    parts = []
    tables: dict[str, list[pl.LazyFrame]] = {}
    for number, (trace, shift_s) in enumerate(zip(traces, shifts, strict=True), start=1):
        frame = renamed(moved(trace.frame, shift_s) if shift_s else trace.frame, f"@{number}")
        if "prefix_blocks" in trace.columns:
            frame = frame.with_columns(pl.col("prefix_blocks").list.eval(_salted(number)))
        if "content_ref" in trace.columns:
            frame = frame.with_columns(pl.concat_str("content_ref", pl.lit(f"@{number}")))
        parts.append(frame)
        for name, table in trace.tables.items():
            if "content_ref" in table.collect_schema().names():
                table = table.with_columns(pl.concat_str("content_ref", pl.lit(f"@{number}")))
            tables.setdefault(name, []).append(table)
    whole = pl.concat(parts, how="diagonal").sort("arrival_s", nulls_last=True, maintain_order=True)
    joined = {name: pl.concat(those, how="diagonal") for name, those in tables.items()}
    return Trace.of(whole, _provenance([trace.provenance for trace in traces], align), joined)


def _salted(number: int) -> pl.Expr:
    salt = number * _SALT % 2**64
    return pl.element() ^ pl.lit(salt, dtype=pl.UInt64)


def _refuse_programs_clocks(traces: Sequence[Trace]) -> None:
    for trace in traces:
        trace.require("arrival_s")
    if len({trace.provenance.arrival_basis for trace in traces}) > 1:
        raise InputError(
            "Some of the traces have one clock, others one for each program.",
            "Merge those of a kind.",
        )


def _shifts(traces: Sequence[Trace], align: str) -> list[float]:
    if align == "start":
        return [0.0] * len(traces)
    zeros = [t.provenance.t0_ns for t in traces if t.provenance.clock == "utc"]
    known = [zero for zero in zeros if zero is not None]
    if len(known) < len(traces):
        raise InputError(
            "Not all of the traces say when in UTC they began.", "Merge them by their starts."
        )
    first = min(known)
    return [(zero - first) / _NS for zero in known]


def _all_of(texts: Iterable[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(text for text in texts if text)) or None


def _provenance(parts: Sequence[Provenance], align: str) -> Provenance:
    first = parts[0]
    same = {
        name: value
        for name in ("block_tokens", "block_rule", "block_scope", "tokenizer", "clock")
        if all(getattr(part, name) == (value := getattr(first, name)) for part in parts)
    }
    doubts = [doubt for part in parts for doubt in part.doubts]
    sizes = {part.block_tokens for part in parts if part.block_tokens}
    if len(sizes) > 1:
        doubts.append("The traces have prefix blocks of different sizes; no size holds for all.")
    kinds = {part.kind for part in parts}
    earliest = min(parts, key=lambda part: part.t0_ns or 0) if align == "clock" else None
    return Provenance(
        format="merged",
        source=" + ".join(part.source for part in parts),
        kind="derived" if kinds <= {"real", "derived"} else "synthetic",
        licence=_all_of(part.licence for part in parts),
        attribution=_all_of(part.attribution for part in parts),
        t0=earliest.t0 if earliest else None,
        t0_ns=earliest.t0_ns if earliest else None,
        arrival_basis=first.arrival_basis,
        tick_s=max((part.tick_s for part in parts if part.tick_s), default=None),
        inferred={k: v for part in parts for k, v in part.inferred.items()},
        doubts=tuple(dict.fromkeys(doubts)),
        steps=(
            *(f"[{n}] {step}" for n, part in enumerate(parts, start=1) for step in part.steps),
            f"merge of {len(parts)} traces by their {align}",
        ),
        **msgspec.to_builtins(same),
    )
