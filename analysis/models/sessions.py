"""Sessions: programs whose calls follow each other, each after a pause.

A session has a number of turns. Each turn after the first begins after a pause, with a prompt that
has grown or was cut; its answer depends on its prompt, and the time it takes on its answer. What
the calls of a session have in common is in `effects`, what each number is like in quantile
functions of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import polars as pl
from polars import col
from scipy.special import ndtr

from servescope.analysis.copulas import mid_ranks
from servescope.analysis.demand import Demand
from servescope.analysis.models.effects import Effects, scores
from servescope.analysis.models.given import Given
from servescope.analysis.models.growth import Growth
from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, rounded
from servescope.analysis.models.sequences import Label, Sequences, in_order
from servescope.analysis.models.succession import Succession
from servescope.analysis.sample import Floats, Ints
from servescope.traces.trace import Trace

PAUSE, GROWTH, OUTPUT, SERVICE = range(4)  # the numbers whose dependence `effects` holds
_PLACES = 4  # stretches of turns that pauses are told apart by
_GRID = 4096  # programs that stand for all where their lengths are weighed
_NONE_S = 1e-3  # a median time of calls below which they are said to take none
_TRIAL = 60_000  # calls drawn to see how answers and prompts correlate
_MOST_TILT = 0.5
_LONGEST = 2.0  # of the longest sessions seen


@dataclass(frozen=True, slots=True)
class Turns:
    """Turns of programs, row by row: the first of all, then the second of those with more, ...

    `alive[t]` programs have a turn t, and they stand in the same order at each. Shapes are (n,);
    `inputs` and `outputs` are None where the model has none.
    """

    alive: tuple[int, ...]
    program: Ints
    turn: Ints
    pause_s: Floats
    kind: Ints
    inputs: Floats | None
    outputs: Floats | None
    service_s: Floats
    label: Ints

    def offsets(self) -> Floats:
        """Return when turns arrive after their program's start (s)."""
        at = np.zeros(len(self.turn))
        before, begin = 0, self.alive[0] if self.alive else 0
        for now in self.alive[1:]:
            here, last = slice(begin, begin + now), slice(before, before + now)
            at[here] = at[last] + self.service_s[last] + self.pause_s[here]
            before, begin = begin, begin + now
        return at


