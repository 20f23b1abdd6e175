"""The prompts of a trace as blocks, and which earlier prompt each of them begins as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from servescope.analysis.demand import Demand
from servescope.analysis.reuse import leading, numbered
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError


@dataclass(frozen=True)
class Prompts:
    """The prompts of a trace in order of arrival, as numbers of blocks end to end in `flat`.

    `before` is the row of the call before in the same program, -1 for none; `timed` says whether
    `when` (s) is a clock of all calls, `local` whether blocks are shared within programs only.
    """

    flat: Ints
    sizes: Ints
    when: Floats
    tokens: Ints
    before: Ints
    most: int
    timed: bool
    local: bool
    block_tokens: int | None
    rule: str

    @classmethod
    def of(cls, demand: Demand) -> Prompts:
        """Read the prompts whose blocks are known; raises InputError where there are none."""
        trace, about = demand.trace, demand.about
        if "prefix_blocks" not in trace.columns:
            raise InputError(
                "The trace does not say which prompts share a prefix.",
                "Fit a model without prefixes, or take a trace with prefix blocks.",
            )
        there = [
            name
            for name in ("arrival_s", "program_id", "turn", "input_tokens", "prefix_blocks")
            if name in trace.columns
        ]
        rows = pl.concat(list(trace.batches(*there)))
        rows = rows.filter(pl.col("prefix_blocks").is_not_null())
        rows = rows.with_columns(pl.col("prefix_blocks").list.unique(maintain_order=True))
        local = about.block_scope == "program" and "program_id" in there
        timed = demand.timed and not local and rows["arrival_s"].null_count() == 0
        if timed:
            rows = rows.sort("arrival_s", maintain_order=True)
        count = rows.height
        sizes = rows["prefix_blocks"].list.len().to_numpy().astype(np.int64)
        ids = rows["prefix_blocks"].filter(rows["prefix_blocks"].list.len() > 0).explode()
        if not len(ids):
            raise InputError(
                "No prompt of the trace has a prefix block.",
                "Fit a model without prefixes, or take a trace with prefix blocks.",
            )
        flat, most = numbered(ids.to_numpy())
        before = np.full(count, -1, np.int64)
        if "program_id" in there and rows["program_id"].null_count() < count:
            home = rows["program_id"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
            if local:
                flat, most = numbered(np.repeat(home, sizes) * most + flat)
            order = np.argsort(home, kind="stable")
            same = (home[order][1:] == home[order][:-1]) & (home[order][1:] > 0)
            before[order[1:][same]] = order[:-1][same]
        return cls(
            flat=flat,
            sizes=sizes,
            when=rows["arrival_s"].to_numpy() if timed else np.arange(count, dtype=np.float64),
            tokens=rows["input_tokens"].fill_null(0).to_numpy().astype(np.int64),
            before=before,
            most=most,
            timed=timed,
            local=local,
            block_tokens=about.block_tokens,
            rule=about.block_rule or "ceil",
        )

    def origins(self) -> tuple[Ints, Ints, Ints]:
        """Return which earlier prompt had the last block that was hit, and how many were.

        Rows of -1 and 0 for none; third, how many blocks a prompt shares with `before`.
        """
        last = np.full(self.most, -1, np.int64)
        count = len(self.sizes)
        owner = np.full(count, -1, np.int64)
        shared, own = np.zeros(count, np.int64), np.zeros(count, np.int64)
        ends = np.cumsum(self.sizes)
        begins = (ends - self.sizes).tolist()
        before = self.before.tolist()
        flat = self.flat
        for row, (begin, end) in enumerate(zip(begins, ends.tolist(), strict=True)):
            prompt = flat[begin:end]
            found = last[prompt]
            hit = leading(found >= 0)
            if hit:
                owner[row], shared[row] = found[hit - 1], hit
            if before[row] >= 0:
                start = begins[before[row]]
                most = min(end - begin, int(self.sizes[before[row]]))
                own[row] = leading(flat[start : start + most] == prompt[:most])
            last[prompt] = row
        return owner, shared, own

    def popular(self, min_visits: int) -> tuple[list[tuple[int, int]], Ints, Ints]:
        """Return the tree of the prefixes with so many visits or more, level by level.

        Its nodes as (parent, level from 1), and of every prompt the last node and its level.
        """
        begins = np.cumsum(self.sizes) - self.sizes
        at = np.full(len(self.sizes), -1, np.int64)
        depth = np.zeros(len(self.sizes), np.int64)
        nodes: list[tuple[int, int]] = []
        alive = np.arange(len(self.sizes))
        level = 0
        while len(alive := alive[self.sizes[alive] > level]) >= min_visits:
            key = (at[alive] + 1) * self.most + self.flat[begins[alive] + level]
            _, first, place, visits = np.unique(
                key, return_index=True, return_inverse=True, return_counts=True
            )
            often = visits >= min_visits
            number = np.where(often, np.cumsum(often) - 1 + len(nodes), -1)
            level += 1
            nodes += [(int(at[alive[first[k]]]), level) for k in np.flatnonzero(often).tolist()]
            alive, node = alive[often[place]], number[place][often[place]]
            at[alive], depth[alive] = node, level
        return nodes, at, depth
