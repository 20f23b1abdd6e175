"""OpenAI batch files: the requests that were handed in, or the results that came back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from servescope.traces.errors import InputError
from servescope.traces.formats import jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.openai_messages import Answer, said
from servescope.traces.formats.sharegpt import NO_TIMES
from servescope.traces.formats.source import Source
from servescope.traces.schema import GROUPS
from servescope.traces.status import FAILED, OK
from servescope.traces.trace import Trace

REQUESTS = "These are the requests of a batch: how long the answers were stands in its output file."
_CLASSES = {
    "chat.completion": "chat",
    "text_completion": "completion",
    "response": "response",
    "list": "embedding",
}
_BY_URL = {
    "/chat/completions": "chat",
    "/completions": "completion",
    "/responses": "response",
    "/embeddings": "embedding",
}
_COLUMNS = (
    "stamp_ns",
    "call_id",
    "client_id",
    "call_class",
    "model",
    "input_tokens",
    "output_tokens",
    "status",
    "error",
    "observed_cached_tokens",
    "observed_reasoning_tokens",
    "input_text",
    "input_messages",
    "output_text",
)


class _Request(msgspec.Struct):
    model: str | None = None
    user: str | None = None
    messages: list[Any] | None = None
    prompt: Any = None
    input: Any = None


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: Answer | None = None


class _Line(msgspec.Struct):
    custom_id: str
    url: str | None = None
    body: _Request | None = None
    response: _Response | None = None
    error: Any = None

    @property
    def is_request(self) -> bool:
        return self.body is not None


def sniff(head: bytes) -> bool:
    """Recognise a line with a custom_id and a request, or with one and its result."""
    fields = peek.paths(head)
    return "custom_id" in fields and (fields >= {"url", "body"} or "response" in fields)


def read(source: Source) -> Trace:
    """Read the requests or the results of a batch; lines are in any order and have no times.

    A call has the name that the user gave it, unless several files may give one name twice.
    Raises InputError where both requests and results are given: every call would be there twice.
    """
    alone = len(source.files) == 1
    requests: bool | None = None
    embeddings = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal requests, embeddings
        for row, line in jsonl.records(source, _Line):
            if requests not in (None, line.is_request):
                raise InputError(
                    f"{source.where(row)}: requests and results of a batch are mixed.",
                    "Name only the output file: it has the token counts.",
                )
            requests = line.is_request
            call = _asked(line) if requests else _answered(line)
            embeddings += call["call_class"] == "embedding"
            yield {
                "source_row": row,
                "call_id": line.custom_id if alone else str(row),
                **call,
            }

    trace = gather(source, tabulate(source, rows(), *_COLUMNS), format="openai_batch")
    doubts = [NO_TIMES]
    if requests:
        doubts.append(REQUESTS)
        unknown = {*GROUPS["outcome"], *GROUPS["observed"]}
        kept = [name for name in trace.columns if name not in unknown]
        trace = replace(trace, frame=trace.frame.select(kept))
    if embeddings:
        doubts.append(
            f"{embeddings} calls are embeddings: they generate nothing, so they have no"
            " output_tokens."
        )
    return trace.doubting(*doubts)


def _asked(line: _Line) -> dict[str, Any]:
    body = line.body or _Request()
    end = next((end for end in _BY_URL if (line.url or "").endswith(end)), None)
    return {
        "client_id": body.user,
        "call_class": _BY_URL[end] if end else None,
        "model": body.model,
        **_prompt(body),
    }


def _prompt(body: _Request) -> dict[str, Any]:
    """Return the prompt of a request: messages, a text, texts, or nothing but token ids."""
    given = next((g for g in (body.messages, body.prompt, body.input) if g), None)
    if isinstance(given, str):
        return {"input_text": given}
    if not isinstance(given, list):
        return {}
    if all(isinstance(member, str) for member in given):
        return {"input_text": "\n".join(given)}
    if all(isinstance(member, int) for member in given):
        return {"input_tokens": len(given)}
    return {"input_messages": msgspec.json.encode(given).decode()}


def _answered(line: _Line) -> dict[str, Any]:
    response = line.response or _Response()
    body = response.body or Answer()
    kind = _CLASSES.get(body.object or "")
    counts = body.usage.columns if body.usage else {}
    if kind == "embedding":
        counts = {**counts, "output_tokens": None}
    return {
        "call_class": kind,
        "model": body.model,
        **counts,
        "status": _status(line, response),
        "error": said(line.error if line.error is not None else body.error),
        "output_text": body.text,
    }


def _status(line: _Line, response: _Response) -> str | None:
    if response.status_code is not None and response.status_code >= 400:
        return f"http_{response.status_code}"
    if line.error is not None:
        return FAILED
    return None if line.response is None else OK


FORMAT = Format(
    sniff,
    read,
    "OpenAI batch files: requests, or results with usage",
    "the fields custom_id, url and body, or custom_id and response",
)
