"""LangSmith runs: what its SDK posts and patches, or exported runs as JSON lines or a list."""

from __future__ import annotations

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

_CONVERSATION = ("session_id", "thread_id", "conversation_id")


class _Run(msgspec.Struct):
    id: str
    trace_id: str | None = None
    parent_run_id: str | None = None
    run_type: str | None = None
    name: str | None = None
    start_time: str | float | None = None
    end_time: str | float | None = None
    first_token_time: str | float | None = None
    error: str | None = None
    status: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    inputs: Any = None
    outputs: Any = None
    extra: Any = None
    events: list[dict[str, Any]] | None = None
    patched: bool = False  # it came under patch


def sniff(head: bytes) -> bool:
    """Recognise a payload of post and patch, or a run by run_type and its place in a trace."""
    found = peek.paths(head)
    if {"post[].id", "post[].trace_id"} <= found or {"patch[].id", "patch[].trace_id"} <= found:
        return True
    fields = {path.removeprefix("[].") for path in found}
    return fields >= {"id", "run_type", "trace_id", "start_time"}


def read(source: Source) -> Trace:
    """Read runs; those of an LLM are calls, tools only tell what pauses are.

    A run is what was posted when it started with what was patched when it ended. The program is
    the conversation that its metadata name, or else the trace.
    """
    order = Order()

    def rows() -> Iterator[dict[str, Any]]:
        for row, run in _runs(source):
            try:
                call = _call(run, order)
            except OddValue as odd:
                odd.reject(source, row)
                continue
            if call is not None:
                yield {"source_row": row, **call}

    return gather_spans(
        source,
        rows(),
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
        format="langsmith",
        clock="utc",
        units="dates and times, or milliseconds of Unix time",
        tick_s=1e-6,
    )


def _runs(source: Source) -> Iterator[tuple[int, _Run]]:
    """Yield every run once: a run waits for its patch, which may come in a later record."""
    begun: dict[str, tuple[int, _Run]] = {}
    for row, run in entries(source, _Run, unit="run", split=_split):
        if run.patched:
            first, posted = begun.pop(run.id, (row, run))
            yield first, _merged(posted, run)
        elif run.end_time is None:
            begun[run.id] = row, run
        else:
            yield row, run
    yield from begun.values()


def _merged(posted: _Run, patched: _Run) -> _Run:
    changes = {name: getattr(patched, name) for name in _Run.__struct_fields__}
    return msgspec.structs.replace(
        posted, **{name: value for name, value in changes.items() if value not in (None, {}, [])}
    )


def _call(run: _Run, order: Order) -> dict[str, Any] | None:
    """Return the row of a run of an LLM; None for any other run."""
    extra = _object(run.extra)
    metadata = _object(extra.get("metadata"))
    trace_id = run.trace_id or run.id
    conversation = next((str(metadata[key]) for key in _CONVERSATION if metadata.get(key)), None)
    if conversation:
        order.conversations.setdefault(trace_id, conversation)
    if run.run_type not in ("llm", "tool"):
        return None
    end_ns = moment("end_time", run.end_time)
    if run.run_type == "tool":
        if end_ns is not None:
            order.tool(trace_id, end_ns)
        return None
    start_ns = moment("start_time", run.start_time)
    if start_ns is None:
        raise OddValue("start_time", "", "a date and time")
    asked, given = messages.decoded(run.inputs), messages.decoded(run.outputs)
    texts = messages.texts(asked, given)
    order.said(trace_id, run.id, start_ns, texts)
    usage = _usage(run, _object(given))
    inside, outside = (_object(usage.get(f"{side}_token_details")) for side in ("input", "output"))
    succeeded = run.status == "success" or (run.status is None and end_ns is not None)
    failed = bool(run.error) or run.status == "error"
    invocation = _object(extra.get("invocation_params"))
    model = metadata.get("ls_model_name") or invocation.get("model") or _object(asked).get("model")
    return {
        "call_id": run.id,
        "program_id": conversation or trace_id,
        "parents": [run.parent_run_id] if run.parent_run_id else None,
        "stamp_ns": start_ns,
        "observed_e2e_s": seconds(start_ns, end_ns),
        "observed_ttft_s": seconds(start_ns, _first_token_ns(run)),
        "model": str(model) if model else None,
        "call_class": run.name,
        "input_tokens": count(usage, "input_tokens", "prompt_tokens"),
        "output_tokens": count(usage, "output_tokens", "completion_tokens"),
        "observed_cached_tokens": count(inside, "cache_read"),
        "observed_reasoning_tokens": count(outside, "reasoning"),
        "status": FAILED if failed else OK if succeeded else None,
        "error": run.error or None,
        **texts.columns,
    }


def _usage(run: _Run, outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the first token counts there are; an exported run without any says 0 of both."""
    for usage in (
        outputs.get("usage_metadata"),
        _object(outputs.get("llm_output")).get("token_usage"),
        outputs.get("usage"),
    ):
        if isinstance(usage, dict) and usage:
            return usage
    if run.prompt_tokens or run.completion_tokens:
        return {"prompt_tokens": run.prompt_tokens, "completion_tokens": run.completion_tokens}
    return {}


def _first_token_ns(run: _Run) -> int | None:
    """Return when the first piece of the answer came that is not empty."""
    if run.first_token_time is not None:
        return moment("first_token_time", run.first_token_time)
    for event in run.events or ():
        if event.get("name") == "new_token" and _says(_object(event.get("kwargs")).get("token")):
            return moment("events.time", event.get("time"))
    return None


def _says(token: Any) -> bool:
    if not isinstance(token, dict):
        return bool(token)
    choices = token.get("choices")
    deltas = [_object(_object(c).get("delta")) for c in choices or ()]
    return any(delta.get("content") or delta.get("tool_calls") for delta in deltas)


def _object(value: Any) -> dict[str, Any]:
    value = messages.decoded(value)
    return value if isinstance(value, dict) else {}


def _split(record: Any) -> list[Any]:
    """Return the runs of a payload, or a lone run."""
    if not isinstance(record, dict) or not record.keys() & {"post", "patch"}:
        return [record]
    posted = msgspec.convert(record.get("post") or [], list[dict[str, Any]])
    patched = msgspec.convert(record.get("patch") or [], list[dict[str, Any]])
    return [*posted, *({**run, "patched": True} for run in patched)]


FORMAT = Format(
    sniff,
    read,
    "LangSmith runs: payloads of post and patch, or exported runs",
    "runs with an id and a trace_id under post or patch, or the fields run_type and trace_id",
)
