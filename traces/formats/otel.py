"""OpenTelemetry spans of LLM calls by GenAI or OpenInference names, OTLP/JSON or a trace a file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
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

# Names of one thing, the current one first.
INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
CACHED = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
    "llm.token_count.prompt_details.cache_read",
)
REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "llm.token_count.completion_details.reasoning",
)
MODEL = (
    "gen_ai.request.model",
    "llm.model_name",
    "llm.request.model_name",
    "gen_ai.response.model",
)
CONVERSATION = ("gen_ai.conversation.id", "session.id", "exgentic.session.id")
CLIENT = ("user.id", "enduser.id", "service.name")
FIRST_CHUNK = ("gen_ai.response.time_to_first_chunk", "gen_ai.response.time_to_first_token")
ASKED = ("gen_ai.input.messages", "gen_ai.prompt", "input.value")
GIVEN = ("gen_ai.output.messages", "gen_ai.output.text", "gen_ai.completion", "output.value")
_CALLS = {"chat", "text_completion", "completion", "generate_content"}
_FLAT = re.compile(
    r"(gen_ai\.prompt|llm\.input_messages|gen_ai\.completion|llm\.output_messages)"
    r"\.(\d+)\.(?:message\.)?(role|content)"
)


class _Status(msgspec.Struct):
    code: int | str | None = None
    message: str | None = None


class _Span(msgspec.Struct):
    trace_id: str
    span_id: str
    name: str | None = None
    parent_span_id: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: dict[str, Any] = {}
    resource_attributes: dict[str, Any] = {}
    status: _Status | None = None


def sniff(head: bytes) -> bool:
    """Recognise OTLP/JSON by resourceSpans, a trace of a file by spans with ids and attributes."""
    found = peek.paths(head)
    spans = {"spans[].trace_id", "spans[].span_id", "spans[].start_time", "spans[].attributes"}
    return bool(found & {"resourceSpans", "resource_spans"}) or found >= spans


def read(source: Source) -> Trace:
    """Read spans; calls of an LLM are rows, spans of tools only tell what pauses are.

    The program is the conversation or session that a span of the trace names, or else the trace.
    """
    order, exact = Order(), True

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal exact
        for row, span in entries(source, _Span, unit="span", split=_spans):
            exact &= span.start_time_unix_nano is not None
            try:
                call = _call(span, order)
            except OddValue as odd:
                odd.reject(source, row)
                continue
            if call is not None:
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
        format="otel",
        clock="utc",
        units="Unix nanoseconds, or dates and times",
    )
    return trace.known(tick_s=1e-9 if exact else 1e-6)


def _call(span: _Span, order: Order) -> dict[str, Any] | None:
    """Return the row of an LLM call; None for any other span, which the order may learn from."""
    known = {**span.resource_attributes, **span.attributes}
    conversation = _first(known, CONVERSATION)
    if conversation is not None:
        order.conversations.setdefault(span.trace_id, str(conversation))
    kind = _kind(known)
    if kind is None:
        return None
    start_ns = _stamp("start_time", span.start_time_unix_nano, span.start_time)
    end_ns = _stamp("end_time", span.end_time_unix_nano, span.end_time)
    if kind == "tool":
        if end_ns is not None:
            order.tool(span.trace_id, end_ns)
        return None
    if start_ns is None:
        raise OddValue("start_time", "", "a date and time")
    call_id = f"{span.trace_id}/{span.span_id}"
    texts = messages.texts(*_texts(known))
    order.said(span.trace_id, call_id, start_ns, texts)
    failure = known.get("error.type")
    status = span.status or _Status()
    failed = str(status.code).rpartition("_")[2].upper() in ("2", "ERROR") or failure is not None
    ttft_s = _first(known, FIRST_CHUNK)
    if ttft_s is not None and (isinstance(ttft_s, bool) or not isinstance(ttft_s, int | float)):
        raise OddValue(FIRST_CHUNK[0], ttft_s, "a number")
    client, model = _first(known, CLIENT), _first(known, MODEL)
    return {
        "call_id": call_id,
        "program_id": span.trace_id if conversation is None else str(conversation),
        "parents": [f"{span.trace_id}/{span.parent_span_id}"] if span.parent_span_id else None,
        "stamp_ns": start_ns,
        "observed_e2e_s": seconds(start_ns, end_ns),
        "observed_ttft_s": None if ttft_s is None else float(ttft_s),
        "client_id": None if client is None else str(client),
        "model": None if model is None else str(model),
        "call_class": kind,
        "input_tokens": count(known, *INPUT),
        "output_tokens": count(known, *OUTPUT),
        "observed_cached_tokens": count(known, *CACHED),
        "observed_reasoning_tokens": count(known, *REASONING),
        "status": FAILED if failed else OK,
        "error": (status.message or str(failure or "") or None) if failed else None,
        **texts.columns,
    }


def _kind(known: Mapping[str, Any]) -> str | None:
    """Return "tool", the operation of a call of an LLM, or None for what is neither."""
    kind = str(known.get("openinference.span.kind", known.get("traceloop.span.kind", ""))).lower()
    operation = known.get("gen_ai.operation.name", known.get("llm.request.type"))
    if kind == "tool" or operation == "execute_tool":
        return "tool"
    if operation is not None:
        return str(operation) if str(operation) in _CALLS else None
    if kind:
        return "llm" if kind == "llm" else None
    return "llm" if _first(known, (*INPUT, *OUTPUT)) is not None else None


def _texts(known: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the prompt and the answer, however the attributes hold them."""
    flat: dict[bool, dict[int, dict[str, Any]]] = {
        True: defaultdict(dict),
        False: defaultdict(dict),
    }
    for name, value in known.items():
        found = _FLAT.fullmatch(name)
        if found:
            where, number, field = found.groups()
            flat[where in ("gen_ai.prompt", "llm.input_messages")][int(number)][field] = value
    asked, given = ([texts[n] for n in sorted(texts)] for texts in (flat[True], flat[False]))
    prompt = asked or messages.decoded(_first(known, ASKED))
    system = messages.decoded(known.get("gen_ai.system_instructions"))
    if system and isinstance(prompt, list):
        prompt = [{"role": "system", "parts": system}, *prompt]
    return prompt, given or _first(known, GIVEN)


