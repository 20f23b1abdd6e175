"""WEKA's agentic coding traces: a JSON document for every Claude Code session, with sub-agents."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from servescope.traces.errors import BadRow
from servescope.traces.formats import clock, jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import File, Source
from servescope.traces.trace import Trace

NO_SHARED_CLOCK = (
    "Every session has a zero of its own: when sessions began, and how many ran at once, is not"
    " recorded."
)
_ASYNC = "async_launched"
_COLUMNS = (
    *("stamp_ns", "program_id", "turn", "parents", "delay_s", "delay_kind", "call_class", "model"),
    *("input_tokens", "output_tokens", "prefix_blocks", "observed_ttft_s", "observed_e2e_s"),
)


class _Call(msgspec.Struct, tag_field="type", tag="n"):
    t: float
    hash_ids: list[int]
    model: str | None = None
    input_tokens: int | None = msgspec.field(name="in", default=None)
    output_tokens: int | None = msgspec.field(name="out", default=None)
    input_types: list[str] = []
    api_time: float | None = None
    think_time: float | None = None
    ttft: float | None = None

    @property
    def end(self) -> float:
        return self.t + (self.api_time or 0.0)


class _Streamed(_Call, tag_field="type", tag="s"):
    pass


class _SubAgent(msgspec.Struct, tag_field="type", tag="subagent"):
    t: float  # when it ended
    requests: list[_Call | _Streamed]
    subagent_type: str | None = None
    duration_ms: float | None = None
    status: str | None = None

    @property
    def start(self) -> float:
        if self.duration_ms is not None:
            return self.t - self.duration_ms / 1000
        return self.t - max((call.end for call in self.requests), default=0.0)


class _Session(msgspec.Struct):
    id: str
    block_size: int
    hash_id_scope: str
    requests: list[_Call | _Streamed | _SubAgent]


def sniff(head: bytes) -> bool:
    """Recognise the fields that stand before the requests."""
    return peek.paths(head) >= {"id", "block_size", "hash_id_scope", "requests"}


def read(source: Source) -> Trace:
    """Read sessions: a call waits for the one before it, and for sub-agents that ended by then.

    The clock of a sub-agent restarts at 0 when it begins; here it is that of its session. The `t`
    of its entry is when it ended: in the published files `t` less the duration is 0.1 to 1 s after
    the call that spawned it, in 36 of 38.
    """
    sessions = jsonl.documents(source, _Session)
    first = next(sessions, None)
    if first is None:
        raise BadRow(f"{source.name} has no session.", "Give the files of the traces.")
    head = first[1]

    trace = gather(
        source,
        tabulate(source, _rows(source, itertools.chain([first], sessions), head), *_COLUMNS),
        zero_ns=0,
        format="weka",
        arrival_basis="program",
        clock="source",
        units="seconds since the session began",
        block_tokens=head.block_size,
        block_rule="floor",
        block_scope="program" if head.hash_id_scope == "local" else "global",
        licence="Apache-2.0",
        attribution="WEKA, callanjfox/kv-cache-tester",
        doubts=[NO_SHARED_CLOCK],
        inferred={
            "parents": "the order of calls in a session, and when its sub-agents ended",
            "delay_s": "after a sub-agent, from when it ended; recorded elsewhere",
        },
    )
    return trace


def _rows(
    source: Source, sessions: Iterator[tuple[File, _Session]], head: _Session
) -> Iterator[dict[str, Any]]:
    names = Counter[str]()
    row = 0
    for file, session in sessions:
        source.begin(file, row + 1, unit="request")
        if (session.block_size, session.hash_id_scope) != (head.block_size, head.hash_id_scope):
            raise BadRow(
                f"{file.name} has blocks of {session.block_size} tokens ({session.hash_id_scope}),"
                f" the files before it of {head.block_size} ({head.hash_id_scope}).",
                "Load them apart, and merge the traces.",
            )
        names[session.id] += 1
        again = names[session.id]
        program = session.id if again == 1 else f"{session.id} ({again})"
        for turn, call in enumerate(_calls(session, row)):
            row += 1
            yield {"source_row": row, "program_id": program, "turn": turn, **call}


def _calls(session: _Session, row: int) -> Iterator[dict[str, Any]]:
    """Yield the calls of a session in the file's order; `row` is the last one before it."""
    last: str | None = None
    awaited: list[tuple[str, float]] = []
    for entry in session.requests:
        if isinstance(entry, _SubAgent):
            before = last
            for call in entry.requests:
                row += 1
                yield {
                    **_call(call, entry.start),
                    "parents": [] if before is None else [before],
                    "call_class": entry.subagent_type,
                }
                before = str(row)
            if entry.requests and entry.status != _ASYNC:
                awaited.append((str(row), entry.t))
            continue
        row += 1
        # What began before a sub-agent had ended did not wait for it, whatever its status says.
        ended = [(name, end) for name, end in awaited if end <= entry.t]
        awaited = [pair for pair in awaited if pair not in ended]
        said = _call(entry)
        if ended:
            since = entry.t - max(end for _, end in ended)
            said["delay_s"] = since if said["delay_s"] is None else min(since, said["delay_s"])
        yield {**said, "parents": [*([] if last is None else [last]), *(name for name, _ in ended)]}
        last = str(row)


def _call(call: _Call, start: float = 0.0) -> dict[str, Any]:
    begun, since = clock.from_number(start, "s"), clock.from_number(call.t, "s")
    return {
        "stamp_ns": None if begun is None or since is None else max(begun + since, 0),
        "model": call.model,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "prefix_blocks": call.hash_ids,
        "delay_s": call.think_time,
        "delay_kind": "tool" if "tool_result" in call.input_types else "user",
        "observed_ttft_s": call.ttft,
        "observed_e2e_s": call.api_time,
    }


FORMAT = Format(
    sniff,
    read,
    "WEKA agentic traces: a JSON document a session, with sub-agents",
    "the fields id, block_size, hash_id_scope and requests",
)
