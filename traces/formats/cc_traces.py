"""SemiAnalysis' Claude Code traces, flattened to one JSON line a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.formats import clock, jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.formats.weka import NO_SHARED_CLOCK
from servescope.traces.trace import Trace

NO_BLOCKS = "Of the prefix blocks only a count and a digest is kept: reuse cannot be rebuilt."
_COLUMNS = (
    *("stamp_ns", "program_id", "turn", "parents", "delay_s", "delay_kind", "model"),
    *("input_tokens", "output_tokens", "observed_ttft_s", "observed_e2e_s"),
)


class _Line(msgspec.Struct):
    session_id: str
    turn_index: int
    request_arrival_delta_s: float
    think_time_s: float | None = None
    api_time_s: float | None = None
    ttft_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    model_id: str | None = None


def sniff(head: bytes) -> bool:
    """Recognise a call by when it came in its session."""
    return peek.paths(head) >= {"session_id", "turn_index", "request_arrival_delta_s"}


def read(source: Source) -> Trace:
    """Read calls; each waits for the one before it in its session."""

    def rows() -> Iterator[dict[str, Any]]:
        last: dict[str, str] = {}
        for row, line in jsonl.records(source, _Line):
            before = last.get(line.session_id)
            stamp = clock.from_number(line.request_arrival_delta_s, "s")
            if stamp is None:
                source.reject(
                    row,
                    f"'request_arrival_delta_s' is {line.request_arrival_delta_s}, no moment.",
                    "It is in seconds since the session began; mend the line.",
                    reason="request_arrival_delta_s is no time",
                )
                continue
            last[line.session_id] = str(row)
            yield {
                "source_row": row,
                "stamp_ns": stamp,
                "program_id": line.session_id,
                "turn": line.turn_index,
                "parents": [] if before is None else [before],
                "delay_s": line.think_time_s,
                "delay_kind": "unknown",
                "model": line.model_id,
                "input_tokens": line.input_tokens,
                "output_tokens": line.output_tokens,
                "observed_ttft_s": line.ttft_s,
                "observed_e2e_s": line.api_time_s,
            }

    return gather(
        source,
        tabulate(source, rows(), *_COLUMNS),
        zero_ns=0,
        format="cc_traces",
        arrival_basis="program",
        clock="source",
        units="seconds since the session began",
        licence="Apache-2.0",
        attribution="SemiAnalysis InferenceX agentic traces",
        doubts=[NO_SHARED_CLOCK, NO_BLOCKS],
        inferred={"parents": "the order of calls in a session"},
    )


FORMAT = Format(
    sniff,
    read,
    "SemiAnalysis Claude Code traces, flattened",
    "the fields session_id, turn_index and request_arrival_delta_s",
)
