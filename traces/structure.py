"""How the calls of a trace hang together: programs, turns, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from servescope.traces.formats.links import cycles
from servescope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Structure:
    """Counts of calls by their place in a program; of a chat, all but the first are `followers`.

    `roots` wait for nothing, `followers` for one call and `joins` for several; `forks` are waited
    for by several. `unknown` do not say what they wait for. `lost_parents` wait for a call that is
    not there, `foreign_parents` for one of another program, `in_cycles` for themselves in the end.
    `early` arrive before a call that they wait for. `pauses` say how long they wait after it.
    `misnumbered` programs have turns that are not 0, 1, 2, ...
    """

    programs: int
    in_programs: int
    multi_turn: int
    turns_max: int
    roots: int = 0
    followers: int = 0
    joins: int = 0
    forks: int = 0
    unknown: int = 0
    lost_parents: int = 0
    foreign_parents: int = 0
    in_cycles: int = 0
    early: int = 0
    pauses: int = 0
    misnumbered: int = 0


def of(trace: Trace) -> Structure | None:
    """Count the structure of a trace; None where calls name neither programs nor parents."""
    there = trace.columns
    counts: dict[str, int] = {}
    if "program_id" in there:
        counts |= _programs(trace.frame)
    if "parents" in there:
        counts |= _links(trace.frame, there)
    if not counts.get("programs") and not counts.get("followers"):
        return None
    return Structure(**{"programs": 0, "in_programs": 0, "multi_turn": 0, "turns_max": 0, **counts})


def _programs(frame: pl.LazyFrame) -> dict[str, int]:
    in_order = pl.col("turn").n_unique() == pl.len()
    numbered = pl.col("turn").null_count() == 0
    from_0 = (pl.col("turn").min() == 0) & (pl.col("turn").max() == pl.len() - 1)
    sizes = (
        frame.filter(pl.col("program_id").is_not_null())
        .group_by("program_id")
        .agg(calls=pl.len(), odd=numbered & ~(in_order & from_0))
    )
    found = sizes.select(
        programs=pl.len(),
        in_programs=pl.col("calls").sum(),
        multi_turn=(pl.col("calls") > 1).sum(),
        turns_max=pl.col("calls").max().fill_null(0),
        misnumbered=pl.col("odd").sum(),
    )
    return found.collect().row(0, named=True)


def _links(frame: pl.LazyFrame, there: list[str]) -> dict[str, int]:
    count = pl.col("parents").list.len()
    waits = frame.select(
        roots=(count == 0).sum(),
        followers=(count == 1).sum(),
        joins=(count > 1).sum(),
        unknown=pl.col("parents").is_null().sum(),
        pauses=pl.col("delay_s").is_not_null().sum(),
    ).collect()
    # Names become 64-bit hashes: the counts of millions of links fit into memory.
    calls = frame.select(
        pl.col("call_id").hash().alias("call"),
        pl.col("program_id").hash().alias("home")
        if "program_id" in there
        else pl.lit(0).alias("home"),
        (pl.col("arrival_s") if "arrival_s" in there else pl.lit(None, pl.Float64)).alias("at"),
        pl.col("parents").list.eval(pl.element().hash()).alias("parent"),
    ).with_row_index("row")
    links = (
        calls.filter(pl.col("parent").list.len() > 0)
        .explode("parent")
        .join(calls.drop("parent"), left_on="parent", right_on="call", how="left", suffix="_parent")
    )
    there_at_all = pl.col("row_parent").is_not_null()
    found = links.select(
        lost_parents=(~there_at_all).sum(),
        foreign_parents=(there_at_all & (pl.col("home") != pl.col("home_parent"))).sum(),
        early=(pl.col("at") < pl.col("at_parent")).sum(),
        backward=(pl.col("row_parent") >= pl.col("row")).sum(),
    ).collect()
    forks = links.group_by("parent").len().select((pl.col("len") > 1).sum()).collect().item()
    counts = {**waits.row(0, named=True), **found.row(0, named=True), "forks": forks}
    # Parents that all stand before their children make no cycle.
    counts["in_cycles"] = _in_cycles(frame) if counts.pop("backward") else 0
    return counts


def _in_cycles(frame: pl.LazyFrame) -> int:
    names = frame.select("call_id", "parents").collect().iter_rows()
    return sum(1 for _ in cycles((name, parents or []) for name, parents in names))


def doubts(found: Structure) -> Iterator[str]:
    """Say what of a structure makes no sense."""
    odd = {
        "wait for calls that are not in the trace": found.lost_parents,
        "wait for a call of another program; a replay does not": found.foreign_parents,
        "wait for themselves through their parents; a replay cannot send them": found.in_cycles,
        "arrive before a call that they wait for": found.early,
    }
    for problem, count in odd.items():
        if count:
            yield f"{count} calls {problem}."
    if found.misnumbered:
        yield f"{found.misnumbered} programs have turns that are not numbered 0, 1, 2 and so on."
