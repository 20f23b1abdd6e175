"""What a call waits for: chained by session, or named by the source and then checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import polars as pl

_CARRIED = ("program_id", "call_id", "turn", "arrival_s", "observed_e2e_s")
GAPS = (
    "the gap between two arrivals: the end of the turn before is not recorded, so pauses are too"
    " long by the time that turn took"
)


class Chain:
    """Makes each call of a program wait for the call before it; the calls come in order of arrival.

    `delay_s` is the time since the turn before had ended, unknown where its end is, or since it had
    arrived where the source records no ends at all. `overlapping` counts turns that arrived over a
    second before that end (stamps are often whole seconds); their pause, as every pause below 0,
    is taken as 0. A call keeps a `delay_kind` of its own.
    """

    def __init__(self, delay_kind: str = "user") -> None:
        self.overlapping = 0
        self._kind = delay_kind
        self._last: pl.DataFrame | None = None  # of each program, the call that came last

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Link one batch, knowing those before."""
        names = dict.fromkeys((*batch.columns, "turn", "parents", "delay_s", "delay_kind"))
        if "observed_e2e_s" not in batch.columns:
            batch = batch.with_columns(observed_e2e_s=0.0)
        if "delay_kind" not in batch.columns:
            batch = batch.with_columns(delay_kind=pl.lit(None, pl.String))
        calls = batch.with_columns(turn=pl.lit(None, pl.Int64))
        if self._last is not None:
            known = calls["program_id"].drop_nulls().unique()
            before = self._last.filter(pl.col("program_id").is_in(known.implode()))
            calls = pl.concat([before.with_columns(_old=True), calls], how="diagonal_relaxed")
        else:
            calls = calls.with_columns(_old=pl.lit(None, pl.Boolean))
        in_program = pl.col("program_id").is_not_null()
        first = pl.col("turn").first().over("program_id").fill_null(0)
        ended_s = pl.col("arrival_s") + pl.col("observed_e2e_s")
        linked = calls.with_columns(
            turn=pl.when(in_program).then(first + pl.int_range(pl.len()).over("program_id")),
            _parent=pl.when(in_program).then(pl.col("call_id").shift(1).over("program_id")),
            _gap=pl.col("arrival_s") - ended_s.shift(1).over("program_id"),
        )
        last = linked.filter(in_program).select(_CARRIED).unique("program_id", keep="last")
        if self._last is not None:
            rest = self._last.join(last, on="program_id", how="anti")
            last = pl.concat([rest, last])
        self._last = last
        new = linked.filter(pl.col("_old").is_null())
        follows = pl.col("_parent").is_not_null()
        new = new.with_columns(
            parents=pl.when(follows)
            .then(pl.concat_list("_parent"))
            .when(in_program)
            .then(pl.lit([], dtype=pl.List(pl.String))),
            delay_s=pl.when(follows).then(pl.col("_gap").clip(lower_bound=0.0)),
            delay_kind=pl.when(follows).then(pl.coalesce("delay_kind", pl.lit(self._kind))),
        )
        self.overlapping += new.filter(follows & (pl.col("_gap") < -1)).height
        return new.select(*names)


def cycles(links: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    """Yield the calls that wait for themselves, directly or through others.

    Takes every call and the calls it waits for; those that are not there are left out of account.
    """
    waits = {name: set(parents) for name, parents in links}
    names = set(waits)  # a set: meeting it takes as long as the smaller of the two
    children = defaultdict(list)
    for name, parents in waits.items():
        parents &= names
        for parent in parents:
            children[parent].append(name)
    free = [name for name, parents in waits.items() if not parents]
    while free:
        done = free.pop()
        for child in children[done]:
            waits[child].discard(done)
            if not waits[child]:
                free.append(child)
    # What is left waits for a cycle; what is on one, waits for each other (Kosaraju and Sharir).
    stuck = {name: parents for name, parents in waits.items() if parents}
    seen: set[str] = set()
    order = [name for start in stuck for name in _walk(start, stuck, seen)]
    seen, found = set(), set()
    for start in reversed(order):
        ring = list(_walk(start, children, seen))
        if len(ring) > 1 or start in stuck[start]:
            found.update(ring)
    yield from (name for name in stuck if name in found)


def _walk(start: str, ways: Mapping[str, Iterable[str]], seen: set[str]) -> Iterator[str]:
    """Yield what is reached from a call and not seen before, each after all that it reaches."""
    if start in seen:
        return
    seen.add(start)
    trail = [(start, iter(ways.get(start, ())))]
    while trail:
        name, rest = trail[-1]
        step = next((other for other in rest if other not in seen), None)
        if step is None:
            trail.pop()
            yield name
        else:
            seen.add(step)
            trail.append((step, iter(ways.get(step, ()))))
