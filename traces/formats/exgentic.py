"""Exgentic agent traces: spans of LLM calls, flattened to one line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.formats import jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.source import Source
from servescope.traces.formats.spans import OddValue, gather_spans, moment, seconds
from servescope.traces.status import FAILED, OK
from servescope.traces.trace import Trace

_ERROR = 2
_MARKS = {"session_id", "span_id", "span_index", "input_tokens", "is_error", "request_model"}


class _Line(msgspec.Struct):
    session_id: str
    span_id: str
    input_tokens: int | None
    output_tokens: int | None
    start_time_iso: str | None = None
    start_time_s: float | None = None
    end_time_iso: str | None = None
    end_time_s: float | None = None
    is_error: bool | None = None
    status_code: int | None = None
    status_message: str | None = None
    request_model: str | None = None
    benchmark: str | None = None
    harness: str | None = None


def sniff(head: bytes) -> bool:
    """Recognise a flattened span by its fields."""
    return peek.paths(head) >= _MARKS


def read(source: Source) -> Trace:
    """Read flattened spans; the session is the program, and a graph, for its calls overlap."""
    return gather_spans(
        source,
        _rows(source),
        "client_id",
        "model",
        "call_class",
        "input_tokens",
        "output_tokens",
        "status",
        "error",
        format="exgentic",
        licence="CDLA-Permissive-2.0",
        attribution="Exgentic agent-llm-traces",
        clock="utc",
        units="dates and times, or seconds of Unix time",
        tick_s=1e-6,
    )


def _rows(source: Source) -> Iterator[dict[str, Any]]:
    for row, line in jsonl.records(source, _Line):
        # The same moment stands there twice; the text is exact whatever wrote it.
        try:
            start_ns = moment("start_time", line.start_time_iso or line.start_time_s, "s")
            end_ns = moment("end_time", line.end_time_iso or line.end_time_s, "s")
            if start_ns is None:
                raise OddValue("start_time_iso", "", "a date and time")
        except OddValue as odd:
            odd.reject(source, row)
            continue
        failed = line.is_error or line.status_code == _ERROR
        unsaid = line.is_error is None and line.status_code is None
        yield {
            "source_row": row,
            "call_id": line.span_id,
            "program_id": line.session_id,
            "client_id": line.harness,
            "model": line.request_model,
            "call_class": line.benchmark,
            "stamp_ns": start_ns,
            "observed_e2e_s": seconds(start_ns, end_ns),
            "input_tokens": line.input_tokens,
            "output_tokens": line.output_tokens,
            "status": FAILED if failed else None if unsaid else OK,
            "error": line.status_message or None,
        }


FORMAT = Format(
    sniff,
    read,
    "Exgentic agent traces, flattened: one span of an LLM call a line",
    "the fields session_id, span_id, span_index, is_error and request_model",
)
