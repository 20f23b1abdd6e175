"""LMCache agent traces: the text of every call of three agents, one session a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.formats import clock, jsonl, links, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

_COLUMNS = ("stamp_ns", "program_id", "input_text", "output_text")


class _Line(msgspec.Struct):
    timestamp: int
    input: str
    output: str
    session_id: str


def sniff(head: bytes) -> bool:
    """Recognise the four fields on the first line, and no others."""
    return peek.paths(head) == set(_Line.__struct_fields__)


def read(source: Source) -> Trace:
    """Read LMCache files: microseconds, and texts of which an empty one was not kept."""
    unit = source.options.unit or "us"
    no_input = no_output = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal no_input, no_output
        for row, line in jsonl.records(source, _Line):
            if not source.options.unit and clock.guess_unit(line.timestamp) != unit:
                source.reject(
                    row,
                    f"'timestamp' is {line.timestamp}, not microseconds since 1970.",
                    "Name the unit with --unit.",
                    reason="timestamp in another unit",
                )
                continue
            no_input += not line.input
            no_output += not line.output
            yield {
                "source_row": row,
                "stamp_ns": line.timestamp * clock.NS_PER[unit],
                "program_id": line.session_id,
                "input_text": line.input or None,
                "output_text": line.output or None,
            }

    trace = gather(
        source,
        tabulate(source, rows(), *_COLUMNS),
        chain=links.Chain("unknown"),
        format="lmcache",
        licence="Apache-2.0",
        attribution="LMCache/lmcache-agent-trace",
        t0=lambda ns: f"{ns // clock.NS_PER[unit]} {unit} since 1970-01-01 UTC",
        clock="utc",
        units=f"epoch {unit}",
        tick_s=clock.NS_PER[unit] / clock.NS_PER["s"],
        inferred={
            "parents": "the order of arrival within a session",
            "delay_s": links.GAPS,
        },
    )
    if no_input:
        trace = trace.doubting(f"{no_input} calls have an empty input: it was not kept.")
    if no_output:
        trace = trace.doubting(
            f"{no_output} calls have an empty output: calls of tools, whose text was not kept."
        )
    return trace


FORMAT = Format(
    sniff,
    read,
    "LMCache agent trace JSON lines, with text",
    "the fields timestamp, input, output and session_id, and no others",
)
