"""Langfuse exports: a trace with its observations, or observations as JSON lines or a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.formats import messages, peek
from servescope.traces.formats.entries import entries
from servescope.traces.formats.format import Format
from servescope.traces.formats.source import Source
from servescope.traces.formats.spans import (
    OddValue,
    Order,
    count,
    gather_spans,
    moment,
    seconds,
)
from servescope.traces.status import FAILED, OK
from servescope.traces.trace import Trace

_FLAT = ({"traceId", "startTime", "type"}, {"trace_id", "start_time", "type"})
_HUMP = re.compile("_([a-z])")
_PARENT = {"parentObservationId", "parent_observation_id"}
CACHED = (
    "input_cache_read",
    "input_cached_tokens",
    "cache_read_input_tokens",
    "prompt_details.cache_read",
    "prompt_details.cached_tokens",
)
REASONING = (
    "output_reasoning",
    "output_reasoning_tokens",
    "completion_details.reasoning",
    "completion_details.reasoning_tokens",
)


class _Observation(msgspec.Struct, rename="camel"):
    id: str
    type: str
    trace_id: str | None = None
    parent_observation_id: str | None = None
    name: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    completion_start_time: str | None = None
    latency: float | None = None
    time_to_first_token: float | None = None
    level: str | None = None
    status_message: str | None = None
    model: str | None = None
    provided_model_name: str | None = None
    usage_details: dict[str, float | None] | None = None
    usage: dict[str, Any] | None = None
    session_id: str | None = None
    user_id: str | None = None
    input: Any = None
    output: Any = None


def sniff(head: bytes) -> bool:
    """Recognise a trace with observations, or observations in camelCase or snake_case."""
    found = peek.paths(head)
    if found >= {"trace.id", "observations"}:
        return True
    fields = {path.removeprefix("data").removeprefix("[].") for path in found}
    return bool(fields & _PARENT) and any(fields >= flat for flat in _FLAT)


def read(source: Source) -> Trace:
    """Read a Langfuse export; generations are calls, tools only tell what pauses are.

    The program is the session, or else the trace. Where the tokens that came from a cache are left
    out of `input`, as `total` shows, they are added to the prompt.
    """
    order = Order()

    def rows() -> Iterator[dict[str, Any]]:
        for row, seen in entries(source, _Observation, unit="observation", split=_observations):
            try:
                call = _call(seen, order)
            except OddValue as odd:
                odd.reject(source, row)
                continue
            if call is not None:
                yield {"source_row": row, **call}

    return gather_spans(
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
        format="langfuse",
        clock="utc",
        units="dates and times",
        tick_s=1e-3,
    )


def _call(seen: _Observation, order: Order) -> dict[str, Any] | None:
    """Return the row of a generation; None for any other observation."""
    program = seen.trace_id or seen.session_id or seen.id
    if seen.session_id:
        order.conversations.setdefault(program, seen.session_id)
    kind = seen.type.upper()
    if kind not in ("GENERATION", "TOOL"):
        return None
    end_ns = moment("endTime", seen.end_time)
    if kind == "TOOL":
        if end_ns is not None:
            order.tool(program, end_ns)
        return None
    start_ns = moment("startTime", seen.start_time)
    if start_ns is None:
        raise OddValue("startTime", "", "a date and time")
    texts = messages.texts(seen.input, seen.output)
    order.said(program, seen.id, start_ns, texts)
    e2e_s = seconds(start_ns, end_ns)
    prompt, answer = _tokens(seen)
    usage = seen.usage_details or {}
    return {
        "call_id": seen.id,
        "program_id": program,
        "parents": [seen.parent_observation_id] if seen.parent_observation_id else None,
        "stamp_ns": start_ns,
        "observed_e2e_s": e2e_s,
        "observed_ttft_s": _first_token_s(seen, start_ns, e2e_s),
        "client_id": seen.user_id or None,
        "model": seen.model or seen.provided_model_name or None,
        "call_class": seen.name,
        "input_tokens": prompt,
        "output_tokens": answer,
        "observed_cached_tokens": count(usage, *CACHED),
        "observed_reasoning_tokens": count(usage, *REASONING),
        "status": FAILED if seen.level == "ERROR" else OK,
        "error": seen.status_message or None,
        **texts.columns,
    }


def _tokens(seen: _Observation) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the answer, with the details that add to them."""
    usage = seen.usage_details or seen.usage or {}
    prompt = count(usage, "input", "input_tokens", "prompt_tokens", "promptTokens")
    answer = count(usage, "output", "output_tokens", "completion_tokens", "completionTokens")
    if prompt is None or answer is None or prompt + answer == usage.get("total"):
        return prompt, answer
    details = {name: n for name, n in usage.items() if isinstance(n, int | float) and n}
    total = details.pop("total", None)
    if sum(details.values()) != total:
        return prompt, answer
    of_answer = [n for name, n in details.items() if name.startswith(("output", "completion"))]
    return int(total - sum(of_answer)), int(sum(of_answer))


def _first_token_s(seen: _Observation, start_ns: int, e2e_s: float | None) -> float | None:
    """Return the time to first token in seconds.

    Some exports write it and the latency in milliseconds; the times of the span tell.
    """
    if seen.completion_start_time:
        return seconds(start_ns, moment("completionStartTime", seen.completion_start_time))
    if seen.time_to_first_token is None:
        return None
    in_ms = e2e_s and seen.latency and seen.latency > 100 * e2e_s
    return seen.time_to_first_token / 1000 if in_ms else seen.time_to_first_token


def _observations(record: Any) -> list[Any]:
    """Return the observations of a trace, of a page of the API, or a lone one, in camelCase."""
    if not isinstance(record, dict):
        return [record]
    trace = msgspec.convert(record.get("trace") or {}, dict[str, Any])
    of_all = {key: trace[key] for key in ("sessionId", "userId") if trace.get(key)}
    if trace.get("id"):
        of_all["traceId"] = trace["id"]
    found = record.get("observations", record.get("data", [record]))
    return [
        {**of_all, **_camel(seen)} if isinstance(seen, dict) else seen
        for seen in msgspec.convert(found, list[Any])
    ]


def _camel(seen: dict[str, Any]) -> dict[str, Any]:
    """Return the fields under the names of the API; empty text is no value, as in bulk exports."""
    fields = {_HUMP.sub(lambda found: found[1].upper(), name): v for name, v in seen.items()}
    usage = messages.decoded(fields.get("usageDetails"))
    return {**{name: v for name, v in fields.items() if v != ""}, "usageDetails": usage or None}


FORMAT = Format(
    sniff,
    read,
    "Langfuse exports: a trace with its observations, or observations alone",
    "trace and observations, or the fields traceId, parentObservationId, type and startTime",
)