class Sessions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """A model of sessions: of turns, pauses, prompts and answers, and of what they share.

    `pauses` are given the turn, one for each of `kinds`. `first_inputs` are prompts given how many
    turns there are, `outputs` are given the prompt, with `tilt` of its score added to theirs, and
    `service` (s that a call took) the answer. No turn begins later than `longest_s` after the
    first. What a trace does not have is None.
    """

    programs: int
    turns: Quantiles
    effects: Effects
    kinds: tuple[str, ...]
    kinds_follow: Succession | None
    pauses: tuple[Given, ...]
    labels: tuple[Label, ...]
    labels_follow: Succession
    first_inputs: Given | None
    growth: Growth | None
    outputs: Given | None
    tilt: float
    service: Given | None
    longest_s: float | None

    @classmethod
    def fit(cls, source: Demand | Trace, min_count: int = MIN_COUNT) -> Sessions:
        """Fit the programs of a trace, each as one chain of calls in order.

        Raises InputError where no call names its program.
        """
        demand = source if isinstance(source, Demand) else Demand.of(source)
        return cls.of(in_order(demand), min_count)

    @classmethod
    def of(cls, calls: pl.DataFrame, min_count: int = MIN_COUNT) -> Sessions:
        """Fit programs that are chains: a table as `sequences.timed` returns it."""
        table = Sequences.of(calls, min_count)
        count = np.bincount(table.program)
        turns = Quantiles.fit(count, min_count, whole=True)
        ranks = np.full((len(table.turn), 4), np.nan)

        kinds, pauses = table.kinds, []
        later = table.turn > 0
        known = later & np.isfinite(table.pause_s)
        for kind in range(len(kinds)):
            here = known & (table.kind == kind)
            place, pause = table.turn[here].astype(np.float64), table.pause_s[here]
            law = Given.fit(place, pause, min_count, _PLACES, whole=_are_whole(pause))
            ranks[here, PAUSE] = law.rank(place, pause)
            pauses.append(law)

        first_inputs = growth = outputs = service = None
        inputs = table.inputs
        if inputs is not None:
            first_inputs = Given.fit(
                count.astype(np.float64), inputs[~later], min_count, whole=True
            )
            at = np.flatnonzero(later)
            if len(at):
                answers = None if table.outputs is None else table.outputs[at - 1]
                growth = Growth.fit(inputs[at], inputs[at - 1], answers, min_count)
                ranks[at, GROWTH] = growth.rank(inputs[at], inputs[at - 1], answers)
        if table.outputs is not None:
            given = np.zeros(len(table.turn)) if inputs is None else inputs
            outputs = Given.fit(given, table.outputs, min_count, whole=True)
            ranks[:, OUTPUT] = outputs.rank(given, table.outputs)
        took = np.isfinite(table.service_s)
        if took.any() and np.median(table.service_s[took]) > _NONE_S:
            given = (np.zeros(len(took)) if table.outputs is None else table.outputs)[took]
            service = Given.fit(given, table.service_s[took], min_count)
            ranks[took, SERVICE] = service.rank(given, table.service_s[took])

        follow = None
        if kinds:
            follow = Succession.fit(table.kind[later], table.program[later], len(kinds), min_count)
        place = turns.rank(count.astype(np.float64))
        shell = cls(
            programs=len(count),
            turns=turns,
            effects=Effects.none(4),
            kinds=tuple(kinds),
            kinds_follow=follow,
            pauses=tuple(pauses),
            labels=table.labels,
            labels_follow=Succession.fit(table.label, table.program, len(table.labels), min_count),
            first_inputs=first_inputs,
            growth=growth,
            outputs=outputs,
            tilt=0.0,
            service=service,
            longest_s=_longest(table, min_count),
        )
        lengths = shell._lengths(place[table.program], table.turn, table.kind)
        effects = Effects.fit(ranks, lengths, table.program, (GROWTH,))
        return msgspec.structs.replace(shell, effects=effects)._tilted(table)

    def _tilted(self, table: Sequences) -> Sessions:
        """Return the model with the rank correlation of prompt and answer that the calls have.

        Answers make prompts grow, so those of a session that has long ones are long too, and more
        so than in the trace: what is too much is measured on a sample, and taken off.
        """
        if self.outputs is None or table.inputs is None or table.outputs is None:
            return self
        many = min(_TRIAL, max(200, int(_TRIAL / self.turns.mean)))
        drawn = self.draw(np.random.default_rng(0), many)
        assert drawn.inputs is not None
        assert drawn.outputs is not None
        wanted = _spearman(table.inputs, table.outputs)
        tilt = np.clip(wanted - _spearman(drawn.inputs, drawn.outputs), -_MOST_TILT, _MOST_TILT)
        return msgspec.structs.replace(self, tilt=rounded(float(tilt)))

    def draw(self, rng: np.random.Generator, count: int) -> Turns:
        """Draw the turns of programs."""
        place = -np.sort(-rng.random(count))  # the longest first, so that those alive are a prefix
        long = np.maximum(self.turns.at(place), 1).astype(np.int64)
        name = rng.permutation(count)
        alive = np.cumsum(np.bincount(long)[::-1])[::-1][1:]
        turn = np.repeat(np.arange(len(alive)), alive)
        row = np.arange(len(turn)) - np.repeat(np.cumsum(alive) - alive, alive)
        steps = tuple(alive.tolist())

        kind = np.zeros(len(turn), np.int64)
        if self.kinds_follow is not None and len(self.kinds) > 1:
            kind[count:] = _followed(self.kinds_follow, rng.random(len(turn) - count), steps[1:])
        label = np.zeros(len(turn), np.int64)
        if len(self.labels) > 1:
            label = _followed(self.labels_follow, rng.random(len(turn)), steps)

        u = ndtr(self.effects.sample(rng, scores(self._lengths(place[row], turn, kind)), steps))
        pause = np.zeros(len(turn))
        for each, law in enumerate(self.pauses):
            here = np.flatnonzero((kind == each) & (turn > 0))
            pause[here] = np.maximum(law.at(turn[here].astype(np.float64), u[here, PAUSE]), 0.0)
        inputs, outputs = self._contents(rng, long, steps, u)
        service = np.zeros(len(turn))
        if self.service is not None:
            given = np.zeros(len(turn)) if outputs is None else outputs
            service = np.maximum(self.service.at(given, u[:, SERVICE]), 0.0)
        return Turns(steps, name[row], turn, pause, kind, inputs, outputs, service, label)

    def _contents(
        self, rng: np.random.Generator, long: Ints, alive: tuple[int, ...], u: Floats
    ) -> tuple[Floats | None, Floats | None]:
        """Draw prompts and answers, turn by turn, for each depends on those before."""
        outputs = None if self.outputs is None else np.zeros(len(u))
        if self.first_inputs is None:
            if outputs is not None and self.outputs is not None:
                outputs = np.maximum(self.outputs.at(outputs, u[:, OUTPUT]), 0.0)
            return None, outputs
        inputs = np.zeros(len(u))
        before, begin = 0, 0
        for turn, now in enumerate(alive):
            here = slice(begin, begin + now)
            if turn == 0 or self.growth is None:
                prompt = self.first_inputs.at(long.astype(np.float64), rng.random(len(long)))
            else:
                last = slice(before, before + now)
                answers = None if outputs is None else outputs[last]
                prompt = self.growth.at(inputs[last], answers, u[here, GROWTH])
            inputs[here] = np.maximum(prompt, 0.0)
            if outputs is not None and self.outputs is not None:
                level = u[here, OUTPUT]
                if self.tilt and self.outputs.edges:
                    place = (self.outputs.cells(inputs[here]) + 0.5) / (len(self.outputs.edges) + 1)
                    rest = np.sqrt(1 - self.tilt**2)
                    level = ndtr(rest * scores(level) + self.tilt * scores(place))
                outputs[here] = np.maximum(self.outputs.at(inputs[here], level), 0.0)
            before, begin = begin, begin + now
        return inputs, outputs

    def sample(self, rng: np.random.Generator, count: int) -> pl.DataFrame:
        """Draw the calls of `count` programs, ordered by program and turn.

        `offset_s` is when a call arrives after its program's start, if calls take as long as they
        did in the trace; `delay_s` the pause since its parent ended. `label` is a place in
        `labels`, `parents` are turns. Token counts are there where the trace has them.
        """
        if not count:
            return self.sample(rng, 1).clear()
        drawn = self.draw(rng, count)
        return framed(drawn, drawn.offsets(), self)

    def log_score(self, source: Demand | Trace) -> float:
        """Return the log-likelihood of turns and pauses (nats), as if they were independent."""
        demand = source if isinstance(source, Demand) else Demand.of(source)
        return self.log_score_of(in_order(demand))

    def log_score_of(self, calls: pl.DataFrame) -> float:
        """Return the same of a table as `sequences.timed` returns it."""
        table = Sequences.of(calls, 1)
        score = self.turns.log_score(np.bincount(table.program).astype(np.float64))
        known = (table.turn > 0) & np.isfinite(table.pause_s)
        for kind, name in enumerate(table.kinds):
            here = known & (table.kind == kind)
            if here.any() and self.pauses:
                law = self.pauses[self.kinds.index(name) if name in self.kinds else 0]
                score += law.log_score(table.turn[here].astype(np.float64), table.pause_s[here])
        return score

    def summary(self) -> list[str]:
        """Say in sentences what was found."""
        share, kept = np.diag(self.effects.program), np.diag(self.effects.carried)
        said = [
            f"{self.programs} programs have {self.turns.mean:.3g} turns on average, half of them"
            f" {self.turns.at(np.array([0.5]))[0]:.0f} or fewer."
        ]
        for kind, law in zip(self.kinds, self.pauses, strict=True):
            median = law.at(np.array([1.0]), np.array([0.5]))[0]
            said.append(f"Half of the first pauses ({kind}) last {median:.3g} s or less.")
        if self.pauses:
            said.append(
                f"The session explains {share[PAUSE]:.0%} of how pauses differ, and a pause carries"
                f" {kept[PAUSE]:.0%} of the rest on to the next."
            )
        if self.growth is not None:
            of = "prompt and answer" if self.growth.base == "context" else "prompt"
            said.append(f"A prompt grows from the {of} before, or is cut.")
        if self.longest_s is not None:
            said.append(f"No session lasts longer than {self.longest_s:.4g} s.")
        return said

    def _lengths(self, place: Floats, turn: Ints, kind: Ints) -> Floats:
        """Return the ranks of calls by the length of their program, as each number sees them.

        A number is seen once a call, or once a call of a kind and place, so long programs weigh
        more: shape (n, 4), uniform over the calls that have the number.
        """
        long = self._standing
        ranks = np.empty((len(place), 4))
        ranks[:, GROWTH] = _weighed(place, long - 1)
        ranks[:, OUTPUT] = ranks[:, SERVICE] = _weighed(place, long)
        ranks[:, PAUSE] = 0.5
        for each, law in enumerate(self.pauses):
            mine = (kind == each) & (turn > 0)
            cells = law.cells(turn.astype(np.float64))
            edges = [0, *(int(edge) for edge in law.edges), np.inf]
            for cell, (above, upto) in enumerate(itertools.pairwise(edges)):
                here = np.flatnonzero(mine & (cells == cell))
                weights = np.clip(long - 1, above, upto) - above
                ranks[here, PAUSE] = _weighed(place[here], weights)
        return ranks

    @cached_property
    def _standing(self) -> Floats:
        """Turns of programs that stand for all, ascending."""
        return np.maximum(self.turns.at((np.arange(_GRID) + 0.5) / _GRID), 1.0)


