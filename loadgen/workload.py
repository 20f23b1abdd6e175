"""What is to be sent: programs of calls, and the plan they make."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import msgspec
import polars as pl

from servescope.loadgen import generated, synthetic
from servescope.loadgen.experiment import WorkloadSpec
from servescope.loadgen.program import Call, Program
from servescope.loadgen.timing import timed
from servescope.traces.errors import BadRow, InputError
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.sessions import forget_sessions, infer_sessions
from servescope.traces.trace import Trace

TOGETHER = (
    "The trace does not say when its programs began, each has a zero of its own: here they all"
    " begin together."
)
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
    def of(cls, trace: Trace, *, texts: bool = True) -> Workload:
        """Make the workload of a trace: every call of it that has tokens to send and to generate.

        Calls of one program_id are one program, all others a program each. A recorded delay counts
        from the parent's end; where none is recorded the call keeps its distance from the program's
        start, and still waits for its parents. In a trace without arrivals all programs begin at 0.
        `texts` says whether prompts are the texts that the trace has. Raises InputError if nothing
        can be sent.
        """
        timed = "arrival_s" in trace.columns
        left_out: Counter[str] = Counter()
        by_program: dict[str, list[_Row]] = {}
        local = trace.provenance.block_scope == "program"
        for row in _rows(trace, texts):
            reason = _unsendable(row, timed)
            if reason:
                left_out[reason] += 1
            else:
                key = row.program_id or f"call-{row.call_id}"
                by_program.setdefault(key, []).append(row)
        if not by_program:
            raise InputError(
                "No call of the trace can be sent.",
                "Choose another window; a call needs an arrival, input tokens and output tokens.",
            )
        doubts = [f"{count} calls were left out: {reason}." for reason, count in left_out.items()]
        doubts += _unused(trace)
        foreign = _foreign_links(by_program)
        if foreign:
            doubts.append(f"{foreign} calls wait for a call of another program; they do not here.")
        begun = []
        for key, rows in by_program.items():
            if len(rows) > 1:
                rows.sort(key=_order)
            begun.append((rows[0].arrival_s or 0.0, key, rows))
        begun.sort(key=lambda each: each[:2])
        programs, number = [], 0
        for start_s, key, rows in begun:
            programs.append(_program(key, start_s, rows, number, local))
            number += len(rows)
        return cls(
            programs=tuple(programs),
            provenance=trace.provenance,
            left_out=dict(left_out),
            doubts=(*trace.provenance.doubts, *doubts),
        )

    def part(self, first: int, end: int) -> Workload:
        """Return the programs from place `first` to before `end`; the first one begins at 0.

        Raises InputError if there are none.
        """
        chosen = self.programs[first:end]
        if not chosen:
            raise InputError(
                f"There is no program {first}: the workload has {len(self.programs)}.",
                "Begin earlier.",
            )
        start_s, number = chosen[0].start_s, chosen[0].calls[0].number
        moved = (
            msgspec.structs.replace(
                program,
                start_s=program.start_s - start_s,
                calls=tuple(
                    msgspec.structs.replace(call, number=call.number - number)
                    for call in program.calls
                ),
            )
            for program in chosen
        )
        return replace(self, programs=tuple(moved))

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
        """Return the plan, one row a call; due_s is null where it hangs on a parent's end.

        `prompt_sha256` is that of a prompt's recorded text; null where the prompt is made up. What
        no call has of `call_class`, `tool` and `deadline_s` is left out.
        """
        calls = list(self.calls())
        begins = [program.start_s for program in self.programs for _ in program.calls]
        columns: dict[str, list[Any]] = {
            "call_id": [call.id for call in calls],
            "program_id": [call.program_id for call in calls],
            "turn": [call.turn for call in calls],
            "due_s": [
                None if call.parents else start_s + call.offset_s
                for call, start_s in zip(calls, begins, strict=True)
            ],
            "parents": [call.parents for call in calls],
            "delay_s": [call.delay_s for call in calls],
            "delay_kind": [call.pause for call in calls],
            "offset_s": [call.offset_s for call in calls],
            "input_tokens": [call.input_tokens for call in calls],
            "output_tokens": [call.output_tokens for call in calls],
            "priority": [call.priority for call in calls],
            "prompt_stream": [call.prompt_stream for call in calls],
            "prefix_blocks": [call.prefix_blocks for call in calls],
            "prompt_sha256": [_text_digest(call) for call in calls],
            "call_class": [call.call_class for call in calls],
            "tool": [call.tool for call in calls],
            "deadline_s": [
                None if call.deadline_s is None else start_s + call.deadline_s
                for call, start_s in zip(calls, begins, strict=True)
            ],
        }
        for name in ("call_class", "tool", "deadline_s"):
            if all(value is None for value in columns[name]):
                del columns[name]
        return pl.DataFrame(
            [
                _series(name, values, _DTYPES.get(name) or SCHEMA[name])
                for name, values in columns.items()
            ]
        )


def _series(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """Return a column; lists are built as one flat column, since polars takes ten times as long."""
    if not isinstance(dtype, pl.List):
        return pl.Series(name, values, dtype)
    rows = [row for row, each in enumerate(values) for _ in each]
    flat = pl.Series(name, [value for each in values for value in each], dtype.inner)
    lists = pl.DataFrame([pl.Series("row", rows, pl.Int64), flat]).group_by("row").agg(name)
    every = pl.DataFrame({"row": pl.int_range(len(values), eager=True)})
    joined = every.join(lists, on="row", how="left", maintain_order="left")
    return joined.select(pl.col(name).fill_null([])).to_series()


_DTYPES: dict[str, pl.DataType] = {
    "offset_s": pl.Float64(),
    "prompt_stream": pl.String(),
    "prompt_sha256": pl.String(),
    "tool": pl.String(),
}


def workload_of(spec: WorkloadSpec, seed: int, *, closed: bool = False) -> Workload:
    """Read the trace, cut it and time it as asked, or make up calls, and return the workload.

    In a `closed` loop, planned starts do not count. Raises InputError for a trace that does not say
    when its programs start if nothing else does.
    """
    if spec.synthetic is not None:
        return Workload(synthetic.programs_of(spec, seed), synthetic.provenance_of(spec.synthetic))
    if spec.generator is not None:
        return _generated(spec, seed)
    assert spec.trace is not None
    from servescope.traces.catalog import load  # thirty formats, while the endpoint is probed

    trace = load(spec.trace, format=spec.format)
    if "arrival_s" not in trace.columns and spec.arrivals is None and not closed:
        raise InputError(
            f"{spec.trace} does not say when its programs start.",
            "Draw their starts with --request-rate, or replay it in a closed loop with --users.",
        )
    # of starts that are drawn, the duration is that of the plan and not of the trace
    span_s = spec.duration_s if spec.arrivals is None else None
    end_s = None if span_s is None else spec.start_s + span_s
    if spec.start_s or end_s is not None:
        trace = trace.window(spec.start_s, end_s)
    if spec.calls is not None:
        trace = trace.head(spec.calls)
    if spec.sessions == "none":
        trace = forget_sessions(trace)
    elif "prefix_blocks" in trace.columns and "parents" not in trace.columns:
        trace = infer_sessions(trace)
    workload = Workload.of(trace, texts=spec.prompts == "recorded")
    if spec.programs is not None:
        workload = workload.part(*spec.programs)
    programs, steps = timed(workload.programs, spec, seed)
    doubts = [d for d in workload.doubts if d != TOGETHER or spec.arrivals is None]
    if spec.arrivals and spec.duration_s and len(programs) == len(workload.programs):
        doubts.append(
            f"All {len(programs)} programs of the trace start within {programs[-1].start_s:,.1f} s"
            f" of the {spec.duration_s:,.1f} s."
        )
    return replace(
        workload,
        programs=programs,
        provenance=msgspec.structs.replace(
            workload.provenance, steps=(*workload.provenance.steps, *steps)
        ),
        doubts=tuple(doubts),
    )


def _generated(spec: WorkloadSpec, seed: int) -> Workload:
    """Return the programs of a named workload, those of `programs` alone, and pauses as asked."""
    made = generated.provenance_of(spec.generator or "", generated.generator_of(spec))
    whole = Workload(generated.programs_of(spec, seed), made)
    part = whole.part(*spec.programs) if spec.programs and spec.programs[0] else whole
    plain = msgspec.structs.replace(spec, arrivals=None, rate_rps=None, duration_s=None)
    programs, steps = timed(part.programs, plain, seed)
    return replace(part, programs=programs, provenance=msgspec.structs.replace(made, steps=steps))


def digest(
    plan: pl.DataFrame, seed: int, block_tokens: int | None, prompts: Sequence[str] = ()
) -> str:
    """Return the SHA-256 of a plan and of what makes its prompts.

    Equal digests mean equal calls, prompts, pauses and planned times; `prompts` says what else
    makes texts (the tokenizer, whose answers a chat holds). What else shapes a request (the
    dialect, the model, extra fields) stands in run.json under `asked`.
    """
    made = hashlib.sha256(msgspec.json.encode([seed, block_tokens, plan.columns, *prompts]))
    for part in plan.iter_slices(10_000):
        made.update(msgspec.json.encode(part.rows()))
    return made.hexdigest()


class _Row(NamedTuple):
    """What a workload takes of a row of a trace."""

    call_id: str
    program_id: str | None
    turn: int | None
    arrival_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    prefix_blocks: list[int] | None
    parents: list[str] | None
    delay_s: float | None
    delay_kind: str | None
    priority: int | None
    call_class: str | None
    deadline_s: float | None
    input_text: str | None
    input_messages: str | None


_TEXTS = ("input_text", "input_messages")


def _rows(trace: Trace, texts: bool) -> Iterator[_Row]:
    frame = trace.collect()
    contents = trace.tables.get("contents")
    if texts and contents is not None and "content_ref" in frame.columns:
        held = contents.select("content_ref", *_TEXTS).unique("content_ref").collect()
        frame = frame.join(held, on="content_ref", how="left", maintain_order="left")
    missing = [pl.lit(None).alias(name) for name in _Row._fields if name not in frame.columns]
    return map(_Row._make, frame.with_columns(missing).select(_Row._fields).iter_rows())


def _order(row: _Row) -> tuple[float, int]:
    """Sort by arrival; a call that has none comes after those that do, by its turn."""
    return math.inf if row.arrival_s is None else row.arrival_s, row.turn or 0


def _text_digest(call: Call) -> str | None:
    text = call.text or call.messages
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def _unsendable(row: _Row, timed: bool) -> str | None:
    if timed and row.arrival_s is None and not row.parents:
        return "no arrival"
    if not row.input_tokens:
        return "no input tokens"
    if not row.output_tokens:
        return "no output tokens (the source failed, or did not say)"
    return None


def _foreign_links(by_program: dict[str, list[_Row]]) -> int:
    """Count the calls with a parent in another program: a program waits for nobody."""
    if not any(row.parents for rows in by_program.values() for row in rows):
        return 0
    home = {row.call_id: key for key, rows in by_program.items() for row in rows}
    return sum(
        any(home.get(parent, key) != key for parent in row.parents or ())
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
        doubts.append(TOGETHER)
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


def _program(key: str, start_s: float, rows: list[_Row], number: int, local: bool) -> Program:
    """Return the program of rows in their order; `number` is its first row in the plan."""
    sendable = {row.call_id for row in rows}
    awaited = {parent for row in rows for parent in row.parents or ()}
    calls: list[Call] = []
    stream, longest = key, 0
    for turn, row in enumerate(rows):
        assert row.input_tokens is not None
        assert row.output_tokens is not None
        parents = tuple(parent for parent in row.parents or () if parent in sendable)
        delay = row.delay_s if parents else None
        offset_s = 0.0
        if delay is None and row.arrival_s is not None:
            offset_s = row.arrival_s - start_s
        # A prompt shorter than what was said so far was cut by the client: nothing is shared.
        if row.input_tokens < longest:
            stream = f"{key}#{turn}"
        longest = row.input_tokens + row.output_tokens
        calls.append(
            Call(
                id=row.call_id,
                program_id=key,
                turn=turn,
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                parents=parents,
                delay_s=delay or 0.0,
                offset_s=offset_s,
                prompt_stream=stream,
                prefix_blocks=_blocks(row.prefix_blocks, key, local),
                priority=row.priority,
                text=row.input_text,
                messages=row.input_messages if row.input_text is None else None,
                pause=row.delay_kind if parents else None,
                last=row.call_id not in awaited,
                number=number + turn,
                call_class=row.call_class,
                deadline_s=None if row.deadline_s is None else row.deadline_s - start_s,
            )
        )
    if awaited:
        _refuse_cycle(key, calls)
    return Program(key, start_s, tuple(calls))
