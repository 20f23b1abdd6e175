"""Sessions: read from the prefixes that prompts share where none are recorded, or forgotten."""

from __future__ import annotations

import polars as pl

from servescope.traces.errors import MissingColumns
from servescope.traces.schema import GROUPS
from servescope.traces.trace import Trace

INFERRED = (
    "Sessions are inferred from shared prefixes: a call whose prompt begins with all full blocks of"
    " an earlier prompt, and is long enough to hold that call's answer too, is taken as its next"
    " turn."
)


def forget_sessions(trace: Trace) -> Trace:
    """Make every call a program of its own, whatever the trace records."""
    links = [name for name in GROUPS["program"] if name in trace.columns]
    alone = trace.frame.drop(links).with_columns(
        pl.lit(None).alias(name) for name in ("program_id", "turn") if name in trace.columns
    )
    return Trace.of(alone, trace.provenance, trace.tables)


def infer_sessions(trace: Trace) -> Trace:
    """Chain calls into programs by their prefix blocks, and say so as a doubt.

    A call continues the earlier call that shares most: all of whose full blocks (two or more, so
    that a shared system prompt alone is not a session) open its own prompt, which is at least as
    long as that call's prompt and answer less one block; of equals, the latest. Needs global block
    ids that name a whole prefix, as in Mooncake's traces; raises MissingColumns without them.
    """
    block = trace.provenance.block_tokens
    known = trace.provenance.block_scope == "global" and "prefix_blocks" in trace.columns
    if not known or block is None:
        raise MissingColumns(
            "The trace has no global prefix blocks to infer sessions from.",
            "Replay it with --sessions none.",
        )
    trace.require("arrival_s")
    calls = trace.collect().sort("arrival_s", maintain_order=True)
    names = calls["call_id"].to_list()
    # An unknown length asks nothing of the next turn, and no call follows an unknown prompt.
    prompts = calls["input_tokens"].fill_null(0).to_list()
    ends = (calls["input_tokens"] + calls["output_tokens"].fill_null(0)).to_list()
    last_with: dict[int, int] = {}  # id of a prompt's last full block -> the latest such call
    parents: list[list[str]] = []
    programs: list[str] = []
    turns: list[int] = []
    for row, ids in enumerate(calls["prefix_blocks"].to_list()):
        blocks = ids or []
        shared = (last_with[b] for b in reversed(blocks) if b in last_with)
        found = next((other for other in shared if prompts[row] >= ends[other] - block), None)
        parents.append([] if found is None else [names[found]])
        programs.append(names[row] if found is None else programs[found])
        turns.append(0 if found is None else turns[found] + 1)
        full = min(prompts[row] // block, len(blocks))
        if full >= 2:
            last_with[blocks[full - 1]] = row
    chained = calls.with_columns(
        program_id=pl.Series(programs, dtype=pl.String),
        turn=pl.Series(turns, dtype=pl.Int64),
        parents=pl.Series(parents, dtype=pl.List(pl.String)),
        delay_s=pl.lit(None, pl.Float64),
        delay_kind=pl.Series(["unknown" if p else None for p in parents], dtype=pl.String),
    )
    made = Trace.of(chained, trace.provenance, trace.tables).doubting(INFERRED)
    how = "from shared prefixes"
    return made.known(inferred={**made.provenance.inferred, "program_id": how, "parents": how})