def framed(drawn: Turns, offset_s: Floats, model: Sessions) -> pl.DataFrame:
    """Return turns as a table, ordered by program and turn, without those that come too late."""
    many = np.bincount(drawn.program)
    order = np.empty(len(drawn.turn), np.int64)
    order[(np.cumsum(many) - many)[drawn.program] + drawn.turn] = np.arange(len(order))
    if model.longest_s is not None:
        order = order[offset_s[order] <= model.longest_s]
    turn = drawn.turn[order]
    later = turn > 0
    lengths = {
        name: pl.Series(values[order]).cast(pl.Int32)
        for name, values in (("input_tokens", drawn.inputs), ("output_tokens", drawn.outputs))
        if values is not None
    }
    return pl.DataFrame(
        {
            "program": drawn.program[order],
            "turn": turn.astype(np.int32),
            "offset_s": offset_s[order],
            "delay_s": drawn.pause_s[order],
            "delay_kind": named(drawn.kind[order], model.kinds),
            **lengths,
            "label": drawn.label[order].astype(np.int32),
            "parents": listed(turn - 1, turn[:0], turn[:0]),
            "later": later,
        }
    ).with_columns(
        delay_s=pl.when("later").then("delay_s"),
        delay_kind=pl.when("later").then("delay_kind"),
    ).drop("later")  # fmt: skip


