"""Mooncake traces of Kimi (Qin et al., FAST 2025), and the lines that AIPerf adds to them.

The lines of Mooncake have the identity of every 512-token block. Those of AIPerf may also say which
session they belong to, how long its user paused, and the prompt itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from servescope.traces.errors import InputError
from servescope.traces.formats import clock, jsonl, links, peek
from servescope.traces.formats.blocks import Blocks
from servescope.traces.formats.export import losses, new_file, placed, stamps, unchained
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import TYPES, gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.reshape import forget_lost_parents
from servescope.traces.schema import GROUPS
from servescope.traces.trace import Trace

BLOCK_TOKENS = 512
BATCH_NS = 3 * clock.NS_PER["s"]
FIELDS: Final = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
_TEXT_STAMP = re.compile(rb'"timestamp"\s*:\s*"')
_NUMBER = re.compile(r"\s*[+-]?\d{1,30}(\.\d{1,30})?\s*")
_LATEST_NS = 2**63  # in the year 2262
_EPOCH_NS = 10**17
_DELTAS = "deltas"


class _Payload(msgspec.Struct):
    model: str | None = None
    messages: list[dict[str, Any]] | None = None


class Line(msgspec.Struct):
    """One line: Mooncake writes the first four fields, all of them."""

    timestamp: int | float | str | None = None
    input_length: int | None = None
    output_length: int | None = None
    hash_ids: list[int] | None = None
    session_id: str | int | None = None
    delay: float | None = None
    text_input: str | None = None
    messages: list[dict[str, Any]] | None = None
    payload: _Payload | None = None
    tools: list[dict[str, Any]] | None = None
    message_mode: str | None = None
    context_mode: str | None = None


def sniff(head: bytes) -> bool:
    """Recognise the fields of Mooncake, or of AIPerf, unless the stamps are texts.

    Blocks of 16 tokens are those of vLLM's timed_trace, and a chat_id that of Bailian.
    """
    found = peek.paths(head)
    if "chat_id" in found or has_text_stamp(head) or is_cut_in(head, 16):
        return False
    if found >= FIELDS:
        return "hash_ids[]" in found
    placed = bool(found & {"timestamp", "session_id"})
    told = "messages[]" in found and "output_length" in found
    return placed and (
        "text_input" in found
        or "payload.messages" in found
        or told
        or {"input_length", "output_length"} <= found
    )


def has_text_stamp(head: bytes) -> bool:
    """Say whether the first line writes its timestamp as text."""
    return _TEXT_STAMP.search(head.split(b"\n", 1)[0]) is not None


def is_cut_in(head: bytes, block_tokens: int) -> bool:
    """Say whether the first line is Mooncake's, with blocks of that size and no other known one."""
    if peek.paths(head) - {"hash_ids[]"} != FIELDS:
        return False
    try:
        line = msgspec.json.decode(head.lstrip().split(b"\n", 1)[0], type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    tokens, ids = line.input_length or 0, len(line.hash_ids or ())
    return ids == -(-tokens // block_tokens) and ids != -(-tokens // BLOCK_TOKENS)


def read(source: Source) -> Trace:
    """Read lines of Mooncake or AIPerf: milliseconds, and block ids of one global namespace.

    A line whose blocks do not cover the prompt, ceil(input_length / 512) of them, is refused: the
    file then has another unit or block size, and reading it on would distort every prompt.
    """
    said = source.options.unit
    if said is None and peek.paths(source.head()) == FIELDS - {"hash_ids"}:
        raise InputError(
            f"{source.name} has no field by which Mooncake's milliseconds could be told from the"
            " seconds that others write.",
            "Name the unit of its timestamps with --unit: ms for Mooncake and AIPerf.",
        )
    unit = said or "ms"
    lines = _Lines(source, unit)
    trace = gather(
        source,
        lines.batches(),
        format="mooncake",
        licence="Apache-2.0",
        attribution="Qin et al., Mooncake, FAST 2025; kvcache-ai/Mooncake",
        t0=lambda ns: t0_of(ns, unit),
        clock="source",
        units=units_of(unit),
        tick_s=clock.NS_PER[unit] / clock.NS_PER["s"],
        block_tokens=source.options.block_tokens or BLOCK_TOKENS,
        block_rule=source.options.block_rule or "ceil",
        block_scope="global",
    )
    return lines.judged(on_its_clock(trace))


def stamp_of(source: Source, row: int, stamp: float | str, unit: str) -> int | None:
    """Return a timestamp in whole nanoseconds; None, and the row rejected, if it is no moment."""
    if isinstance(stamp, int):
        found: int | None = stamp * clock.NS_PER[unit]
    elif isinstance(stamp, float) or _NUMBER.fullmatch(stamp):
        found = clock.from_number(stamp, unit)
    else:
        found = None
    if found is not None and abs(found) < _LATEST_NS:
        return found
    source.reject(
        row,
        f"its timestamp {stamp!r} is no moment in {unit} before the year 2262.",
        "If the file has another unit, name it with --unit, and the size of its blocks with"
        " --block-tokens.",
        reason="timestamp is no moment",
    )
    return None


def units_of(unit: str) -> str:
    """Return the unit of the timestamps in words."""
    words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
    return f"{words[unit]}, as published" if unit == "ms" else words[unit]


def t0_of(ns: int, unit: str) -> str:
    """Return the first moment in the source's words: a date if it is one."""
    if ns >= _EPOCH_NS:
        return f"{clock.text_of(ns)} UTC"
    return f"{ns / clock.NS_PER[unit]:.15g} {unit} on the source's own clock"


def on_its_clock(trace: Trace) -> Trace:
    """Return the trace with the clock of Unix time if its zero is such a moment."""
    zero = trace.provenance.t0_ns
    return trace.known(clock="utc") if zero is not None and zero >= _EPOCH_NS else trace


_PLAIN: Final = ("stamp_ns", "input_tokens", "output_tokens", "prefix_blocks")
_ADDED: Final = (
    *("model", "program_id", "turn", "parents", "delay_s", "delay_kind"),
    *("input_text", "input_messages"),
)


@dataclass
class _Lines:
    """Turns lines into calls, and knows at the end what can only be said of all of them."""

    source: Source
    unit: str
    stamped: int = 0
    tied: int = 0
    on_grid: int = 0
    finer: bool = False
    texts: int = 0
    tools: int = 0
    blocks: bool = False
    gaps: int = 0
    early: int = 0
    unclear: int = 0
    # Of each session the row, the turn and the stamp of its last line.
    last: dict[str, tuple[int, int, int | None]] = field(default_factory=dict)

    def batches(self) -> Iterator[pl.DataFrame]:
        """Tabulate the calls; AIPerf's columns cost time only from its first line on."""
        calls, held = self.calls(), []

        def plain() -> Iterator[dict[str, Any]]:
            for call in calls:
                if self.last or self.texts:
                    held.append(call)
                    return
                yield call

        added = [pl.lit(None, TYPES[name]).alias(name) for name in _ADDED]
        for batch in tabulate(self.source, plain(), *_PLAIN):
            yield batch.with_columns(added)
        yield from tabulate(self.source, itertools.chain(held, calls), *_PLAIN, *_ADDED)

    def calls(self) -> Iterator[dict[str, Any]]:
        """Turn every line that makes sense into a call."""
        before = None
        for row, line in jsonl.records(self.source, Line):
            problem = _problem(
                line, line.session_id is None or str(line.session_id) not in self.last
            )
            if problem is not None:
                self.source.reject(row, *problem, reason="not a line of Mooncake")
                continue
            call: dict[str, Any] = {
                "source_row": row,
                "input_tokens": line.input_length,
                "output_tokens": line.output_length,
                "prefix_blocks": line.hash_ids,
            }
            self.blocks |= line.hash_ids is not None
            stamp = line.timestamp
            if stamp is not None:
                ns = stamp_of(self.source, row, stamp, self.unit)
                if ns is None:
                    continue
                call["stamp_ns"] = ns
                self.stamped += 1
                self.tied += ns == before
                self.on_grid += (ns + clock.NS_PER["ms"]) % BATCH_NS <= clock.NS_PER["ms"]
                self.finer |= isinstance(stamp, float) and not stamp.is_integer()
                before = ns
            if line.session_id is not None:
                self._follow(call, line, str(line.session_id))
            if line.input_length is None:
                self._tell(call, line)
            yield call

    def _follow(self, call: dict[str, Any], line: Line, session: str) -> None:
        """Make a line of a session wait for the line before it."""
        row, turn, stamp = self.last.get(session, (0, -1, None))
        here: int | None = call.get("stamp_ns")
        call |= {"program_id": session, "turn": turn + 1, "parents": [str(row)] if row else []}
        if row:
            if line.delay is not None:
                call["delay_s"] = line.delay * clock.NS_PER[self.unit] / clock.NS_PER["s"]
            elif here is not None and stamp is not None:
                gap_s = (here - stamp) / clock.NS_PER["s"]
                call["delay_s"] = max(gap_s, 0.0)
                self.gaps += 1
                self.early += gap_s < -1
            call["delay_kind"] = "user"
            self.unclear += line.input_length is not None and line.context_mode is None
        self.last[session] = (call["source_row"], turn + 1, here)

    def _tell(self, call: dict[str, Any], line: Line) -> None:
        """Keep the prompt of a line that has it instead of its length."""
        self.texts += 1
        self.tools += bool(line.tools)
        messages = line.messages
        if line.payload is not None:
            messages, call["model"] = line.payload.messages, line.payload.model
        call["input_text"] = line.text_input
        if messages is not None:
            call["input_messages"] = msgspec.json.encode(messages).decode()

    def judged(self, trace: Trace) -> Trace:
        """Return the trace without the columns that no line filled, and with doubts."""
        frame = trace.frame
        if not self.last:
            frame = frame.drop(GROUPS["program"])
        elif self.source.rejects.total:
            frame = forget_lost_parents(frame)
        if not self.texts:
            frame = frame.drop(GROUPS["content"])
        if not self.blocks:
            frame = frame.drop(GROUPS["prefix"])
            trace = trace.known(block_tokens=None, block_rule=None, block_scope=None)
        trace = replace(trace, frame=frame)
        options = self.source.options
        if self.last or self.texts or not self.blocks or options.unit or options.block_tokens:
            trace = trace.known(licence=None, attribution=None)  # somebody's own file
        if self.gaps:
            trace = trace.known(inferred={"delay_s": links.GAPS})
        if self.finer:
            trace = trace.known(tick_s=None)
        doubts = []
        if self.early:
            doubts.append(
                f"{self.early} lines of a session are stamped before the line that they follow;"
                " their pause is taken as 0."
            )
        if self.unclear:
            doubts.append(
                f"In {self.unclear} later turns input_length is read as the whole prompt; AIPerf"
                " adds the turns before to it unless it is told otherwise."
            )
        if self.tools:
            doubts.append(f"{self.tools} prompts offer tools, whose definitions are not kept.")
        batched = self.stamped and self.tied + 1 < self.stamped
        tied, on_grid = (
            (self.tied / self.stamped, self.on_grid / self.stamped) if batched else (0, 0)
        )
        if tied > 0.5 and on_grid > 0.9:
            trace = trace.known(tick_s=BATCH_NS / clock.NS_PER["s"])
            doubts.append(
                f"{tied:.0%} of the arrivals share a stamp: the source wrote them in batches of"
                " 3 s."
            )
        return trace.doubting(*doubts)


def _problem(line: Line, is_first: bool) -> tuple[str, str] | None:
    """Return what is wrong with a line that decodes, and how to mend it."""
    told = line.text_input is not None or line.messages is not None or line.payload is not None
    if line.input_length is None and not told:
        return (
            "it has none of `input_length`, `text_input`, `messages` and `payload`.",
            "Say how long the prompt is, or what it is.",
        )
    if line.timestamp is None and is_first:
        return (
            "it has no `timestamp` and follows no line of its session.",
            "Say when it arrives; only later turns of a session may leave that to a delay.",
        )
    if line.message_mode == "delta" or (line.context_mode or "").startswith(_DELTAS):
        return (
            "it holds only what its turn adds to the prompt.",
            "Write whole prompts, as context_mode message_array_with_responses does.",
        )
    return None


def write(trace: Trace, path: Path) -> list[str]:
    """Write Mooncake's lines, with AIPerf's session_id and delay where calls name programs.

    Stamps have as many digits as they need. Blocks keep their size.
    """
    calls, doubts = placed(trace, "arrival_s", "input_tokens")
    blocks = Blocks.of(trace)
    if blocks is None:
        doubts.append("Without prefix blocks the lines say no unit: read them with --unit ms.")
    elif blocks.tokens != BLOCK_TOKENS:
        doubts.append(
            f"The blocks are of {blocks.tokens} tokens: read them with --block-tokens"
            f" {blocks.tokens}."
        )
    there = set(calls.columns)
    chained = "parents" in there
    held = [c for c in (*_HELD, *(_HELD_CHAINED if chained else ())) if c in there]
    if chained:
        doubts += unchained(calls)
    with new_file(path) as file:
        wanted = [c for c in held if c != "prefix_blocks" or blocks]
        if blocks and blocks.by_program and not chained:
            wanted.append("program_id")
        for batch in calls.batches(*wanted):
            rows = batch.with_columns(arrival_s=clock.decimal_text(stamps(trace), "ms"))
            for call in rows.iter_rows(named=True):
                program = call.get("program_id")
                line = {
                    "timestamp": msgspec.Raw(call["arrival_s"].encode()),
                    "input_length": call["input_tokens"],
                    "output_length": call.get("output_tokens"),
                    "hash_ids": blocks
                    and blocks.ids(program, call["prefix_blocks"], call["input_tokens"]),
                    "session_id": program if chained else None,
                    "delay": None
                    if call.get("delay_s") is None
                    else call["delay_s"] * clock.NS_PER["s"] / clock.NS_PER["ms"],
                }
                written = {name: value for name, value in line.items() if value is not None}
                file.write(msgspec.json.encode(written) + b"\n")
    return doubts + losses(calls, *wanted)


_HELD: Final = ("arrival_s", "input_tokens", "output_tokens", "prefix_blocks")
_HELD_CHAINED: Final = ("program_id", "delay_s")


FORMAT = Format(
    sniff,
    read,
    "Mooncake JSON lines with prefix blocks, and AIPerf's with sessions",
    "the fields timestamp, input_length, output_length and hash_ids, or those of AIPerf",
    write,
)
