"""Agent programs: a chain of calls, some of which start sub-agents with chains of their own.

A call goes on the chain of the first call that it waits for, unless another call does so; then it
begins a chain of its own, a sub-agent. A call of the main chain may wait for sub-agents besides.

Where many calls wait for several, programs are no such trees: calls follow each other whether or
not those before have ended. What they then wait for follows from when they arrive and end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from polars import col

from servescope.analysis.demand import Demand
from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, all_rounded, rounded
from servescope.analysis.models.sequences import Label, timed, unnamed
from servescope.analysis.models.sessions import Sessions, Turns, framed, listed, named
from servescope.analysis.sample import Floats, Ints
from servescope.traces.trace import Trace

_TANGLED = 0.1  # share of calls that wait for several from which programs are no trees
_REACH = 16  # calls back among which those that one waits for are sought
_LABELS = ("model", "call_class")
_QUARTERS = 4  # of a chain, in each of which sub-agents start as often
_WANTED = (
    *("call_id", "program_id", "turn", "parents", "arrival_s", "input_tokens", "output_tokens"),
    *("delay_s", "delay_kind", "observed_e2e_s", *_LABELS),
)


class Forks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How sub-agents hang on the chain of a program.

    With the chance `some` a program has calls that start any, a `share` of its calls, in the
    `quarters` of the chain by their shares; then `at_once` start together. With the chance
    `beside_some`, `beside` begin with the program itself. Their first call comes `launch_s` after.
    With the chance `waited` a call of the main chain waits for one, `until` calls after that which
    started it.
    """

    some: float
    share: Quantiles
    quarters: tuple[float, ...]
    at_once: Quantiles
    beside_some: float
    beside: Quantiles
    launch_s: Quantiles
    launch_kind: str
    waited: float
    until: Quantiles


