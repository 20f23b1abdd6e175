"""What is to be sent: programs of calls, and the plan they make."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec
import polars as pl

from servescope.loadgen.experiment import WorkloadSpec
from servescope.loadgen.program import Call, Program
from servescope.traces.catalog import load
from servescope.traces.errors import BadRow, InputError
from servescope.traces.provenance import Provenance
from servescope.traces.sessions import forget_sessions, infer_sessions
from servescope.traces.trace import Trace

MADE = Provenance(format="none", source="made by hand", kind="synthetic")


@dataclass(frozen=True, slots=True)
class Workload:
    """Programs in order of their start. `left_out` counts, by reason, what cannot be sent."""

    programs: tuple[Program, ...]
    provenance: Provenance = MADE
    left_out: dict[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def block_tokens(self) -> int | None:
        """Tokens that one id of a call's `prefix_blocks` stands for."""
        return self.provenance.block_tokens

    @classmethod
    def of(cls, trace: Trace) -> Workload:
        """Make the workload of a trace: every call of it that has tokens to send and to generate.

        Calls of one program_id are one program, all others a program each. A recorded delay counts
        from the parent's end; where none is recorded the call keeps its distance from the program's
        start, and still waits for its parents. Raises InputError if nothing can be sent.
        """
        trace.require("arrival_s")
        left_out: Counter[str] = Counter()
        by_program: dict[str, list[dict[str, Any]]] = {}
        for row in trace.collect().iter_rows(named=True):
            reason = _unsendable(row)
            if reason:
                left_out[reason] += 1
            else:
                key = row.get("program_id") or f"call-{row['call_id']}"
                by_program.setdefault(key, []).append(row)
        if not by_program:
            raise InputError(
                "No call of the trace can be sent.",
                "Choose another window; a call needs an arrival, input tokens and output tokens.",
            )
        local = trace.provenance.block_scope == "program"
        programs = [_program(key, rows, local) for key, rows in by_program.items()]
        doubts = [f"{count} calls were left out: {reason}." for reason, count in left_out.items()]
        doubts += _unused(trace)
        foreign = _foreign_links(by_program)
        if foreign:
            doubts.append(f"{foreign} calls wait for a call of another program; they do not here.")
        programs.sort(key=lambda program: (program.start_s, program.id))
        return cls(
            programs=_numbered(programs),
            provenance=trace.provenance,
            left_out=dict(left_out),
            doubts=(*trace.provenance.doubts, *doubts),
        )

    @property
    def token_rate(self) -> float | None:
        """Output tokens a second that the plan asks for; None if all programs begin at once."""
        span = self.programs[-1].start_s - self.programs[0].start_s
        tokens = sum(call.output_tokens for call in self.calls())
        return tokens / span if span > 0 else None

    def calls(self) -> Iterator[Call]:
        """Every call, program by program."""
        for program in self.programs:
            yield from program.calls

    def plan(self) -> pl.DataFrame:
        """Return the plan, one row a call; due_s is null where it hangs on a parent's end."""
        rows = [
            {
                "call_id": call.id,
                "program_id": call.program_id,
                "turn": call.turn,
                "due_s": None if call.parents else program.start_s + call.offset_s,
                "parents": list(call.parents),
                "delay_s": call.delay_s,
                "offset_s": call.offset_s,
                "input_tokens": call.input_tokens,
                "output_tokens": call.output_tokens,
                "prompt_stream": call.prompt_stream,
                "prefix_blocks": list(call.prefix_blocks),
            }
            for program in self.programs
            for call in program.calls
        ]
        lists = {"parents": pl.List(pl.String), "prefix_blocks": pl.List(pl.UInt64)}
        return pl.DataFrame(rows, schema_overrides={"due_s": pl.Float64, **lists})


def workload_of(spec: WorkloadSpec) -> Workload:
    """Read the trace, cut and stretch it as asked, and make its workload."""
    trace = load(spec.trace, format=spec.format)
    end_s = None if spec.duration_s is None else spec.start_s + spec.duration_s
    if spec.start_s or end_s is not None:
        trace = trace.window(spec.start_s, end_s)
    if spec.calls is not None:
        trace = trace.head(spec.calls)
    if spec.sessions == "none":
        trace = forget_sessions(trace)
    elif "prefix_blocks" in trace.columns and "parents" not in trace.columns:
        trace = infer_sessions(trace)
    if spec.time_scale != 1.0:
        trace = trace.scale_time(spec.time_scale)
    return Workload.of(trace)


