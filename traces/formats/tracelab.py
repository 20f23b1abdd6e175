"""TraceLab: what coding agents asked of their models, round by round, and its replay tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl

from servescope.traces.formats import clock, csv, jsonl, mooncake, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.links import Chain
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

_ASKING = {"user_message": "user", "tool_result": "tool"}
_ANSWERING = ("reasoning", "text", "tool_call")
_NEEDED = {
    "session_id": pl.String,
    "round_idx": pl.Int64,
    "prefix_len": pl.Int64,
    "input_len": pl.Int64,
    "output_len": pl.Int64,
    "tool_wait_after_ms": pl.Float64,
}
_ARRIVAL = "arrival_time"


class _Event(msgspec.Struct):
    event_type: str
    timestamp: str


class _Round(msgspec.Struct):
    session_id: str
    timing_events: list[_Event]
    prefix_tokens: int | None
    newly_append_tokens: int | None
    input_tokens_total: int | None = None
    output_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    model: str | None = None
    first_input_event_type: str | None = None


def sniff(head: bytes) -> bool:
    """Recognise a round by how its prompt is parted, or the columns of a replay table."""
    return _is_table(head) or peek.paths(head) >= {
        *("session_id", "timing_events", "prefix_tokens", "newly_append_tokens"),
    }


def _is_table(head: bytes) -> bool:
    return set(csv.header(head)) >= _NEEDED.keys()


def read(source: Source) -> Trace:
    """Read rounds, or a replay table."""
    return _table(source) if _is_table(source.head()) else _rounds(source)


def _rounds(source: Source) -> Trace:
    rounds = _Rounds(source)
    trace = gather(
        source,
        tabulate(source, rounds.calls(), *rounds.COLUMNS),
        chain=Chain("unknown"),
        format="tracelab",
        licence="CC-BY-4.0",
        attribution="TraceLab, SyFI Lab, University of Washington",
        t0=lambda ns: f"{clock.text_of(ns)} UTC",
        clock="utc",
        units="dates and times",
        tick_s=1e-3,
        inferred={
            "arrival_s": "the last message or tool result before the answer: when the request was"
            " sent is not recorded",
            "observed_e2e_s": "from the arrival to the last event of the answer",
            "parents": "the order of arrival within a session",
        },
    )
    return trace.doubting(*rounds.doubts())


@dataclass
class _Rounds:
    """Turns lines into calls, and counts what is odd about them."""

    COLUMNS = (
        *("stamp_ns", "program_id", "model", "call_class", "input_tokens", "output_tokens"),
        *("delay_kind", "observed_e2e_s", "observed_cached_tokens", "observed_reasoning_tokens"),
    )
    source: Source
    unasked: int = 0
    unequal: int = 0

    def calls(self) -> Iterator[dict[str, Any]]:
        for row, line in jsonl.records(self.source, _Round):
            events = self._events(row, line)
            if not events:
                continue
            answer = [ns for ns, kind in events if kind in _ANSWERING]
            asked = [
                (ns, kind)
                for ns, kind in events
                if kind in _ASKING and (not answer or ns <= min(answer))
            ]
            # A round may go on where the one before it was cut off: nobody asked for it.
            stamp, asker = max(asked) if asked else min(events)
            self.unasked += not asked
            yield {
                "source_row": row,
                "stamp_ns": stamp,
                "program_id": line.session_id,
                "model": line.model,
                "call_class": line.first_input_event_type,
                "input_tokens": self._input(line),
                "output_tokens": line.output_tokens,
                "delay_kind": _ASKING.get(asker),
                "observed_e2e_s": (max(answer) - stamp) / clock.NS_PER["s"] if answer else None,
                "observed_cached_tokens": line.prefix_tokens,
                "observed_reasoning_tokens": line.reasoning_output_tokens,
            }

    def doubts(self) -> list[str]:
        """Say what is odd about the rounds that were read."""
        doubts = []
        if self.unasked:
            doubts.append(
                f"{self.unasked} rounds have no message or tool result before their answer; they"
                " arrive with their first event."
            )
        if self.unequal:
            doubts.append(
                f"In {self.unequal} rounds input_tokens_total is not the sum of prefix_tokens and"
                " newly_append_tokens."
            )
        return doubts

    def _events(self, row: int, line: _Round) -> list[tuple[int, str]]:
        """Return when which events were; rejects the row, and returns none, if that is not said."""
        events = []
        for event in line.timing_events:
            stamp = clock.from_iso(event.timestamp)
            if stamp is None or not stamp[1]:
                self.source.reject(
                    row,
                    f"a 'timestamp' is {event.timestamp!r}, not a date and time with a zone.",
                    "TraceLab writes 2026-06-01T05:40:20.151Z; mend the line.",
                    reason="timestamp is no time",
                )
                return []
            events.append((stamp[0], event.event_type))
        if not events:
            self.source.reject(
                row,
                "its 'timing_events' are empty, so nobody knows when it was.",
                jsonl.MEND_LINE,
                reason="no timing_events",
            )
        return events

    def _input(self, line: _Round) -> int | None:
        total, cached, new = line.input_tokens_total, line.prefix_tokens, line.newly_append_tokens
        if cached is None or new is None:
            return total
        self.unequal += total is not None and total != cached + new
        return cached + new if total is None else total


def _table(source: Source) -> Trace:
    unit = source.options.unit or "ms"
    timed = any(_ARRIVAL in csv.header(file.head()) for file in source.files)
    plan = _Plan(source, unit)
    columns = (
        *("program_id", "turn", "input_tokens", "output_tokens", "observed_cached_tokens"),
        *("parents", "delay_s", "delay_kind"),
        *(("stamp_ns",) if timed else ()),
    )
    trace = gather(
        source,
        tabulate(source, plan.calls(), *columns),
        check_links=True,
        format="tracelab",
        kind="derived",
        t0=lambda ns: mooncake.t0_of(ns, unit),
        clock="source" if timed else None,
        units=mooncake.units_of(unit),
        tick_s=clock.NS_PER[unit] / clock.NS_PER["s"],
    )
    return mooncake.on_its_clock(trace)


@dataclass
class _Plan:
    """Turns rows of a replay table into calls, each of which waits for the round before it."""

    source: Source
    unit: str
    # Of each session the row, the turn, the round_idx and the wait of its last round.
    last: dict[str, tuple[int, int, int, float]] = field(default_factory=dict)

    def calls(self) -> Iterator[dict[str, Any]]:
        for batch in csv.batches(self.source, _NEEDED, {_ARRIVAL: pl.String}):
            for cells in batch.iter_rows(named=True):
                call = self._call(cells)
                if call is not None:
                    yield call

    def _call(self, cells: dict[str, Any]) -> dict[str, Any] | None:
        row, session, index = cells["source_row"], cells["session_id"], cells["round_idx"]
        wait_ms, prefix, new = cells["tool_wait_after_ms"], cells["prefix_len"], cells["input_len"]
        before = self.last.get(session)
        problem = None
        if session is None or index is None:
            problem = "it does not say which round of which session it is."
        elif before is not None and index <= before[2]:
            problem = f"its round_idx {index} comes after {before[2]} in session {session}."
        elif min(prefix or 0, new or 0, cells["output_len"] or 0, wait_ms or 0) < 0:
            problem = "a length or a wait is negative."
        if problem is not None:
            self.source.reject(
                row,
                problem,
                "Rounds of a session stand in order and count tokens and milliseconds from 0;"
                " mend the row.",
                reason="not a round",
            )
            return None
        call: dict[str, Any] = {
            "source_row": row,
            "program_id": session,
            "turn": 0,
            "input_tokens": None if prefix is None or new is None else prefix + new,
            "output_tokens": cells["output_len"],
            "observed_cached_tokens": prefix,
            "parents": [],
        }
        if before is not None:
            call |= {
                "turn": before[1] + 1,
                "parents": [str(before[0])],
                "delay_s": None if before[3] is None else before[3] / 1000,
                "delay_kind": "tool",
            }
        elif cells.get(_ARRIVAL) is not None:
            stamp = mooncake.stamp_of(self.source, row, cells[_ARRIVAL], self.unit)
            if stamp is None:
                return None
            call["stamp_ns"] = stamp
        self.last[session] = (row, call["turn"], index, wait_ms)
        return call


FORMAT = Format(
    sniff,
    read,
    "TraceLab rounds of Claude Code and Codex, JSON lines, and its replay CSV",
    "the fields session_id, timing_events, prefix_tokens and newly_append_tokens, or the columns"
    " session_id, round_idx, prefix_len, input_len, output_len and tool_wait_after_ms",
)
