"""AIBrix workloads: JSON lines of instants, each with the requests that are sent then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from servescope.traces.formats import clock, jsonl, links, mooncake, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.links import Chain
from servescope.traces.formats.source import Source
from servescope.traces.schema import GROUPS
from servescope.traces.trace import Trace

FOLLOWS = "the request before it in its session: the file names no parents"
ADDED = (
    "A session's prompts hold what each turn adds: the client of AIBrix puts the history before"
    " them, so what the server sees is longer than input_tokens."
)


class _Request(msgspec.Struct):
    """A request as AIBrix writes it now, and the names that it gave the lengths before."""

    prompt: str | None = None
    prompt_length: int | None = None
    output_length: int | None = None
    session_id: str | int | None = None
    model: str | None = None
    old_prompt_length: int | None = msgspec.field(name="Prompt Length", default=None)
    old_output_length: int | None = msgspec.field(name="Output Length", default=None)


class _Instant(msgspec.Struct):
    timestamp: int | float
    requests: list[_Request]


def sniff(head: bytes) -> bool:
    """Recognise an instant with requests of AIBrix, or with none."""
    found = peek.paths(head)
    return "timestamp" in found and (
        "requests[].Prompt Length" in found
        or {"requests[].prompt", "requests[].prompt_length"} <= found
        or found == {"timestamp", "requests", "requests[]"}
    )


def read(source: Source) -> Trace:
    """Read instants, in milliseconds unless the user says else; every request is a call.

    A request follows the one before it in its session, where sessions are named.
    """
    unit = source.options.unit or "ms"
    instants = _Instants(source, unit)
    trace = gather(
        source,
        tabulate(source, instants.calls(), *instants.COLUMNS),
        chain=Chain(),
        format="aibrix",
        kind="synthetic",
        t0=lambda ns: mooncake.t0_of(ns, unit),
        clock="source",
        units=mooncake.units_of(unit),
        tick_s=clock.NS_PER[unit] / clock.NS_PER["s"],
    )
    frame = trace.frame
    if not instants.in_session:
        frame = frame.drop(GROUPS["program"])
    if not instants.told:
        frame = frame.drop(GROUPS["content"])
    trace = mooncake.on_its_clock(replace(trace, frame=frame))
    if not instants.in_session:
        return trace
    return trace.known(inferred={"parents": FOLLOWS, "delay_s": links.GAPS}).doubting(ADDED)


@dataclass
class _Instants:
    """Turns lines into calls, and counts what columns they need."""

    COLUMNS = (
        *("call_id", "program_id", "model", "stamp_ns", "input_tokens", "output_tokens"),
        "input_text",
    )
    source: Source
    unit: str
    in_session: int = 0
    told: int = 0

    def calls(self) -> Iterator[dict[str, Any]]:
        for row, line in jsonl.records(self.source, _Instant):
            ns = mooncake.stamp_of(self.source, row, line.timestamp, self.unit)
            if ns is None:
                continue
            for number, request in enumerate(line.requests):
                session = request.session_id
                self.in_session += session is not None
                self.told += request.prompt is not None
                yield {
                    "source_row": row,
                    "call_id": f"{row}/{number}",
                    "program_id": None if session is None else str(session),
                    "model": request.model,
                    "stamp_ns": ns,
                    "input_tokens": _either(request.prompt_length, request.old_prompt_length),
                    "output_tokens": _either(request.output_length, request.old_output_length),
                    "input_text": request.prompt,
                }


def _either(now: int | None, before: int | None) -> int | None:
    return before if now is None else now


FORMAT = Format(
    sniff,
    read,
    "AIBrix workloads: JSON lines of instants with their requests",
    "the fields timestamp and requests, and in these a prompt and its length",
)
