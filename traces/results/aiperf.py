"""AIPerf's `profile_export.jsonl`: a record a line, with its summary and its prompts beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.formats import clock, peek
from servescope.traces.formats.source import File
from servescope.traces.results import document, failures, requests
from servescope.traces.results.document import Integer, Whole
from servescope.traces.results.result import Result
from servescope.traces.results.tool import Tool
from servescope.traces.status import CANCELLED, OK, SERVER

ISSUED: Final = (
    "AIPerf does not record when a call was to be sent, only when its pacer issued it: latencies"
    " from due are from then, and how late the pacer was is in no number."
)
FROM_SENT: Final = (
    "AIPerf does not record here when a call was due: latencies from due are from sent."
)
WARMED: Final = "{calls} calls of AIPerf's warm-up are left out, as in its own summary."
ALONE: Final = (
    "{missing} is not beside the file: {lost}."
    " Import the file from the folder that AIPerf made to know more."
)
_CANCELLED_CODE: Final = 499


class _Metadata(msgspec.Struct):
    session_num: Integer
    request_start_ns: Whole
    request_end_ns: Whole
    benchmark_phase: str
    credit_issued_ns: Whole | None = None
    request_ack_ns: Whole | None = None
    x_correlation_id: str | None = None
    root_correlation_id: str | None = None
    parent_correlation_id: str | None = None
    conversation_id: str | None = None
    turn_index: Integer | None = None
    profiling_index: Integer | None = None
    phase_name: str | None = None
    worker_id: str | None = None
    was_cancelled: bool = False


class _Value(msgspec.Struct):
    value: float | list[float] | str | None
    unit: str | None = None


class _Error(msgspec.Struct):
    message: str
    code: Integer | None = None
    type: str | None = None


class _Record(msgspec.Struct):
    metadata: _Metadata
    metrics: dict[str, _Value]
    error: _Error | None = None

    def ns(self, name: str) -> list[int] | None:
        """Return a metric of time in whole nanoseconds, one or several; None if it is not there."""
        metric = self.metrics.get(name)
        if metric is None or metric.value is None or isinstance(metric.value, str):
            return None
        if metric.unit not in clock.NS_PER:
            raise BadRow(f"A {name} is in {metric.unit!r}, which is no time.", document.MEND)
        values = metric.value if isinstance(metric.value, list) else [metric.value]
        found = [clock.from_number(value, metric.unit) for value in values]
        return [ns for ns in found if ns is not None] if None not in found else None

    def count(self, *names: str) -> int | None:
        """Return the first of these metrics that is there and counts something."""
        for name in names:
            metric = self.metrics.get(name)
            if metric and isinstance(metric.value, float) and 0 <= metric.value < 2**63:
                return int(metric.value)
        return None


class _Model(msgspec.Struct):
    name: str | None = None


class _Models(msgspec.Struct):
    items: list[_Model] = []


class _Endpoint(msgspec.Struct):
    urls: list[str] = []
    type: str | None = None


class _Config(msgspec.Struct):
    models: _Models = msgspec.field(default_factory=_Models)
    endpoint: _Endpoint = msgspec.field(default_factory=_Endpoint)
    phases: list[dict[str, Any]] = []


class _RunInfo(msgspec.Struct):
    random_seed: Integer | None = None


class _Summary(msgspec.Struct):
    """What profile_export_aiperf.json says of the whole."""

    aiperf_version: str | None = None
    input_config: _Config | None = None
    run_info: _RunInfo | None = None
    was_cancelled: bool | None = None
    is_complete: bool | None = None
    incomplete_reason: str | None = None


class _Session(msgspec.Struct):
    session_id: str
    payloads: list[dict[str, Any]] = []


class _Inputs(msgspec.Struct):
    """What inputs.json says: the payload of every turn of every session."""

    data: list[_Session] = []


def sniff(head: bytes) -> bool:
    """Recognise a record, its summary or its raw form; only the first can be read."""
    found = peek.paths(head)
    record = {"metadata.session_num", "metadata.request_start_ns"} <= found
    return record or {"aiperf_version", "benchmark_id"} <= found


def read(file: File) -> list[Result]:
    """Read the records: one result for each profiling phase.

    Records of a warm-up are counted and left out, as in AIPerf's own summary.
    """
    found = peek.paths(file.head())
    if "metadata.session_num" not in found or "metrics" not in found:
        what = "raw records" if "metadata.session_num" in found else "summary"
        raise NotAResult(
            f"{file.name} is AIPerf's {what}, and not its records.",
            "Give profile_export.jsonl, which lies beside it.",
        )
    phases: defaultdict[int, list[_Record]] = defaultdict(list)
    warmup = 0
    for _, record in document.lines(file, _Record):
        if record.metadata.benchmark_phase == "warmup":
            warmup += 1
        else:
            phases[record.metadata.profiling_index or 0].append(record)
    document.refuse_empty(phases, file)
    around = _Around.of(file)
    return [
        around.result(file, records, phases[index][0].metadata.phase_name, len(phases) > 1, warmup)
        for index, records in sorted(phases.items())
    ]


@dataclass(frozen=True, slots=True)
class _Around:
    """What lies beside the records."""

    summary: _Summary
    payloads: dict[tuple[str, int], dict[str, Any]]
    doubts: tuple[str, ...]

    @classmethod
    def of(cls, file: File) -> _Around:
        stem = file.path.name.partition(".")[0]
        doubts = []
        name = "profile_export_aiperf.json" if stem == "profile_export" else f"{stem}.json"
        summary = _beside(file, name)
        if summary is None:
            lost = "model, endpoint, load and version of this run are not known"
            doubts.append(ALONE.format(missing=name, lost=lost))
        inputs = _beside(file, "inputs.json")
        if inputs is None:
            lost = "what was asked is not known but by its length"
            doubts.append(ALONE.format(missing="inputs.json", lost=lost))
        told = _Inputs()
        if inputs is not None:
            told = document.decode(inputs.content, _Inputs, inputs.name)
        return cls(
            document.decode(summary.content, _Summary, summary.name) if summary else _Summary(),
            {
                (session.session_id, turn): payload
                for session in told.data
                for turn, payload in enumerate(session.payloads)
            },
            tuple(doubts),
        )

    def result(
        self, file: File, records: list[_Record], phase: str | None, several: bool, warmup: int
    ) -> Result:
        """Return the result of one phase, its records in the order in which they were issued."""
        records.sort(key=lambda r: (r.metadata.session_num, r.metadata.request_start_ns))
        zero = min(_due_ns(record.metadata) for record in records)
        issued = all(record.metadata.credit_issued_ns is not None for record in records)
        config = self.summary.input_config or _Config()
        models = [model.name for model in config.models.items if model.name]
        doubts = [ISSUED if issued else FROM_SENT, *self.doubts]
        if warmup:
            doubts.append(WARMED.format(calls=warmup))
        if self.summary.was_cancelled:
            doubts.append("AIPerf was cancelled: the calls that were not sent are not in its file.")
        if self.summary.is_complete is False:
            reason = self.summary.incomplete_reason or "it does not say why"
            doubts.append(f"AIPerf says that its run is incomplete: {reason}.")
        return Result.of(
            list(self._rows(file, records, zero)),
            file.name,
            tool="aiperf",
            part=phase or str(records[0].metadata.profiling_index) if several else None,
            version=self.summary.aiperf_version,
            model=models[0] if len(models) == 1 else None,
            endpoint=config.endpoint.urls[0] if len(config.endpoint.urls) == 1 else None,
            seed=self.summary.run_info.random_seed if self.summary.run_info else None,
            started_ns=zero,
            load=_load(config.phases, phase),
            asked={"backend": config.endpoint.type} if config.endpoint.type else {},
            left_out={"of AIPerf's warm-up": warmup} if warmup else {},
            doubts=tuple(doubts),
        )

    def _rows(self, file: File, records: list[_Record], zero: int) -> Iterator[dict[str, Any]]:
        programs: dict[str, int] = {}
        sizes: defaultdict[int, int] = defaultdict(int)
        turns: dict[tuple[str, int], str] = {}
        workers: dict[str, int] = {}
        for record in records:
            told = record.metadata
            session = told.x_correlation_id or f"call {told.session_num}"
            program = programs.setdefault(told.root_correlation_id or session, len(programs))
            turn = sizes[program]
            sizes[program] += 1
            name = f"{program}/{turn}"
            place = told.turn_index or 0
            if (session, place) in turns:
                raise BadRow(
                    f"{file.name} has two records of turn {place} of session {session}.",
                    document.MEND,
                )
            turns[session, place] = name
            payload = self.payloads.get((told.conversation_id or "", place))
            row: dict[str, Any] = {
                "call_id": name,
                "program_id": str(program),
                "turn": turn,
                "parents": _parents(told, session, place, turns),
                **_outcome(record),
                **_moments(record, zero),
            }
            if told.worker_id is not None:
                row["worker"] = workers.setdefault(told.worker_id, len(workers))
            if payload is not None:
                row["prompt_sha256"] = requests.prompt_sha256(payload)
                row["asked_tokens"] = requests.asked_tokens(payload)
            yield row


def _parents(
    told: _Metadata, session: str, place: int, turns: dict[tuple[str, int], str]
) -> list[str] | None:
    """Return what a call waited for: the turn before it; None where the file does not say it."""
    if place == 0:
        return [] if told.parent_correlation_id is None else None
    before = turns.get((session, place - 1))
    return None if before is None else [before]


def _outcome(record: _Record) -> dict[str, Any]:
    told, error = record.metadata, record.error
    if told.was_cancelled or (error and error.code == _CANCELLED_CODE):
        status = CANCELLED
    elif error is None:
        status = OK
    elif error.type == "SSEResponseError":
        status = SERVER
    elif error.code is not None and 400 <= error.code < 600:
        status = f"http_{error.code}"
    else:
        status = failures.of_exception(error.type)
    return {
        "status": status,
        "error": error.message if error else None,
        "input_tokens": record.count("input_sequence_length", "error_isl"),
        "output_tokens": record.count("output_sequence_length"),
        "reasoning_tokens": record.count("reasoning_token_count"),
        "cached_tokens": record.count("usage_prompt_cache_read_tokens"),
    }


def _moments(record: _Record, zero: int) -> dict[str, Any]:
    told = record.metadata
    start = told.request_start_ns
    moments: dict[str, int | None] = {
        "due_s": _due_ns(told),
        "sent_s": start,
        "first_byte_s": told.request_ack_ns,
        # of an HTTP error AIPerf writes the start as the end
        "end_s": told.request_end_ns if told.request_end_ns > start else None,
    }
    for column, metric in (
        ("first_token_s", "time_to_first_token"),
        ("first_answer_s", "time_to_first_output_token"),
        ("last_token_s", "request_latency"),
    ):
        took = record.ns(metric)
        moments[column] = start + took[0] if took else None
    row: dict[str, Any] = {
        name: None if ns is None else (ns - zero) / clock.NS_PER["s"]
        for name, ns in moments.items()
    }
    first, gaps = moments["first_token_s"], record.ns("inter_chunk_latency")
    if first is not None and gaps is not None:
        chunks = [first]
        for gap in gaps:
            chunks.append(chunks[-1] + gap)
        row["chunk_s"] = [(ns - zero) / clock.NS_PER["s"] for ns in chunks]
    return row


def _due_ns(told: _Metadata) -> int:
    return told.request_start_ns if told.credit_issued_ns is None else told.credit_issued_ns


def _load(phases: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """Return what a phase was told of when to send."""
    named = [phase for phase in phases if phase.get("name") == name]
    return {
        key: value
        for phase in named[:1]
        for key, value in phase.items()
        if key not in ("name", "kind") and value is not None
    }


def _beside(file: File, name: str) -> File | None:
    """Return a file that lies beside another, packed or not."""
    for packed in ("", ".gz", ".zst"):
        path = file.path.with_name(name + packed)
        if path.is_file():
            return File(path, name + packed)
    return None


TOOL = Tool(
    "AIPerf",
    "0.13.0",
    sniff,
    read,
    "profile_export.jsonl, with profile_export_aiperf.json and inputs.json beside it",
)
