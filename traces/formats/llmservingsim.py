"""LLMServingSim: the workloads that it simulates, and the vLLM runs that it is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec

from servescope.traces.formats import clock, jsonl, mooncake, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.schema import GROUPS
from servescope.traces.trace import Trace

FROM_THE_QUEUE = (
    "TTFT and end-to-end time count from the server's queue: the arrival is on another clock, so"
    " what passed between the two is not in them."
)
TOKEN_IDS = "The ids of the prompts' tokens are there and not read: what prompts share is left out."
_MOST = 2**63 - 1
# What a double of epoch seconds can tell apart in our days.
_EPOCH_TICK_S = 2.0**-22

# Checked here, so that a session is refused as a whole and no call is left without its parent.
_Whole = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]


class _Step(msgspec.Struct):
    """A call of a session; the tool runs after it."""

    input_toks: _Whole
    output_toks: _Whole
    tool_duration_ns: _Whole = 0
    input_tok_ids: list[int] | None = None


class _Planned(msgspec.Struct):
    """A request, or a session of several; both may be in one file."""

    arrival_time_ns: _Whole
    input_toks: _Whole | None = None
    output_toks: _Whole | None = None
    session_id: str | int | None = None
    sub_requests: list[_Step] | None = None
    input_tok_ids: list[int] | None = None


class _Measured(msgspec.Struct):
    """A request that vLLM served; the last four stamps are on a monotonic clock."""

    request_id: str
    arrival_time: float
    input_toks: _Whole | None = None
    output_toks: _Whole | None = None
    queued_ts: float | None = None
    scheduled_ts: float | None = None
    first_token_ts: float | None = None
    last_token_ts: float | None = None


_STAGES = ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")


def sniff(head: bytes) -> bool:
    """Recognise a request or a session of a workload, or a measured request."""
    found = peek.paths(head)
    if "arrival_time_ns" in found:
        return {"input_toks", "output_toks"} <= found or "sub_requests[].input_toks" in found
    return _is_measured(head) and {"input_toks", "output_toks"} <= found


def _is_measured(head: bytes) -> bool:
    return {"request_id", "arrival_time", "queued_ts"} <= peek.paths(head)


def read(source: Source) -> Trace:
    """Read a workload, or a run of vLLM with what the server measured."""
    return _run(source) if _is_measured(source.head()) else _workload(source)


def _workload(source: Source) -> Trace:
    plan = _Plan(source)
    trace = gather(
        source,
        tabulate(source, plan.calls(), *plan.COLUMNS),
        format="llmservingsim",
        kind="synthetic",
        t0=lambda ns: mooncake.t0_of(ns, "ns"),
        clock="source",
        units="nanoseconds",
        tick_s=1e-9,
    )
    if not plan.sessions:
        trace = replace(trace, frame=trace.frame.drop(GROUPS["program"]))
    trace = mooncake.on_its_clock(trace)
    return trace.doubting(TOKEN_IDS) if plan.token_ids else trace


@dataclass
class _Plan:
    """Turns lines into calls; the calls of a session follow each other."""

    COLUMNS = (
        *("call_id", "program_id", "turn", "stamp_ns", "input_tokens", "output_tokens"),
        *("parents", "delay_s", "delay_kind"),
    )
    source: Source
    sessions: int = 0
    token_ids: int = 0

    def calls(self) -> Iterator[dict[str, Any]]:
        for row, line in jsonl.records(self.source, _Planned):
            if line.sub_requests:
                self.sessions += 1
                yield from self._session(row, line, line.sub_requests)
            elif line.input_toks is None or line.output_toks is None:
                self.source.reject(
                    row,
                    "it has neither `input_toks` and `output_toks` nor `sub_requests`.",
                    "Say how long the request is, or of which requests the session is made.",
                    reason="no request and no session",
                )
            else:
                self.token_ids += line.input_tok_ids is not None
                yield {
                    "source_row": row,
                    "call_id": str(row),
                    "stamp_ns": line.arrival_time_ns,
                    "input_tokens": line.input_toks,
                    "output_tokens": line.output_toks,
                    "parents": [],
                }

    def _session(self, row: int, line: _Planned, steps: list[_Step]) -> Iterator[dict[str, Any]]:
        name = str(row if line.session_id is None else line.session_id)
        for turn, step in enumerate(steps):
            self.token_ids += step.input_tok_ids is not None
            call = {
                "source_row": row,
                "call_id": f"{row}/{turn}",
                "program_id": name,
                "turn": turn,
                "input_tokens": step.input_toks,
                "output_tokens": step.output_toks,
                "parents": [],
            }
            if turn:
                before = steps[turn - 1].tool_duration_ns
                call |= {
                    "parents": [f"{row}/{turn - 1}"],
                    "delay_s": before / clock.NS_PER["s"],
                    "delay_kind": "tool",
                }
            else:
                call["stamp_ns"] = line.arrival_time_ns
            yield call


def _run(source: Source) -> Trace:
    columns = ("call_id", "stamp_ns", "input_tokens", "output_tokens")
    return gather(
        source,
        tabulate(source, _served(source), *columns, *_OBSERVED),
        format="llmservingsim",
        kind="measured",
        t0=lambda ns: f"{clock.text_of(ns)} UTC",
        clock="utc",
        units="epoch seconds",
        tick_s=_EPOCH_TICK_S,
        doubts=[FROM_THE_QUEUE],
    )


_OBSERVED = {
    "observed_queue_s": "scheduled_ts",
    "observed_ttft_s": "first_token_ts",
    "observed_e2e_s": "last_token_ts",
}


def _served(source: Source) -> Iterator[dict[str, Any]]:
    for row, line in jsonl.records(source, _Measured):
        arrival = clock.from_number(line.arrival_time, "s")
        stages = {
            name: stamp for name in _STAGES if (stamp := _ns(getattr(line, name))) is not None
        }
        backwards = next(
            (pair for pair in itertools.pairwise(stages) if stages[pair[1]] < stages[pair[0]]), None
        )
        if arrival is None or abs(arrival) > _MOST:
            source.reject(
                row,
                f"its `arrival_time` {line.arrival_time} is no moment before the year 2262.",
                "It is in epoch seconds; mend the line.",
                reason="arrival_time is no moment",
            )
        elif backwards:
            source.reject(
                row,
                f"its `{backwards[1]}` lies before its `{backwards[0]}`.",
                jsonl.MEND_LINE,
                reason="stamps go backwards",
            )
        else:
            queued = stages.get("queued_ts")
            yield {
                "source_row": row,
                "call_id": line.request_id,
                "stamp_ns": arrival,
                "input_tokens": line.input_toks,
                "output_tokens": line.output_toks,
                **{
                    column: (stages[name] - queued) / clock.NS_PER["s"]
                    for column, name in _OBSERVED.items()
                    if queued is not None and name in stages
                },
            }


def _ns(stamp: float | None) -> int | None:
    return None if stamp is None else clock.from_number(stamp, "s")


FORMAT = Format(
    sniff,
    read,
    "LLMServingSim JSON lines: workloads, with sessions, and measured vLLM runs",
    "the fields input_toks, output_toks and arrival_time_ns, or request_id, arrival_time and"
    " queued_ts",
)
