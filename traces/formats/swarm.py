"""SwarmOne recordings: every call of a coding agent, as a recording proxy saw it pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.formats import clock, jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.links import Chain
from servescope.traces.formats.source import Source
from servescope.traces.status import OK
from servescope.traces.trace import Trace

_COLUMNS = (
    "stamp_ns",
    "program_id",
    "model",
    "input_tokens",
    "output_tokens",
    "delay_kind",
    "status",
    "error",
    "observed_ttft_s",
    "observed_e2e_s",
    "input_messages",
)
_PIECES = (
    "Where prompt_tokens is missing, completion_tokens counts pieces of a stream, which may hold"
    " several tokens each."
)


class _Line(msgspec.Struct):
    seq: int
    experiment_id: str
    timestamp: str
    messages: list[dict[str, Any]]
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    total_time_s: float | None = None
    status_code: int | None = None
    error: str | None = None


def sniff(head: bytes) -> bool:
    """Recognise the fields that stand before the messages, which may be long."""
    return peek.paths(head) >= {"seq", "experiment_id", "timestamp", "messages"}


def read(source: Source) -> Trace:
    """Read recordings: a stamp is when the call reached the proxy, an experiment is a program."""
    numbers = defaultdict[str, list[int]](list)
    in_pieces = False

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal in_pieces
        for row, line in jsonl.records(source, _Line):
            stamp = clock.from_iso(line.timestamp)
            if stamp is None or not stamp[1]:
                source.reject(
                    row,
                    f"'timestamp' is {line.timestamp!r}, not a date and time with a zone.",
                    "Recordings write 2026-04-21T11:01:50.094429+00:00; mend the line.",
                    reason="timestamp is no time",
                )
                continue
            numbers[line.experiment_id].append(line.seq)
            in_pieces |= bool(line.completion_tokens) and not line.prompt_tokens
            yield {"source_row": row, "stamp_ns": stamp[0], **_call(line)}

    trace = gather(
        source,
        tabulate(source, rows(), *_COLUMNS),
        chain=Chain("tool"),
        format="swarm",
        t0=lambda ns: f"{clock.text_of(ns)}+00:00",
        clock="utc",
        units="dates and times",
        tick_s=1e-6,
        inferred={"parents": "the order of arrival within an experiment"},
    )
    lost = sum(max(seen) - min(seen) + 1 - len(set(seen)) for seen in numbers.values())
    if lost:
        trace = trace.doubting(f"{lost} calls are missing by their numbers (seq).")
    return trace.doubting(_PIECES) if in_pieces else trace


def _call(line: _Line) -> dict[str, Any]:
    asked_by = line.messages[-1].get("role") if line.messages else None
    status = None
    if line.status_code is not None:
        status = OK if 200 <= line.status_code < 300 else f"http_{line.status_code}"
    return {
        "program_id": line.experiment_id,
        "model": line.model,
        # The recorder writes 0 where the server did not say.
        "input_tokens": line.prompt_tokens or None,
        "output_tokens": line.completion_tokens,
        "delay_kind": asked_by if asked_by in ("tool", "user") else "unknown",
        "status": status,
        "error": line.error,
        "observed_ttft_s": None if line.ttft_ms is None else line.ttft_ms / 1000,
        "observed_e2e_s": line.total_time_s,
        "input_messages": msgspec.json.encode(line.messages).decode(),
    }


FORMAT = Format(
    sniff,
    read,
    "SwarmOne agentic recordings, JSON lines with text",
    "the fields seq, experiment_id, timestamp and messages",
)