def digest(plan: pl.DataFrame, seed: int, block_tokens: int | None) -> str:
    """Return the SHA-256 of a plan and of what makes its prompts.

    Equal digests mean equal calls, prompts, pauses and planned times. What else shapes a request
    (the dialect, the model, extra fields) stands in run.json under `asked`.
    """
    made = hashlib.sha256(msgspec.json.encode([seed, block_tokens, plan.columns]))
    for row in plan.iter_rows():
        made.update(msgspec.json.encode(row))
    return made.hexdigest()


def _numbered(programs: list[Program]) -> tuple[Program, ...]:
    """Return programs whose calls know their row in the plan and if any call waits for them."""
    numbered, number = [], 0
    for program in programs:
        awaited = {parent for call in program.calls for parent in call.parents}
        calls = []
        for call in program.calls:
            calls.append(msgspec.structs.replace(call, number=number, last=call.id not in awaited))
            number += 1
        numbered.append(Program(program.id, program.start_s, tuple(calls)))
    return tuple(numbered)


def _unsendable(row: dict[str, Any]) -> str | None:
    if row["arrival_s"] is None:
        return "no arrival"
    if not row["input_tokens"]:
        return "no input tokens"
    if not row["output_tokens"]:
        return "no output tokens (the source failed, or did not say)"
    return None


def _foreign_links(by_program: dict[str, list[dict[str, Any]]]) -> int:
    """Count the calls with a parent in another program: a program waits for nobody."""
    home = {row["call_id"]: key for key, rows in by_program.items() for row in rows}
    return sum(
        any(home.get(parent, key) != key for parent in row.get("parents") or ())
        for key, rows in by_program.items()
        for row in rows
    )


def _refuse_cycle(key: str, calls: list[Call]) -> None:
    """Raise BadRow if calls wait for each other in a ring: none of them would ever be due."""
    waits = TopologicalSorter({call.id: call.parents for call in calls})
    try:
        waits.prepare()
    except CycleError as error:
        ring = ", ".join(error.args[1][:5])
        raise BadRow(
            f"Calls of program {key} wait for each other: {ring}.", "Mend their parents."
        ) from None


def _unused(trace: Trace) -> list[str]:
    """Say what of a trace a workload cannot follow yet."""
    doubts = []
    if trace.provenance.arrival_basis == "program":
        doubts.append(
            "The trace does not say when its programs began, each has a zero of its own: here they"
            " all begin together."
        )
    if trace.provenance.block_rule == "component":
        doubts.append(
            "Prompts share no prefix here: the trace names components of any length, not blocks."
        )
    return doubts


def _blocks(ids: list[int] | None, key: str, local: bool) -> tuple[int, ...]:
    """Return the ids of prefix blocks, salted where they mean something in one program alone."""
    if not local or not ids:
        return tuple(ids or ())
    salt = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    return tuple(block ^ salt for block in ids)


def _program(key: str, rows: list[dict[str, Any]], local_blocks: bool = False) -> Program:
    rows = sorted(rows, key=lambda row: float(row["arrival_s"]))
    start = float(rows[0]["arrival_s"])
    sendable = {row["call_id"] for row in rows}
    calls: list[Call] = []
    stream, longest = key, 0
    for turn, row in enumerate(rows):
        parents = tuple(parent for parent in row.get("parents") or () if parent in sendable)
        delay = row.get("delay_s") if parents else None
        # A prompt shorter than what was said so far was cut by the client: nothing is shared.
        if row["input_tokens"] < longest:
            stream = f"{key}#{turn}"
        longest = row["input_tokens"] + row["output_tokens"]
        calls.append(
            Call(
                id=row["call_id"],
                program_id=key,
                turn=turn,
                input_tokens=row["input_tokens"],
                output_tokens=row["output_tokens"],
                parents=parents,
                delay_s=0.0 if delay is None else float(delay),
                offset_s=0.0 if delay is not None else float(row["arrival_s"]) - start,
                prompt_stream=stream,
                prefix_blocks=_blocks(row.get("prefix_blocks"), key, local_blocks),
            )
        )
    _refuse_cycle(key, calls)
    return Program(key, start, tuple(calls))
