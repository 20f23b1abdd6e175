"""Sessions of a trace that records none, read from the prefixes that its prompts share."""

from __future__ import annotations

import polars as pl

from servescope.traces.errors import MissingColumns
from servescope.traces.trace import Trace

INFERRED = (
    "Sessions are inferred from shared prefixes: a call whose prompt begins with all full blocks of"
    " an earlier prompt, and is long enough to hold that call's answer too, is taken as its next turn."
)


def infer_sessions(trace: Trace) -> Trace:
    """Chain calls into programs by their prefix blocks, and say so as a doubt.

    A call continues the latest earlier call whose full blocks (two or more, so that a shared system
    prompt alone is not a session) all open its own prompt, if its prompt is at least as long as that
    call's prompt and answer less one block. Needs global block ids that name a whole prefix, as in
    Mooncake's traces; raises MissingColumns without them.
    """
    block = trace.provenance.block_tokens
    if "prefix_blocks" not in trace.columns or block is None:
        raise MissingColumns(
            "The trace has no prefix blocks to infer sessions from.",
            "Replay it with --sessions none.",
        )
    calls = trace.collect()
    names = calls["call_id"].to_list()
    lengths = list(zip(calls["input_tokens"], calls["output_tokens"], strict=True))
    last_with: dict[int, int] = {}  # id of a prompt's last full block -> the latest such call
    parents: list[list[str]] = []
    programs: list[str] = []
    turns: list[int] = []
    for row, blocks in enumerate(calls["prefix_blocks"].to_list()):
        found = next((last_with[b] for b in reversed(blocks or []) if b in last_with), None)
        if found is not None and lengths[row][0] < sum(lengths[found]) - block:
            found = None
        parents.append([] if found is None else [names[found]])
        programs.append(names[row] if found is None else programs[found])
        turns.append(0 if found is None else turns[found] + 1)
        full = lengths[row][0] // block
        if full >= 2:
            last_with[blocks[full - 1]] = row
    chained = calls.with_columns(
        program_id=pl.Series(programs, dtype=pl.String),
        turn=pl.Series(turns, dtype=pl.Int64),
        parents=pl.Series(parents, dtype=pl.List(pl.String)),
        delay_s=pl.lit(None, pl.Float64),
        delay_kind=pl.Series(["unknown" if p else None for p in parents], dtype=pl.String),
    )
    return Trace.of(chained, trace.provenance).doubting(INFERRED)
