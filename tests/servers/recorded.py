"""Streams as servers send them, event by event with their moments, and the runs that they make."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from servescope.loadgen import endpoints
from servescope.loadgen.messages import Ended
from servescope.loadgen.records import Journal, Record, record_of
from servescope.loadgen.worker import ends_of
from servescope.traces import Run, RunInfo

Events = Sequence[tuple[float, str]]
# By name: when a call was due and sent, its events with their moments, its end.
Streams = dict[str, tuple[float, Events, float]]

DONE = "[DONE]"


def delta(text: str, finish: str = "null") -> str:
    """An event of a chat: the fields of its delta as JSON."""
    return f'{{"choices":[{{"delta":{{{text}}},"finish_reason":{finish}}}]}}'


def content(text: str, finish: str = "null") -> str:
    return delta(f'"content":"{text}"', finish)


def text(said: str, finish: str = "null") -> str:
    """An event of a completion."""
    return f'{{"choices":[{{"text":"{said}","finish_reason":{finish}}}]}}'


def usage(prompt: int, made: int, thought: int | None = None) -> str:
    details = (
        "" if thought is None else f',"completion_tokens_details":{{"reasoning_tokens":{thought}}}'
    )
    counts = f'"prompt_tokens":{prompt},"completion_tokens":{made}{details}'
    return f'{{"choices":[],"usage":{{{counts}}}}}'


ROLE = delta('"role":"assistant","content":""')
STOP, LENGTH = '"stop"', '"length"'

# Five calls of a chat.
CHAT: Streams = {
    # a role alone, three tokens, an end alone
    "role": (0.0, [(0.5, ROLE), (1.0, content(" a")), (1.1, content(" b")), (1.4, content(" c")),
                   (1.45, delta("", STOP)), (1.46, usage(8, 3)), (1.5, DONE)], 1.5),
    # twelve tokens in three chunks
    "many": (1.0, [(1.2, ROLE), (2.0, content(" a b c d")), (2.2, content(" e f g h")),
                   (2.4, content(" i j k l", LENGTH)), (2.5, usage(10, 12)), (2.5, DONE)], 2.5),
    "one": (2.0, [(2.1, ROLE), (2.5, content(" x", LENGTH)), (2.5, usage(5, 1)), (2.6, DONE)], 2.6),
    "fails": (3.0, [], 3.2),
    # two tokens of reasoning, two of the answer
    "thinks": (4.0, [(4.1, ROLE), (4.5, delta('"reasoning":"h"')),
                     (4.6, delta('"reasoning":"m"')), (4.8, content(" s")),
                     (4.9, content(" o", STOP)), (4.9, usage(6, 4, 2)), (5.0, DONE)], 5.0),
}  # fmt: skip
PLANNED = {"role": 5, "many": 12, "one": 1, "fails": 7, "thinks": 4}  # tokens that were asked for
# What the client of a completion gets from a server without usage: an empty text at the end.
BARE: Streams = {
    "bare": (0.0, [(1.0, text(" a")), (1.2, text(" b")), (1.3, text("", STOP)), (1.3, DONE)], 1.3)
}


def recorded(backend: str, number: int, due_s: float, events: Events, end_s: float) -> Record:
    """Return the row that the conductor makes of what a worker hands back."""
    ended = Ended(
        number=number, status=None if events else "http_503", error=None, due_s=due_s,
        ready_s=due_s, admitted_s=due_s, dispatched_s=due_s, sent_s=due_s, end_s=end_s,
    )  # fmt: skip
    blocks = [f"data: {event}\n\n".encode() for _, event in events]
    ended.body, ended.ends = b"".join(blocks), ends_of(blocks)
    ended.stamps = array("d", [at for at, _ in events]).tobytes()
    record, _ = record_of(ended, endpoints.named(backend), 0, ["r"], done=False)
    return record


def run_of(
    out: Path,
    streams: Streams,
    backend: str = "openai-chat",
    planned: dict[str, int] | None = None,
    experiment: dict[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """Write the run of some recorded streams, each a program of its own."""
    lengths = planned or PLANNED
    plan = pl.DataFrame(
        {
            "call_id": list(streams),
            "program_id": list(streams),
            "turn": [0 for _ in streams],
            "due_s": [due for due, _, _ in streams.values()],
            "parents": pl.Series([[] for _ in streams], dtype=pl.List(pl.String)),
            "delay_s": [0.0 for _ in streams],
            "input_tokens": [10 for _ in streams],
            "output_tokens": [lengths.get(name, 1) for name in streams],
        },
        schema_overrides={"call_id": pl.String, "program_id": pl.String},
    )
    info = RunInfo(
        name="recorded", system="none", clock="real", version="0", started="", seed=0,
        asked={"backend": backend, "path": None}, **fields,
    )  # fmt: skip
    run = Run.create(out, experiment or {}, plan, info)
    journal = Journal(run)
    for number, (due_s, events, end_s) in enumerate(streams.values()):
        journal.append(recorded(backend, number, due_s, events, end_s))
    journal.flush()
    run.seal(info)
    return run