def listed(parent: Ints, rows: Ints, others: Ints) -> pl.Series:
    """Return the parents of calls: the one of each (-1: none), and others of some rows."""
    frame = pl.DataFrame({"row": np.arange(len(parent)), "one": parent.astype(np.int32)})
    none = pl.lit([], pl.List(pl.Int32))
    lists = pl.when(col("one") >= 0).then(col("one").reshape((-1, 1)).arr.to_list())
    frame = frame.select("row", lists.otherwise(none).alias("parents"))
    if len(rows):
        more = pl.DataFrame({"row": rows, "others": others.astype(np.int32)})
        several = more.group_by("row").agg(col("others").sort())
        frame = frame.join(several, on="row", how="left", maintain_order="left").with_columns(
            pl.concat_list("parents", col("others").fill_null(none))
        )
    return frame["parents"]


def named(codes: Ints, names: tuple[str, ...]) -> pl.Series:
    """Return codes by their names; null where there are no names."""
    if not names:
        return pl.Series([None] * len(codes), dtype=pl.String)
    return pl.Series(names).gather(codes)


def _spearman(x: Floats, y: Floats) -> float:
    a, b = (mid_ranks(each.astype(np.int64)) for each in (x, y))
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def _longest(table: Sequences, min_count: int) -> float | None:
    """Return a time (s) that no session outlasts: twice the mean of the longest few."""
    step = np.where(np.isfinite(table.gap_s), table.gap_s, np.nan_to_num(table.pause_s))
    lasted = np.sort(np.bincount(table.program, weights=np.maximum(step, 0)))
    if len(lasted) < min_count:
        return None
    return rounded(_LONGEST * lasted[-min_count:].mean())


def _are_whole(values: Floats) -> bool:
    return len(values) > 0 and bool((values == np.rint(values)).all())


def _weighed(place: Floats, weights: Floats) -> Floats:
    """Return ranks of programs, each weighed: `weights` of those that stand for all, ascending."""
    if not weights.any():
        return np.full(len(place), 0.5)
    upto = np.concatenate(([0.0], np.cumsum(weights)))
    return np.asarray(np.interp(place, np.linspace(0, 1, len(upto)), upto / upto[-1]))


def _followed(chain: Succession, u: Floats, alive: tuple[int, ...]) -> Ints:
    """Walk a chain along the turns of programs."""
    states = np.zeros(len(u), np.int64)
    before, begin = 0, 0
    for step, now in enumerate(alive):
        here = slice(begin, begin + now)
        last = states[before : before + now]
        states[here] = chain.follow(last, u[here]) if step else chain.begin(u[here])
        before, begin = begin, begin + now
    return states
