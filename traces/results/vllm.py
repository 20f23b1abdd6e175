"""`vllm bench serve --save-result --save-detailed`: lists with one entry a request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.formats import peek
from servescope.traces.formats.source import File
from servescope.traces.results import document, failures
from servescope.traces.results.document import Whole
from servescope.traces.results.result import Result
from servescope.traces.results.tool import Tool
from servescope.traces.status import OK

RELEASED: Final = (
    "vLLM does not record when a call was to be sent, only when its client released it: latencies"
    " from due are from then, and how late that was is in no number."
)
FROM_SENT: Final = (
    "vLLM does not record here when a call was due: latencies from due are from sent, and what a"
    " call waited in the client is in no number."
)
MISCOUNTED: Final = (
    "vLLM counted {said} completed calls, and here {found} are: one with an error, or without a"
    " first token, counts as failed."
)


class _Told(msgspec.Struct):
    """What every result says. The lists are there with --save-detailed alone."""

    model_id: str
    backend: str | None = None
    endpoint_type: str | None = None
    date: str | None = None
    request_rate: float | str | None = None
    burstiness: float | str | None = None
    max_concurrency: Whole | None = None
    ramp_up_strategy: str | None = None
    ramp_up_start_rps: float | None = None
    ramp_up_end_rps: float | None = None
    completed: Whole | None = None
    total_input_sequences: int | None = None
    input_lens: list[Whole] | None = None
    output_lens: list[Whole] | None = None
    start_times: list[float] | None = None
    ttfts: list[float] | None = None
    itls: list[list[float]] | None = None
    errors: list[str | None] | None = None
    latencies: list[float] | None = None
    queue_times: list[float] | None = None
    server_queue_times: list[float | None] | None = None


_LOAD = (
    "request_rate", "burstiness", "max_concurrency", "ramp_up_strategy", "ramp_up_start_rps",
    "ramp_up_end_rps",
)  # fmt: skip
_DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "errors")
_MORE = ("start_times", "latencies", "queue_times", "server_queue_times")


def sniff(head: bytes) -> bool:
    """Recognise the setup that every result begins with."""
    return {"model_id", "tokenizer_id", "num_prompts"} <= peek.paths(head)


def read(file: File) -> list[Result]:
    """Read a result, or all that --append-result put into one file, a line each."""
    content = file.content
    lines = [text for text in content.split(b"\n") if text and not text.isspace()]
    one = len(lines) < 2 or not sniff(lines[0])
    results = []
    for number, text in enumerate([content] if one else lines, start=1):
        where = file.name if one else f"{file.name}, line {number},"
        told = document.decode(text, _Told, where)
        results.append(_result(told, where, None if one else str(number)))
    return results


def _result(told: _Told, where: str, part: str | None) -> Result:
    if told.total_input_sequences is not None:
        raise NotAResult(
            f"{where} is a benchmark of embeddings, whose calls have no tokens to time.",
            "Give the result of a benchmark that generates.",
        )
    lists = {name: getattr(told, name) for name in _DETAILS}
    if any(values is None for values in lists.values()):
        raise NotAResult(
            f"{where} holds only a summary of vLLM's, and no call by itself.",
            "Run the benchmark again with --save-detailed beside --save-result.",
        )
    if told.start_times is None:
        raise NotAResult(
            f"{where} does not say when its calls were sent: an older vLLM wrote it.",
            "Run the benchmark again with a vLLM that saves start_times.",
        )
    lists |= {name: values for name in _MORE if (values := getattr(told, name)) is not None}
    if len({len(values) for values in lists.values()}) > 1:
        told_of = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise BadRow(f"{where} says as many things of its calls as: {told_of}.", document.MEND)
    rows = list(_rows(told, lists))
    if not rows:
        raise NotAResult(f"{where} holds no call.", "Give the result of a benchmark of some.")
    doubts = [RELEASED if told.queue_times is not None else FROM_SENT]
    found = sum(row["status"] == OK for row in rows)
    if told.completed not in (None, found):
        doubts.append(MISCOUNTED.format(said=told.completed, found=found))
    return Result.of(
        rows,
        where,
        tool="vllm",
        part=part,
        model=told.model_id,
        date=told.date,
        load={name: v for name in _LOAD if (v := getattr(told, name)) is not None},
        asked={"backend": backend} if (backend := told.backend or told.endpoint_type) else {},
        doubts=tuple(doubts),
    )


def _rows(told: _Told, lists: dict[str, Any]) -> Iterator[dict[str, Any]]:
    assert told.start_times is not None
    waits = told.queue_times or [0.0] * len(told.start_times)
    dues = [sent - wait for sent, wait in zip(told.start_times, waits, strict=True)]
    zero = min(dues, default=0.0)
    for number, sent in enumerate(told.start_times):
        one = {name: values[number] for name, values in lists.items()}
        sent_s, ttft = sent - zero, one["ttfts"]
        # a call that failed before its first chunk has a TTFT of 0, and one that failed a latency
        answered = not one["errors"] and ttft > 0
        error = _last_line(one["errors"])
        row: dict[str, Any] = {
            "call_id": str(number),
            "program_id": str(number),
            "turn": 0,
            "parents": [],
            "model": told.model_id,
            "source_row": number + 1,
            "status": OK if answered else failures.of_exception(_class(error)),
            "error": None if answered else error,
            "due_s": dues[number] - zero,
            "sent_s": sent_s,
            "input_tokens": one["input_lens"],
            "output_tokens": one["output_lens"] if answered else None,
            "observed_queue_s": one.get("server_queue_times"),
        }
        if ttft != 0:
            chunks = list(itertools.accumulate(one["itls"], initial=sent_s + ttft))
            row |= {"first_token_s": chunks[0], "last_token_s": chunks[-1], "chunk_s": chunks}
        if answered and "latencies" in one:
            row["last_token_s"] = sent_s + one["latencies"]
        yield row


def _last_line(error: str | None) -> str | None:
    """Return what an error says; vLLM keeps a whole traceback, which ends with it."""
    said = (error or "").strip().splitlines()
    return said[-1].strip() if said else None


def _class(error: str | None) -> str | None:
    """Return which exception the last line of a traceback names, as far as it does."""
    return error and error.partition(":")[0]


TOOL = Tool(
    "vLLM",
    "0.33.0",
    sniff,
    read,
    "the JSON of `vllm bench serve --save-result --save-detailed`, or of --append-result",
)
