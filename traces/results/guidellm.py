"""GuideLLM's `benchmarks.json`: several benchmarks, each with all of its requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.formats import clock, peek
from servescope.traces.formats.source import File
from servescope.traces.results import document, failures, requests
from servescope.traces.results.document import Integer, Whole
from servescope.traces.results.result import Result
from servescope.traces.results.tool import Tool
from servescope.traces.status import CANCELLED, OK

ASAP: Final = (
    "Under this load GuideLLM has no timetable: a call is due when one of its slots wants it, and"
    " latencies from due are from then."
)
NO_GAPS: Final = (
    "GuideLLM keeps no times between the first token and the last: gaps and stalls are not known."
)
WALL_CLOCK: Final = (
    "GuideLLM stamps with the wall clock, in many processes: if it was set meanwhile, latencies are"
    " wrong."
)
SAMPLED: Final = "GuideLLM kept {held} of the {made} calls that it made: a sample."
COOLDOWN: Final = (
    "GuideLLM's own numbers leave the last {cooldown:.3g} s out as cool-down; these hold them."
)
_TIMETABLES: Final = ("constant", "poisson", "trace")


class _Timings(msgspec.Struct):
    targeted_start: float | None = None
    predecessor_completed: float | None = None
    queued: float | None = None
    resolve_start: float | None = None
    request_start: float | None = None
    first_token_iteration: float | None = None
    first_output_token_iteration: float | None = None
    last_token_iteration: float | None = None
    request_end: float | None = None
    resolve_end: float | None = None


class _Info(msgspec.Struct):
    status: str
    timings: _Timings
    conversation_id: str | None = None
    preceding_nodes: Integer = 0
    node_id: str | None = None
    parent_node_ids: list[str] = []
    scheduler_node_id: Integer = -1
    error: str | None = None


class _Tokens(msgspec.Struct):
    total_tokens: Whole | None = None
    cached_tokens: Whole | None = None


class _Request(msgspec.Struct):
    request_id: str
    info: _Info
    input_metrics: _Tokens = msgspec.field(default_factory=_Tokens)
    output_tokens: Whole | None = None
    response_id: str | None = None
    request_args: str | None = None

    @property
    def due(self) -> float | None:
        """When it was to be sent: as planned, or when what it waits for had ended."""
        times = self.info.timings
        known = [t for t in (times.targeted_start, times.predecessor_completed) if t is not None]
        return max(known) if times.targeted_start is not None else None


class _Requests(msgspec.Struct):
    successful: list[_Request] | None = None
    errored: list[_Request] | None = None
    incomplete: list[_Request] | None = None


class _Made(msgspec.Struct):
    total: Integer | None = None


class _Scheduler(msgspec.Struct):
    measure_start_time: float | None = None
    requests_made: _Made = msgspec.field(default_factory=_Made)


class _Backend(msgspec.Struct):
    target: str | None = None
    model: str | None = None
    request_format: str | None = None


class _BenchmarkConfig(msgspec.Struct):
    strategy: dict[str, Any]
    backend: _Backend = msgspec.field(default_factory=_Backend)


class _Benchmark(msgspec.Struct):
    config: _BenchmarkConfig
    requests: _Requests
    scheduler_metrics: _Scheduler = msgspec.field(default_factory=_Scheduler)
    warmup_duration: float = 0.0
    cooldown_duration: float = 0.0


class _Seed(msgspec.Struct):
    value: Integer | None = None


class _Spec(msgspec.Struct):
    seed: _Seed | None = None


class _Config(msgspec.Struct):
    spec: _Spec | None = None


class _Metadata(msgspec.Struct):
    guidellm_version: str | None = None
    python_version: str | None = None
    platform: str | None = None


class _Report(msgspec.Struct):
    metadata: _Metadata
    benchmarks: list[_Benchmark]
    config: _Config | None = None


class _Arguments(msgspec.Struct):
    """What was sent; headers are not looked at, they may hold a key."""

    body: dict[str, Any] | None = None


def sniff(head: bytes) -> bool:
    """Recognise the metadata that a report begins with."""
    return "metadata.guidellm_version" in peek.paths(head)


def read(file: File) -> list[Result]:
    """Read a report: one result for each of its benchmarks."""
    report = document.decode(file.content, _Report, file.name)
    document.refuse_empty(report.benchmarks, file)
    parts = _parts([benchmark.config.strategy for benchmark in report.benchmarks])
    return [
        _result(benchmark, report, part, file.name)
        for benchmark, part in zip(report.benchmarks, parts, strict=True)
    ]


def _parts(strategies: list[dict[str, Any]]) -> list[str | None]:
    """Name the benchmarks by their load, with a number where two have the same; one needs none."""
    if len(strategies) == 1:
        return [None]
    names = []
    for strategy in strategies:
        kind = str(strategy.get("type_"))
        value = strategy.get("rate", strategy.get("streams"))
        names.append(f"{kind}-{value:g}" if isinstance(value, int | float) else kind)
    return [
        f"{name}-{number}" if names.count(name) > 1 else name
        for number, name in enumerate(names, start=1)
    ]


def _result(benchmark: _Benchmark, report: _Report, part: str | None, where: str) -> Result:
    every = benchmark.requests
    held = [*(every.successful or ()), *(every.errored or ()), *(every.incomplete or ())]
    if not held:
        raise NotAResult(
            f"{where}{f' ({part})' if part else ''} holds no call.",
            "Give the result of a benchmark that sent some.",
        )
    told, strategy = report.metadata, benchmark.config.strategy
    dues = [due for request in held if (due := _due(request)) is not None]
    if not dues:
        raise NotAResult(f"{where} does not say when its calls were sent.", document.MEND)
    zero = min(dues)
    zero_ns = clock.from_number(zero, "s")
    if zero_ns is None or not 0 <= zero_ns < 2**63:
        raise BadRow(f"{where} has a call due at {zero} s, which is no moment.", document.MEND)
    timetable = strategy.get("type_") in _TIMETABLES
    doubts = [] if timetable else [ASAP]
    doubts += [NO_GAPS, WALL_CLOCK]
    made = benchmark.scheduler_metrics.requests_made.total
    if made is not None and made > len(held):
        doubts.append(SAMPLED.format(held=len(held), made=made))
    if benchmark.cooldown_duration > 0:
        doubts.append(COOLDOWN.format(cooldown=benchmark.cooldown_duration))
    start = benchmark.scheduler_metrics.measure_start_time
    seed = report.config.spec.seed if report.config and report.config.spec else None
    return Result.of(
        list(_rows(held, zero, where)),
        f"{where} ({part})" if part else where,
        planned=timetable,
        tool="guidellm",
        part=part,
        version=told.guidellm_version,
        model=benchmark.config.backend.model,
        endpoint=benchmark.config.backend.target,
        seed=seed.value if seed else None,
        started_ns=zero_ns,
        warmup_s=max(0.0, start - zero) if start and benchmark.warmup_duration > 0 else 0.0,
        load={k: v for k, v in strategy.items() if k != "worker_count" and v is not None},
        asked={"path": path} if (path := benchmark.config.backend.request_format) else {},
        host={k: v for k, v in (("python", told.python_version), ("platform", told.platform)) if v},
        doubts=tuple(doubts),
    )


def _rows(held: list[_Request], zero: float, where: str) -> Iterator[dict[str, Any]]:
    """Yield the calls in the order in which GuideLLM took them from its data."""
    held.sort(key=lambda r: (r.info.timings.queued or 0.0, r.info.preceding_nodes, r.due or 0.0))
    programs: dict[str, int] = {}
    nodes: dict[tuple[int, str], str] = {}
    sizes: defaultdict[int, int] = defaultdict(int)
    placed = []
    for request in held:
        of = request.info.conversation_id or request.request_id
        program = programs.setdefault(of, len(programs))
        turn = sizes[program]
        sizes[program] += 1
        name = f"{program}/{turn}"
        node = (program, request.info.node_id or request.request_id)
        if node in nodes:
            raise BadRow(f"{where} has two requests of one place in a conversation.", document.MEND)
        nodes[node] = name
        placed.append((request, program, turn, name))
    for request, program, turn, name in placed:
        before = [nodes.get((program, parent)) for parent in request.info.parent_node_ids]
        yield {
            "call_id": name,
            "program_id": str(program),
            "turn": turn,
            "parents": None if None in before else before,
            **_outcome(request),
            **_moments(request, zero),
            **_asked(request.request_args),
        }


def _outcome(request: _Request) -> dict[str, Any]:
    info = request.info
    if info.status == "completed":
        status = OK
    elif info.status == "cancelled":
        status = CANCELLED
    else:
        status = failures.of_repr(info.error or "")
    return {
        "status": status,
        "error": info.error,
        "input_tokens": request.input_metrics.total_tokens,
        "cached_tokens": request.input_metrics.cached_tokens,
        "output_tokens": request.output_tokens,
        "response_id": request.response_id,
        "worker": info.scheduler_node_id if 0 <= info.scheduler_node_id < 2**31 else None,
    }


def _moments(request: _Request, zero: float) -> dict[str, Any]:
    times = request.info.timings
    ended = times.resolve_end if times.request_end is None else times.request_end
    moments = {
        "due_s": _due(request),
        "ready_s": times.predecessor_completed,
        "dispatched_s": times.resolve_start,
        "sent_s": times.request_start,
        "first_token_s": times.first_token_iteration,
        "first_answer_s": times.first_output_token_iteration,
        "last_token_s": times.last_token_iteration,
        "end_s": ended,
    }
    return {name: None if moment is None else moment - zero for name, moment in moments.items()}


def _due(request: _Request) -> float | None:
    """Return when a request was due; when it was sent where GuideLLM says no more."""
    return request.info.timings.request_start if request.due is None else request.due


def _asked(arguments: str | None) -> dict[str, Any]:
    """Return what a request asked, as far as it was kept: not that of a failed one."""
    if arguments is None:
        return {}
    body = document.decode(arguments.encode(), _Arguments, "The arguments of a request").body
    if body is None:
        return {}
    return {
        "prompt_sha256": requests.prompt_sha256(body),
        "asked_tokens": requests.asked_tokens(body),
    }


TOOL = Tool("GuideLLM", "0.8.1", sniff, read, "benchmarks.json, each of its benchmarks a run")