class Agents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model of agent programs: main chains and, where there are any, sub-agents.

    `subs` and `forks` are None if fewer sub-agents than `min_count` were seen; those are left out.
    If calls are `tangled`, the pauses of `main` are from one arrival to the next.
    """

    main: Sessions
    subs: Sessions | None = None
    forks: Forks | None = None
    tangled: bool = False

    @classmethod
    def fit(cls, source: Demand | Trace, min_count: int = MIN_COUNT) -> Agents:
        """Fit the programs of a trace; without parents in the trace, a program is one chain.

        Raises InputError where no call names its program.
        """
        trace = source.trace if isinstance(source, Demand) else source
        if "parents" not in trace.columns:
            return cls(main=Sessions.fit(source, min_count))
        calls = _calls(trace)
        if _are_tangled(calls):
            return cls(main=Sessions.of(_by_arrival(calls), min_count), tangled=True)
        if _are_chains(calls):
            return cls(main=Sessions.of(timed(calls), min_count))
        parts = _Parts.of(calls)
        main, subs = parts.tables(calls)
        model = cls(main=Sessions.of(main, min_count))
        if (~parts.is_main).sum() < min_count:
            return model
        begun = subs.group_by("program_id", maintain_order=True).first()
        forks = _forks(parts, begun, min_count)
        return msgspec.structs.replace(model, subs=Sessions.of(subs, min_count), forks=forks)

    def log_score(self, source: Demand | Trace) -> float:
        """Return the log-likelihood of turns and pauses (nats), of sub-agents those they have."""
        trace = source.trace if isinstance(source, Demand) else source
        if "parents" not in trace.columns:
            return self.main.log_score(source)
        calls = _calls(trace)
        if self.tangled:
            return self.main.log_score_of(_by_arrival(calls))
        if _are_chains(calls):
            return self.main.log_score_of(timed(calls))
        main, subs = _Parts.of(calls).tables(calls)
        score = self.main.log_score_of(main)
        return score + (self.subs.log_score_of(subs) if self.subs and subs.height else 0.0)

    @property
    def labels(self) -> tuple[Label, ...]:
        """What calls were for, by the numbers in a sample."""
        return self.main.labels + (() if self.subs is None else self.subs.labels)

    @property
    def longest_s(self) -> float | None:
        """Time (s) that no program outlasts; None if there is no such limit."""
        return self.main.longest_s

    def sample(self, rng: np.random.Generator, count: int) -> pl.DataFrame:
        """Draw the calls of `count` programs, as `Sessions.sample` does.

        Turns are in the order of arrival; a call may wait for several `parents`.
        """
        if not count:
            return self.sample(rng, 1).clear()
        main = self.main.draw(rng, count)
        if self.tangled:
            return _tangled(main, self.main)
        if self.forks is None or self.subs is None:
            return framed(main, main.offsets(), self.main)
        hung = _Hung.draw(rng, main, self.forks)
        subs = self.subs.draw(rng, len(hung.row))
        return _joined(self, main, subs, hung)

    def summary(self) -> list[str]:
        """Say in sentences what was found."""
        said = self.main.summary()
        if self.tangled:
            return [*said, "Calls overlap: one may arrive before the one before it has ended."]
        if self.forks is None or self.subs is None:
            return [*said, "Programs are chains: no call starts several."]
        forks = self.forks
        return [
            *said,
            f"{forks.some:.0%} of programs start sub-agents:"
            f" {self.subs.programs} were seen, of {self.subs.turns.mean:.3g} calls on average;"
            f" {forks.waited:.0%} are waited for.",
        ]


def _calls(trace: Trace) -> pl.DataFrame:
    """Return the calls that name a program, by program and turn; raises InputError of none."""
    if "program_id" not in trace.columns:
        raise unnamed()
    order = [name for name in ("turn", "arrival_s") if name in trace.columns]
    return (
        trace.frame.select(name for name in _WANTED if name in trace.columns)
        .filter(col("program_id").is_not_null())
        .collect()
        .sort("program_id", *order, maintain_order=True)
    )


def _are_tangled(calls: pl.DataFrame) -> bool:
    several = (calls["parents"].list.len() > 1).mean()
    known = {"arrival_s", "observed_e2e_s"} <= set(calls.columns)
    return known and isinstance(several, float) and several > _TANGLED


def _are_chains(calls: pl.DataFrame) -> bool:
    """Whether every program has one root, and no call starts several or waits for several."""
    waits = calls["parents"].list.len().fill_null(0)
    parents = calls["parents"].explode().drop_nulls()
    return (
        int((waits == 0).sum()) == calls["program_id"].n_unique()
        and int((waits > 1).sum()) == 0
        and parents.n_unique() == len(parents)
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Programs cut into chains, which are numbered: arrays over calls, chains and sub-agents.

    `chain` is that of each call. Over chains: `is_main`, their `calls`, and of sub-agents the main
    chain they hang on, after which of its calls (-1: none) and how many calls later one waits for
    them (0: none does).
    """

    chain: Ints
    is_main: npt.NDArray[np.bool_]
    calls: Ints
    home: Ints
    after: Ints
    until: Ints

    @classmethod
    def of(cls, calls: pl.DataFrame) -> _Parts:
        """Cut programs, whose calls stand together, parents before children."""
        place = {name: row for row, name in enumerate(calls["call_id"].to_list())}
        waits = [
            [place[name] for name in names or () if place.get(name, row) < row]
            for row, names in enumerate(calls["parents"].to_list())
        ]
        program = calls["program_id"].rle_id().to_list()
        texts = [col(name).cast(pl.String) for name in _LABELS if name in calls.columns]
        label = calls.select(pl.concat_str([pl.lit(""), *texts], ignore_nulls=True)).to_series()
        goes_on = _going_on(waits, program, label.to_list())
        many = len(waits)
        chain, step = [0] * many, [0] * many
        mains: dict[int, int] = {}
        is_main: list[bool] = []
        long: list[int] = []
        hangs: list[tuple[int, int]] = []
        # the main root first, for a sub-agent may begin before it
        for row, parents in enumerate(waits):
            if not parents and goes_on[row]:
                mains[program[row]] = chain[row] = len(long)
                is_main.append(True)
                long.append(1)
                hangs.append((len(hangs), -1))
        until: dict[int, int] = {}
        for row, parents in enumerate(waits):
            before = parents[0] if parents else -1
            if goes_on[row]:
                if parents:
                    mine = chain[row] = chain[before]
                    step[row] = long[mine]
                    long[mine] += 1
                    for other in parents[1:]:
                        home, after = hangs[chain[other]]
                        if is_main[mine] and home == mine and not is_main[chain[other]]:
                            until.setdefault(chain[other], step[row] - after)
                continue
            chain[row] = len(long)
            long.append(1)
            is_main.append(False)
            if not parents:
                hangs.append((mains[program[row]], -1))
            elif is_main[chain[before]]:
                hangs.append((chain[before], step[before]))
            else:
                hangs.append(hangs[chain[before]])
        homes = np.array(hangs, np.int64).reshape(-1, 2)
        lags = [max(until.get(each, 0), 0) for each in range(len(long))]
        return cls(
            chain=np.array(chain, np.int64),
            is_main=np.array(is_main),
            calls=np.array(long, np.int64),
            home=homes[:, 0],
            after=homes[:, 1],
            until=np.array(lags, np.int64),
        )

    def tables(self, calls: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the calls of main chains and of sub-agents, with times, chains for programs."""
        cut = calls.with_columns(
            program_id=pl.Series(self.chain), main=pl.Series(self.is_main[self.chain])
        ).sort("program_id", maintain_order=True)
        return timed(cut.filter("main")), timed(cut.filter(~col("main")))


def _going_on(waits: list[list[int]], program: list[int], label: list[str]) -> list[bool]:
    """Return which calls go on the chain of the first that they wait for, or are the main root.

    Of those that wait for the same call it is the one that waits for others besides, else that of
    the same model and class, else that with the longest path behind it.
    """
    height = [1] * len(waits)
    for row in range(len(waits) - 1, -1, -1):
        for parent in waits[row][:1]:
            height[parent] = max(height[parent], height[row] + 1)
    best: dict[int, tuple[bool, bool, int, int]] = {}
    for row, parents in enumerate(waits):
        before = parents[0] if parents else -1 - program[row]
        alike = bool(parents) and label[before] == label[row]
        rank = (len(parents) > 1, alike, height[row], -row)
        best[before] = max(best.get(before, rank), rank)
    goes_on = [False] * len(waits)
    for *_, row in best.values():
        goes_on[-row] = True
    return goes_on


def _forks(parts: _Parts, begun: pl.DataFrame, min_count: int) -> Forks:
    """Read off how sub-agents hang on main chains; `begun` are their first calls."""
    subs, mains = np.flatnonzero(~parts.is_main), np.flatnonzero(parts.is_main)
    inside = subs[parts.after[subs] >= 0]
    pairs, at_once = np.unique(
        np.stack([parts.home[inside], parts.after[inside]]), axis=1, return_counts=True
    )
    forks = np.bincount(pairs[0], minlength=len(parts.calls))[mains]
    beside = np.bincount(parts.home[subs[parts.after[subs] < 0]], minlength=len(parts.calls))[mains]
    share = (forks / parts.calls[mains])[forks > 0]
    quarter = np.minimum((pairs[1] + 0.5) / parts.calls[pairs[0]] * _QUARTERS, _QUARTERS - 1)
    often = np.bincount(quarter.astype(np.int64), minlength=_QUARTERS).astype(np.float64)
    few = often < min_count
    if few.any() and often[few].sum() < min_count:
        few[:] = True
    if few.any():
        often[few] = max(often[few].mean(), 1.0)
    joined = parts.until[subs] > 0
    launch = np.zeros(0)
    kind = "unknown"
    if "delay_s" in begun.columns:
        launch = begun["delay_s"].drop_nulls().to_numpy()
    if "delay_kind" in begun.columns and begun["delay_kind"].count():
        kind = str(begun["delay_kind"].cast(pl.String).drop_nulls().mode().sort()[0])
    return Forks(
        some=rounded(len(share) / len(mains)),
        share=_law(share, min_count),
        quarters=all_rounded(often / often.sum()),
        at_once=_law(at_once, min_count, whole=True),
        beside_some=rounded(float((beside > 0).mean())),
        beside=_law(beside[beside > 0], min_count, whole=True),
        launch_s=_law(launch, min_count),
        launch_kind=kind,
        waited=rounded(float(joined.mean())),
        until=_law(parts.until[subs][joined], min_count, whole=True),
    )


def _law(values: npt.NDArray[Any], min_count: int, *, whole: bool = False) -> Quantiles:
    """Return the quantiles of values, of nothing a single 0."""
    return Quantiles.fit(values if len(values) else [0.0], min_count, whole=whole)


@dataclass(frozen=True, slots=True)
class _Hung:
    """Sub-agents that are to be drawn: on which row of the main chains (-1: with the program).

    `program` is its place among those of a turn, `join` the row that waits for it, -1 if none does.
    """

    row: Ints
    program: Ints
    join: Ints
    launch_s: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, main: Turns, forks: Forks) -> _Hung:
        """Draw where sub-agents start, and what waits for them."""
        count = main.alive[0] if main.alive else 0
        begins = np.cumsum((0, *main.alive))[:-1]
        place = np.arange(len(main.turn)) - begins[main.turn]  # of the program, the longest first
        long = np.bincount(place, minlength=count)
        some = rng.random(count) < forks.some
        share = np.where(some, np.clip(forks.share.sample(rng, count), 0, 1), 0.0)
        many = np.where(some, np.maximum(np.rint(share * long), 1), 0).astype(np.int64)

        quarter = ((main.turn + 0.5) / long[place] * _QUARTERS).astype(np.int64)
        wait = rng.exponential(size=len(place)) / np.array(forks.quarters)[quarter]
        # what is waited for does not start at the last call
        able = np.flatnonzero(
            (many[place] > 0) & ((main.turn < long[place] - 1) | (forks.waited < 0.5))
        )
        able = able[np.lexsort((wait[able], place[able]))]
        begun = np.concatenate(([True], place[able][1:] != place[able][:-1]))[: len(able)]
        first = np.flatnonzero(begun)
        nth = np.arange(len(able)) - first[np.cumsum(begun) - 1] if len(able) else able
        forked = able[nth < many[place[able]]]
        at_once = np.maximum(forks.at_once.sample(rng, len(forked)), 1).astype(np.int64)
        beside = np.where(rng.random(count) < forks.beside_some, forks.beside.sample(rng, count), 0)
        beside = beside.astype(np.int64)
        row = np.concatenate((np.full(beside.sum(), -1), np.repeat(forked, at_once)))
        program = np.concatenate(
            (np.repeat(np.arange(count), beside), np.repeat(place[forked], at_once))
        )
        after = np.where(row < 0, -1, main.turn[row])
        until = after + np.maximum(forks.until.sample(rng, len(row)), 1).astype(np.int64)
        until = np.minimum(until, long[program] - 1)
        waits = (rng.random(len(row)) < forks.waited) & (until > after)
        join = np.where(waits, begins[np.minimum(until, len(begins) - 1)] + program, -1)
        order = np.argsort(row, kind="stable")
        launch = np.maximum(forks.launch_s.sample(rng, len(row)), 0.0)
        return cls(row[order], program[order], join[order], launch[order])


def _by_arrival(calls: pl.DataFrame) -> pl.DataFrame:
    """Return programs as chains in order of arrival, each call as long after as it arrived."""
    ordered = calls.sort("program_id", "arrival_s", maintain_order=True)
    inside = col("program_id") == col("program_id").shift(1)
    return timed(ordered.with_columns(delay_s=pl.when(inside).then(col("arrival_s").diff())))


def _tangled(drawn: Turns, model: Sessions) -> pl.DataFrame:
    """Return calls that arrive a pause after another, and wait for what has ended by then.

    A call waits for those that ended before it arrived, but for those that one of them waited for.
    """
    apart = replace(drawn, service_s=np.zeros(len(drawn.turn)))
    frame = framed(apart, apart.offsets(), model)
    many = np.bincount(drawn.program)
    order = (np.cumsum(many) - many)[drawn.program] + drawn.turn
    took = np.empty(len(order))
    took[order] = drawn.service_s
    at = np.empty(len(order))
    at[order] = apart.offsets()
    if model.longest_s is not None:
        kept = at <= model.longest_s
        took, at = took[kept], at[kept]
    turn, end = frame["turn"].to_numpy(), at + took
    # of those ended, the last to begin; what ended before that one began, it waited for
    latest = np.full(len(at), -np.inf)
    over = np.zeros((_REACH + 1, len(at)), bool)
    for back in range(1, _REACH + 1):
        over[back, back:] = (turn[back:] >= back) & (end[:-back] <= at[back:])
        latest[back:] = np.where(
            over[back, back:], np.maximum(latest[back:], at[:-back]), latest[back:]
        )
    since = np.full(len(at), -np.inf)
    first = np.full(len(at), -1)
    rows, parents = [], []
    for back in range(1, _REACH + 1):
        row = np.flatnonzero(over[back])
        row = row[(end[row - back] > latest[row]) | (at[row - back] == latest[row])]
        since[row] = np.maximum(since[row], end[row - back])
        more = row[first[row] >= 0]
        rows.append(more)
        parents.append(turn[more - back])
        first[row] = np.where(first[row] < 0, turn[row - back], first[row])
    waits = listed(first, np.concatenate(rows), np.concatenate(parents))
    return _paused(frame.with_columns(waits, delay_s=pl.Series(at - since)))


def _joined(model: Agents, main: Turns, subs: Turns, hung: _Hung) -> pl.DataFrame:
    """Time main chains and sub-agents together, and number their calls by arrival."""
    assert model.subs is not None
    assert model.forks is not None
    within = subs.offsets()
    many = np.bincount(subs.program, minlength=len(hung.row))
    last = np.zeros(len(hung.row), np.int64)  # row of a sub-agent's last call
    ends = subs.turn == many[subs.program] - 1
    last[subs.program[ends]] = np.flatnonzero(ends)
    lasts = within[last] + subs.service_s[last] + hung.launch_s

    at = np.zeros(len(main.turn))
    ready = np.zeros(len(main.turn))
    start = np.zeros(len(hung.row))
    splits = np.searchsorted(hung.row, np.cumsum((0, *main.alive)))
    waits = hung.join >= 0
    early = slice(0, splits[0])
    np.maximum.at(ready, hung.join[early][waits[early]], lasts[early][waits[early]])
    before, begin = 0, 0
    for turn, now in enumerate(main.alive):
        here = slice(begin, begin + now)
        if turn:
            prior = slice(before, before + now)
            at[here] = np.maximum(at[prior] + main.service_s[prior], ready[here])
            at[here] += main.pause_s[here]
        mine = slice(splits[turn], splits[turn + 1])
        start[mine] = at[hung.row[mine]] + main.service_s[hung.row[mine]]
        joins = waits[mine]
        np.maximum.at(ready, hung.join[mine][joins], (start[mine] + lasts[mine])[joins])
        before, begin = begin, begin + now

    # one table: main chains, then sub-agents
    size = len(main.turn)
    offset = np.concatenate((at, (start + hung.launch_s)[subs.program] + within))
    program = np.concatenate((main.program, main.program[hung.program][subs.program]))
    after = np.where(hung.row < 0, -1, main.turn[hung.row])
    # of calls at one moment, those that others wait for come first
    depth = np.concatenate(
        (main.turn, after[subs.program] + (subs.turn + 1) / (many[subs.program] + 1))
    )
    order = np.lexsort((depth, offset, program))
    if model.longest_s is not None:
        order = order[offset[order] <= model.longest_s]
    names = program[order]
    begins = np.concatenate(([True], names[1:] != names[:-1]))[: len(names)]
    turn = np.arange(len(names)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    number, position = np.full(len(offset), -1), np.full(len(offset), -1)
    number[order], position[order] = turn, np.arange(len(order))

    later = np.flatnonzero(main.turn > 0)
    rows = np.cumsum((0, *main.alive))[:-1]
    previous = rows[main.turn[later] - 1] + later - rows[main.turn[later]]
    starts = np.cumsum((0, *subs.alive))[:-1]
    inner = np.flatnonzero(subs.turn > 0)
    before_inner = starts[subs.turn[inner] - 1] + inner - starts[subs.turn[inner]]
    first = np.flatnonzero(subs.turn == 0)
    hangs = hung.row[subs.program[first]] >= 0
    parent = np.full(len(offset), -1)
    parent[later], parent[size + inner] = previous, size + before_inner
    parent[size + first[hangs]] = hung.row[subs.program[first]][hangs]
    there = np.where(parent >= 0, number[parent], -1)
    waiting = number[hung.join[waits]] >= 0
    parents = listed(
        there[order],
        position[hung.join[waits][waiting]],
        number[size + last[waits][waiting]],
    )
    launched = np.where(subs.turn == 0, hung.launch_s[subs.program], subs.pause_s)
    kinds = pl.concat(
        [
            named(main.kind, model.main.kinds),
            pl.Series(
                pl.select(
                    pl.when(pl.Series(subs.turn == 0))
                    .then(pl.lit(model.forks.launch_kind))
                    .otherwise(named(subs.kind, model.subs.kinds))
                )
            ),
        ]
    )
    lengths = {
        name: pl.Series(np.concatenate((of_main, of_subs))[order]).cast(pl.Int32)
        for name, of_main, of_subs in (
            ("input_tokens", main.inputs, subs.inputs),
            ("output_tokens", main.outputs, subs.outputs),
        )
        if of_main is not None and of_subs is not None
    }
    label = np.concatenate((main.label, len(model.main.labels) + subs.label))
    frame = pl.DataFrame(
        {
            "program": names,
            "turn": turn.astype(np.int32),
            "offset_s": offset[order],
            "delay_s": np.concatenate((main.pause_s, launched))[order],
            "delay_kind": kinds.gather(order),
            **lengths,
            "label": label[order].astype(np.int32),
            "parents": parents,
        }
    )
    return _paused(frame)


def _paused(frame: pl.DataFrame) -> pl.DataFrame:
    """Take the pauses off calls that wait for none."""
    waits = col("parents").list.len() > 0
    return frame.with_columns(
        pl.when(waits).then(name).alias(name) for name in ("delay_s", "delay_kind")
    )