def _first(known: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((known[name] for name in names if known.get(name) is not None), None)


def _stamp(name: str, unix_ns: int | str | None, text: str | None) -> int | None:
    if unix_ns is None:
        return moment(name, text)
    try:
        return int(unix_ns) or None
    except ValueError:
        raise OddValue(f"{name}_unix_nano", unix_ns, "a whole number") from None


def _spans(document: Any) -> list[dict[str, Any]]:
    """Return the spans of a document or a line in either dialect, attributes as plain objects."""
    spans = _listed(document, "spans")
    for holder in _listed(document, "resourceSpans", "resource_spans"):
        resource = _plain(_member(holder, "resource").get("attributes"))
        for scope in _listed(holder, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            for span in _listed(scope, "spans"):
                tidy = {_snake(name): value for name, value in span.items()}
                tidy["attributes"] = _plain(tidy.get("attributes"))
                spans.append({**tidy, "resource_attributes": resource})
    return spans


def _member(value: Any, name: str) -> dict[str, Any]:
    member = value.get(name) if isinstance(value, dict) else None
    return member if isinstance(member, dict) else {}


def _listed(value: Any, *names: str) -> list[dict[str, Any]]:
    """Return the list under the first of the names; raises ValidationError for anything else."""
    members = msgspec.convert(value, dict[str, Any])
    found: Any = next((members[name] for name in names if members.get(name) is not None), [])
    return msgspec.convert(found, list[dict[str, Any]])


@lru_cache(maxsize=1024)
def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _plain(attributes: Any) -> Any:
    """Turn a list of keys and typed values into an object."""
    if not isinstance(attributes, list):
        return attributes or {}
    pairs = (pair for pair in attributes if isinstance(pair, dict) and "key" in pair)
    return {str(pair["key"]): _value(pair.get("value")) for pair in pairs}


def _value(value: Any) -> Any:
    """Unwrap a typed value; whole numbers come as text, as 64 bits do in JSON."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    kind = _snake(kind)
    if kind == "int_value":
        return int(inner) if str(inner).lstrip("-").isdecimal() else inner
    if kind == "array_value":
        return [_value(member) for member in _member(value, next(iter(value))).get("values", [])]
    if kind == "kvlist_value":
        return _plain(_member(value, next(iter(value))).get("values", []))
    return inner


FORMAT = Format(
    sniff,
    read,
    "OpenTelemetry spans of LLM calls, by GenAI or OpenInference names: OTLP/JSON, or traces",
    "resourceSpans, or spans with trace_id, span_id, start_time and attributes",
)
