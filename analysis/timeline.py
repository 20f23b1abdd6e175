"""What one program did, call by call: where each waited, was computed, and paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import polars as pl
from polars import col

from servescope.analysis.critical_path import with_path
from servescope.analysis.measured import Measured
from servescope.analysis.metrics import ANSWERED
from servescope.traces.errors import InputError
from servescope.traces.schema import SCHEMA

Stage = Literal[
    "pause", "wait", "connect", "queue", "prefill", "first_token", "decode", "closing", "failed"
]
# In the order of a call's life. Only a server that says how long a call queued tells `queue` and
# `prefill` apart; of the others both are `first_token`.
STAGES: dict[Stage, str] = {
    "pause": "pause",
    "wait": "client wait",
    "connect": "connect",
    "queue": "queue",
    "prefill": "prefill",
    "first_token": "queue + prefill",
    "decode": "decode",
    "closing": "closing",
    "failed": "failed",
}
_NEEDS = (
    "turn", "parents", "delay_kind", "status", "error", "input_tokens", "output_tokens",
    "ready_s", "dispatched_s", "sent_s", "first_token_s", "last_token_s", "end_s",
    "observed_queue_s",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Timeline:
    """One program of a run. Its times are seconds since `start_s`, when its first call was due."""

    measured: Measured
    program_id: str

    @cached_property
    def calls(self) -> pl.DataFrame:
        """One row a call in the order of due times, those that never were due last.

        Its columns and metrics as `Measured.asked` has them, `on_path` of the critical path, `lane`
        (its place from 0) and `depth` (how many calls follow each other before it, the longest
        way; calls side by side have the same). Raises InputError if the run has no such program.
        """
        found = self.measured.asked.filter(col("program_id") == self.program_id)
        if found.is_empty():
            raise InputError(
                f"The run measured no program {self.program_id!r}.",
                "Take one of the column program_id; programs of the warm-up are left out.",
            )
        missing = [
            pl.lit(None, SCHEMA[name]).alias(name) for name in _NEEDS if name not in found.columns
        ]
        calls = with_path(found.with_columns(missing))
        depth = _depths(dict(zip(calls["call_id"], calls["parents"].to_list(), strict=True)))
        return calls.with_row_index("lane").with_columns(
            depth=pl.Series([depth[call_id] for call_id in calls["call_id"]], dtype=pl.UInt32)
        )

    @cached_property
    def start_s(self) -> float:
        """When the first call was due, in seconds of the run; 0 if none was."""
        first = self.calls["due_s"].min()
        return first if isinstance(first, float) else 0.0

    @cached_property
    def stages(self) -> pl.DataFrame:
        """One row a stage of a call that took any time: call_id, stage, from_s, until_s.

        Stages are those of STAGES. A pause begins when the parent ended that released the call; one
        before a call of the critical path that has no parent, with the program. Of a call that got
        no whole answer the last row is `failed`, from the last moment that is known of it to its
        end, even if that took no time. The stages of the critical path add up to JCT if the
        closing of the last call is left out.
        """
        calls = self.calls
        said = col("observed_queue_s").is_not_null()
        queued_s = pl.when(said).then(
            pl.min_horizontal(col("sent_s") + col("observed_queue_s"), "first_token_s")
        )
        known = pl.max_horizontal("due_s", "dispatched_s", "sent_s", "first_token_s",
                                  "last_token_s")  # fmt: skip
        bounds: dict[Stage, tuple[pl.Expr, pl.Expr]] = {
            "pause": (pl.coalesce("path_from_s", "ready_s"), col("due_s")),
            "wait": (col("due_s"), pl.coalesce("dispatched_s", "sent_s")),
            "connect": (col("dispatched_s"), col("sent_s")),
            "queue": (col("sent_s"), queued_s),
            "prefill": (queued_s, col("first_token_s")),
            "first_token": (pl.when(~said).then("sent_s"), col("first_token_s")),
            "decode": (col("first_token_s"), col("last_token_s")),
            "closing": (pl.when(ANSWERED).then("last_token_s"), col("end_s")),
            "failed": (pl.when(~ANSWERED).then(known), col("end_s")),
        }
        took_s = col("until_s") - col("from_s")
        found = [
            calls.select(
                "lane",
                "call_id",
                stage=pl.lit(stage),
                from_s=begin - self.start_s,
                until_s=end - self.start_s,
            ).filter((took_s > 0) | ((took_s == 0) & (col("stage") == "failed")))
            for stage, (begin, end) in bounds.items()
        ]
        rank = col("stage").replace_strict({stage: n for n, stage in enumerate(STAGES)})
        return pl.concat(found).sort("lane", rank).drop("lane")

    def gaps(self, call_id: str) -> pl.DataFrame:
        """Return a row a chunk of a call after its first: t_s, gap_s since the one before, tokens.

        `tokens` is null where the server does not say them. Only the row of this call is read;
        raises InputError if the program has no such call.
        """
        row = self.calls.filter(col("call_id") == call_id)["row"]
        if row.is_empty():
            raise InputError(
                f"Program {self.program_id!r} has no call {call_id!r}.",
                "Take one of its column call_id.",
            )
        own = self.measured.chunks_in_order(row.to_frame())
        moments, tokens = next(own).select("chunk_s", "chunk_tokens").row(0)
        arrived = pl.Series("t_s", moments or [], dtype=pl.Float64)
        counted = tokens if tokens and len(tokens) == len(arrived) else [None] * len(arrived)
        return pl.DataFrame(
            {
                "t_s": arrived - self.start_s,
                "gap_s": arrived.diff(),
                "tokens": pl.Series(counted, dtype=pl.Int64),
            }
        ).slice(1)


def _depths(parents: Mapping[str, Sequence[str] | None]) -> dict[str, int]:
    """Return how many calls follow each other before each call, the longest way.

    A parent that is not of the program does not count, and neither does one of a circle.
    """
    known: dict[str, int] = {}
    for call_id in parents:
        way = [call_id]  # calls that each wait for the next; no recursion, for programs are long
        while way and call_id not in known:
            here = way[-1]
            above = [p for p in parents[here] or () if p in parents]
            ahead = [p for p in above if p not in known and p not in way]
            if ahead:
                way.append(ahead[0])
            else:
                known[here] = max((known[p] + 1 for p in above if p in known), default=0)
                way.pop()
    return known
