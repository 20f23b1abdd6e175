"""Prefix blocks as other tools write them: one namespace, and an id for a last block too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from servescope.traces.trace import Trace


@dataclass
class Blocks:
    """Numbers the blocks of calls anew, so that ids mean the same in the whole trace.

    `tokens` is the size of a block. `next_id` is above every id of the trace: blocks that the
    trace leaves out, since they are not full, get ids that no other block has.
    """

    tokens: int
    floor: bool
    by_program: bool
    width: int
    next_id: int
    places: dict[str | None, int] = field(default_factory=dict)

    @classmethod
    def of(cls, trace: Trace) -> Blocks | None:
        """Return the numbering; None if the trace has no blocks, or none of one size."""
        about = trace.provenance
        if (
            "prefix_blocks" not in trace.columns
            or about.block_tokens is None
            or about.block_rule not in ("ceil", "floor")
        ):
            return None
        by_program = about.block_scope == "program"
        programs = pl.col("program_id").n_unique() if by_program else pl.lit(1)
        top, count = (
            trace.frame.select(pl.col("prefix_blocks").list.max().max(), count=programs)
            .collect()
            .row(0)
        )
        if top is None:
            return None
        width = top + 1
        return cls(
            about.block_tokens, about.block_rule == "floor", by_program, width, width * count
        )

    @classmethod
    def distinct(cls, tokens: int) -> Blocks:
        """Return a numbering for a trace that has no blocks."""
        return cls(tokens, floor=False, by_program=False, width=0, next_id=0)

    def ids(
        self, program: str | None, blocks: Iterable[int] | None, tokens: int
    ) -> list[int] | None:
        """Return the ids of a prompt of `tokens`, as many as ceil(tokens / self.tokens)."""
        if blocks is None:
            return None
        base = 0
        if self.by_program:
            base = self.places.setdefault(program, len(self.places)) * self.width
        ids = [base + block for block in blocks]
        if self.floor and tokens % self.tokens:
            ids += self.fresh(1)
        return ids

    def fresh(self, count: int) -> list[int]:
        """Return ids that no other block has."""
        self.next_id += count
        return list(range(self.next_id - count, self.next_id))
