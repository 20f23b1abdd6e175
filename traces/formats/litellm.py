"""LiteLLM spend logs: a record for every request that went through the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from servescope.traces.formats import csv, messages, peek
from servescope.traces.formats.entries import entries
from servescope.traces.formats.format import Format
from servescope.traces.formats.source import Source
from servescope.traces.formats.spans import OddValue, Order, count, gather_spans, moment, seconds
from servescope.traces.status import FAILED, OK
from servescope.traces.trace import Trace

_MARKS = {"request_id", "call_type", "startTime", "endTime", "model"}
_HASH = re.compile("[0-9a-f]{64}")  # how LiteLLM writes a key; anything else might be the key


class _Record(msgspec.Struct):
    startTime: str
    request_id: str | None = None
    call_type: str | None = None
    endTime: str | None = None
    completionStartTime: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_hit: str | bool | None = None
    status: str | None = None
    session_id: str | None = None
    end_user: str | None = None
    user: str | None = None
    team_id: str | None = None
    api_key: str | None = None
    metadata: Any = None
    messages: Any = None
    response: Any = None


_NUMBERS = ("prompt_tokens", "completion_tokens")
_COLUMNS = {name: pl.String for name in _Record.__struct_fields__ if name not in _NUMBERS}


def sniff(head: bytes) -> bool:
    """Recognise a spend log by its fields, as JSON or as the columns of CSV."""
    fields = {path.removeprefix("[].") for path in peek.paths(head)}
    return fields >= _MARKS or set(csv.header(head)) >= _MARKS


def read(source: Source) -> Trace:
    """Read spend logs; the session, where there is one, is the program."""
    order, hits = Order(), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal hits
        for row, record in _records(source):
            try:
                call = _call(record, order, row)
            except OddValue as odd:
                odd.reject(source, row)
                continue
            hits += str(record.cache_hit) == "True"
            yield {"source_row": row, **call}

    trace = gather_spans(
        source,
        rows(),
        "client_id",
        "model",
        "call_class",
        "input_tokens",
        "output_tokens",
        "observed_cached_tokens",
        "observed_reasoning_tokens",
        "observed_ttft_s",
        "status",
        "error",
        "input_messages",
        "input_text",
        "output_text",
        order=order,
        format="litellm",
        clock="utc",
        units="dates and times",
        tick_s=1e-6,
    )
    if hits:
        trace = trace.doubting(
            f"{hits} calls were answered from the gateway's own cache, not by a model."
        )
    return trace


def _records(source: Source) -> Iterator[tuple[int, _Record]]:
    if not set(csv.header(source.head())) >= _MARKS:
        yield from entries(source, _Record)
        return
    needed = {"startTime": pl.String}
    optional = {**_COLUMNS, **dict.fromkeys(_NUMBERS, pl.Int64)}
    for batch in csv.batches(source, needed, optional):
        for cells in batch.iter_rows(named=True):
            row = cells.pop("source_row")
            yield row, _Record(**{**cells, "startTime": cells["startTime"] or ""})


def _call(record: _Record, order: Order, row: int) -> dict[str, Any]:
    start_ns = moment("startTime", record.startTime)
    end_ns = moment("endTime", record.endTime)
    first_ns = moment("completionStartTime", record.completionStartTime)
    if start_ns is None:
        raise OddValue("startTime", record.startTime, "a date and time")
    call_id = record.request_id or str(row)
    texts = messages.texts(messages.decoded(record.messages), messages.decoded(record.response))
    if record.session_id:
        order.said(record.session_id, call_id, start_ns, texts)
    metadata = _object(record.metadata)
    usage = _object(metadata.get("usage_object"))
    prompt, answer = (_object(usage.get(f"{s}_tokens_details")) for s in ("prompt", "completion"))
    failure = _object(metadata.get("error_information"))
    status = record.status or metadata.get("status")
    streamed = first_ns is not None and first_ns != end_ns  # else it is the end, written twice
    key = record.api_key if _HASH.fullmatch(record.api_key or "") else None
    return {
        "call_id": call_id,
        "program_id": record.session_id or None,
        "stamp_ns": start_ns,
        "observed_e2e_s": seconds(start_ns, end_ns),
        "observed_ttft_s": seconds(start_ns, first_ns) if streamed else None,
        "client_id": record.end_user or record.user or record.team_id or key or None,
        "model": record.model or None,
        "call_class": record.call_type or None,
        "input_tokens": record.prompt_tokens,
        "output_tokens": record.completion_tokens,
        "observed_cached_tokens": count(
            {**usage, **prompt}, "cached_tokens", "cache_read_input_tokens"
        ),
        "observed_reasoning_tokens": count(answer, "reasoning_tokens"),
        "status": {"success": OK, "failure": FAILED}.get(str(status)),
        "error": str(failure.get("error_message") or failure.get("error_class") or "") or None,
        **texts.columns,
    }


def _object(value: Any) -> dict[str, Any]:
    value = messages.decoded(value)
    return value if isinstance(value, dict) else {}


FORMAT = Format(
    sniff,
    read,
    "LiteLLM spend logs, JSON or CSV",
    "the fields request_id, call_type, startTime, endTime and model",
)
