"""SWE-agent trajectories: what an agent said and did in one run, a step a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from servescope.traces.formats import jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.tokens import texts_of
from servescope.traces.trace import Trace

_COLUMNS = (
    "program_id",
    "turn",
    "parents",
    "delay_s",
    "delay_kind",
    "input_messages",
    "output_text",
)
_FROM_HISTORY = (
    "Prompts are the history up to each answer; what the agent left out of it before sending is"
    " not recorded."
)

_Message = dict[str, Any]


class _Step(msgspec.Struct):
    response: str
    execution_time: Annotated[float, msgspec.Meta(ge=0)] | None = None
    query: list[_Message] | None = None


class _Stats(msgspec.Struct):
    tokens_sent: int = 0
    tokens_received: int = 0
    api_calls: int = 0


class _Info(msgspec.Struct):
    model_stats: _Stats | None = None


class _Run(msgspec.Struct):
    trajectory: list[_Step]
    history: list[_Message] = []
    info: _Info | None = None


def sniff(head: bytes) -> bool:
    """Recognise the steps of a trajectory."""
    steps = {"trajectory[].action", "trajectory[].observation", "trajectory[].response"}
    return peek.paths(head) >= steps


def read(source: Source) -> Trace:
    """Read trajectories: the pause before a step is how long the action before it ran."""
    totals = Counter[str]()

    def rows() -> Iterator[dict[str, Any]]:
        names = Counter[str]()
        row = 0
        for file, run in jsonl.documents(source, _Run):
            source.begin(file, row + 1, unit="step")
            name = file.path.name.partition(".traj")[0]
            names[name] += 1
            program = name if names[name] == 1 else f"{name} ({names[name]})"
            if run.info and run.info.model_stats:
                totals.update(msgspec.structs.asdict(run.info.model_stats))
            for turn, call in enumerate(_calls(run)):
                row += 1
                totals["from_history"] += not _asked(run.trajectory[turn])
                yield {
                    "source_row": row,
                    "program_id": program,
                    "turn": turn,
                    "parents": [str(row - 1)] if turn else [],
                    "delay_kind": "tool" if turn else None,
                    **call,
                }

    trace = gather(
        source,
        tabulate(source, rows(), *_COLUMNS),
        format="swe_agent",
        units="seconds, of pauses only",
        inferred={"parents": "the order of the steps of a run"},
    )
    steps = trace.provenance.rows_kept
    if totals["tokens_sent"] or totals["tokens_received"]:
        trace = trace.doubting(
            f"Tokens are recorded as totals of runs only: {totals['tokens_sent']:,} sent and"
            f" {totals['tokens_received']:,} received."
        )
    if totals["api_calls"] not in (0, steps):
        trace = trace.doubting(
            f"The runs count {totals['api_calls']:,} calls to the model and have {steps:,} steps."
        )
    return trace.doubting(_FROM_HISTORY) if totals["from_history"] else trace


def _calls(run: _Run) -> Iterator[dict[str, Any]]:
    """Yield the texts of every step, and the pause before it.

    The k-th answer in the history that is no demonstration is that of the k-th step; where the
    history ends before the last step's answer, all of it is the prompt of that step.
    """
    said = [msgspec.Raw(msgspec.json.encode(message)) for message in run.history]
    answers = [
        place
        for place, message in enumerate(run.history)
        if message.get("role") == "assistant" and not message.get("is_demo")
    ]
    ran_s: float | None = None
    for turn, step in enumerate(run.trajectory):
        prompt: object = None
        answer = step.response
        if turn < len(answers):
            prompt = said[: answers[turn]]
            answer = "\n".join(texts_of([run.history[answers[turn]]]))
        elif turn == len(answers):
            prompt = said
        prompt = _asked(step) or prompt
        yield {
            "delay_s": ran_s,
            "input_messages": msgspec.json.encode(prompt).decode() if prompt else None,
            "output_text": answer or None,
        }
        ran_s = step.execution_time


def _asked(step: _Step) -> list[_Message] | None:
    """Return what newer versions say was sent; they write [{}] where nothing was."""
    return step.query if step.query and any(step.query) else None


FORMAT = Format(
    sniff,
    read,
    "SWE-agent trajectories (.traj), with text",
    "the list trajectory of steps with action, observation and response",
)
