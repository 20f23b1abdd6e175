"""Who meets an SLO: the share of calls or programs, goodput, the curve over scales, fairness.

A failed, timed-out, cancelled, unfinished or unmeasured call is a miss and stays in every
denominator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import col

from servescope.analysis.intervals import fewest
from servescope.analysis.measured import Measured, Part
from servescope.analysis.metrics import ANSWERED, METRICS
from servescope.analysis.slo import SELECTORS, SLO, Condition, Group, Per
from servescope.analysis.totals import Whole
from servescope.traces.errors import InputError

_REMEMBERED = 4  # tables of the SLOs that were asked last
_NONE: Mapping[str, pl.Expr] = {}
SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)


@dataclass(frozen=True, slots=True)
class Attainment:
    """How many calls (or programs) met the SLO, and the goodput: those per second of the span.

    `program_goodput_rps` counts programs all of whose calls met it, `token_goodput_tps` the output
    tokens of calls that did. A goodput over no time is null.
    """

    met: int
    asked: int
    per: Per
    goodput_rps: float | None
    program_goodput_rps: float | None
    token_goodput_tps: float | None

    @property
    def share(self) -> float:
        """Share of all calls (or programs) asked, in [0, 1]; 0 where none was asked."""
        return self.met / self.asked if self.asked else 0.0


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on a statistic of a run: what it is, and whether it is below its bound.

    `value` is infinite where so many calls failed that the quantile is a failure, None where
    nothing was measured. It is of `count` values, and a quantile `needs` so many.
    """

    condition: Condition
    where: tuple[tuple[str, str], ...]
    value: float | None
    count: int

    def __str__(self) -> str:
        return str(Group((self.condition,), where=self.where))

    @property
    def needs(self) -> int:
        """The fewest values that tell whether it is met (`intervals.fewest`)."""
        statistic = self.condition.statistic
        return 1 if statistic in (None, "mean") else fewest(float(statistic))

    @property
    def met(self) -> bool | None:
        """Whether the statistic is known and below its bound; None of too few values to tell."""
        if self.value is None or self.value == math.inf:
            return False
        if self.count < self.needs:
            return None
        return self.value < self.condition.bound.constant

    @property
    def verdict(self) -> str:
        """Say in words whether it is met."""
        if self.value == math.inf:
            return "no: too many failed"
        if self.met is None:
            return f"cannot tell from {self.count} values: it takes {self.needs}"
        return "yes" if self.met else "no"


def judged(measured: Measured, slo: SLO, *columns: str) -> pl.DataFrame:
    """Return one row a call (a program, if the SLO is a program's), all columns by default.

    Columns program_id, due_s, met, scale (the smallest factor on all bounds with which it would be
    met; infinite for a failure), output_tokens. A call of which nothing is asked meets the SLO if
    it was answered. Of a part of a run it is that part of the whole run's table.
    """
    if isinstance(measured, Part) and measured.whole_programs:
        table = judged(measured.whole, slo, *columns)
        of_calls = slo.per == "calls"
        return measured.of_calls(table) if of_calls else measured.of_programs(table)
    known = measured.judgements
    if slo not in known:
        for old in list(known)[: 1 - _REMEMBERED]:
            del known[old]
        known[slo] = _judged(measured, slo)
    return known[slo].select(columns or pl.all())


def share_of(measured: Measured, slo: SLO) -> float | None:
    """Return the share of calls (or programs) that meet the SLO; None of none."""
    met = judged(measured, slo, "met")["met"]
    return int(met.sum()) / len(met) if len(met) else None


def _judged(measured: Measured, slo: SLO) -> pl.DataFrame:
    calls = _calls_with(measured, slo)
    asked = [(g, g.asked_of("call")) for g in slo.groups]
    scales = [_scale(group, c) for group, conditions in asked for c in conditions]
    scales += [
        _where(group, pl.when(col(_fluid(f)) >= f.share).then(0.0).otherwise(math.inf))
        for group in slo.groups
        for f in group.fluidity
    ]
    worst = pl.max_horizontal(pl.lit(0.0), *scales)
    calls = calls.select(
        "program_id",
        "due_s",
        col("output_tokens").fill_null(0),
        scale=pl.when(ANSWERED).then(worst).otherwise(math.inf),
    )
    if slo.per == "calls":
        return calls.with_columns(met=col("scale") < 1)
    return _of_programs(measured, slo, calls).with_columns(met=col("scale") < 1)


def _of_programs(measured: Measured, slo: SLO, calls: pl.DataFrame) -> pl.DataFrame:
    by_call = calls.group_by("program_id").agg(
        calls_scale=col("scale").max(), output_tokens=col("output_tokens").sum()
    )
    # a program belongs to a group by its first call
    keys = {SELECTORS[key] for group in slo.groups for key, _ in group.where}
    programs = measured.programs.join(by_call, on="program_id", maintain_order="left")
    if keys:
        first = measured.columns(*sorted(keys)).select(pl.all().gather(measured.first_calls))
        programs = programs.with_columns(first)
    programs = programs.with_columns(input_tokens=pl.lit(None, dtype=pl.Int64))
    scales = [_scale(group, c) for group in slo.groups for c in group.asked_of("program")]
    return programs.select(
        "program_id", "due_s", "output_tokens", scale=pl.max_horizontal("calls_scale", *scales)
    )


def attained(measured: Measured, slo: SLO) -> Attainment:
    """Return how many met the SLO, and the goodput."""
    table = judged(measured, slo, "met", "output_tokens")
    whole = Whole(measured)
    met = int(table["met"].sum())
    programs = met
    if slo.per == "calls":
        missed = measured.program_of[~table["met"].to_numpy()]
        programs = len(measured.first_calls) - len(np.unique(missed))
    return Attainment(
        met=met,
        asked=table.height,
        per=slo.per,
        goodput_rps=whole.per_second(met),
        program_goodput_rps=whole.per_second(programs),
        token_goodput_tps=whole.per_second(int(table["output_tokens"].filter(table["met"]).sum())),
    )


def requirements(measured: Measured, slo: SLO) -> list[Requirement]:
    """Return every condition on a statistic of the run with its value.

    In a quantile of calls or programs a failure counts as one that took for ever; a mean, and what
    is pooled over gaps, is of answered calls alone.
    """
    found = []
    for group in slo.groups:
        for condition in group.conditions:
            if condition.statistic is not None:
                value, count = _statistic(measured, group, condition)
                found.append(Requirement(condition, group.where, value, count))
    return found


def unasked(measured: Measured, slo: SLO) -> list[str]:
    """Return the groups of an SLO that are for no call of a run, in words."""
    calls = _calls_with(measured, slo)
    if calls.is_empty():
        return []
    return [
        group.whose
        for group in slo.groups
        if group.where and calls.filter(chosen(group)).is_empty()
    ]


def attained_at(table: pl.DataFrame, scales: npt.ArrayLike = SCALES) -> list[float]:
    """Return the share of a table of `judged` that meets the SLO times each scale.

    It is the curve of attainment over SLO scale of HexGen and semi-PD.
    """
    needed = np.sort(table["scale"].to_numpy())
    below = np.searchsorted(needed, np.asarray(scales, dtype=np.float64), side="left")
    return [float(count) / max(1, len(needed)) for count in below]


def jain(values: npt.ArrayLike) -> float | None:
    """Return Jain's index of fairness, (sum x)^2 / (n sum x^2); None of nothing.

    It is 1 if all are equal and 1/n if one has all (Jain, Chiu, Hawe 1984).
    """
    x = np.asarray(values, dtype=np.float64)
    square = float(np.square(x).sum())
    return float(x.sum()) ** 2 / (len(x) * square) if square > 0 else None


def by_group(
    measured: Measured, slo: SLO | None, column: str, made: Mapping[str, pl.Expr] = _NONE
) -> pl.DataFrame:
    """Return a row a value of `column` (call_class, client_id, ...): calls, failed, share, metrics.

    `made` are columns that are made of others, by name.

    `share` within the SLO is of calls and of conditions on calls alone; null without an SLO. A
    quantile is null where there are fewer values than it needs. Rows are in the order of their
    number of calls.
    """
    value = made.get(column, col(column))
    needs = value.meta.root_names()
    nothing = pl.DataFrame(schema={column: pl.String, "calls": pl.Int64})
    if not set(needs) <= set(measured.names):
        return nothing
    calls = measured.columns("status", "ttft", "tpot", "e2e", "norm", *needs)
    calls = calls.with_columns(value.alias(column))
    if calls[column].null_count() == calls.height:
        return nothing
    met = pl.lit(None, dtype=pl.Float64)
    if slo is not None and slo.of_each:
        of_calls = SLO(
            tuple(Group(tuple(g.asked_of("call")), g.fluidity, g.where) for g in slo.groups)
        )
        met = judged(measured, of_calls, "met")["met"].cast(pl.Float64)  # type: ignore[assignment]
    return (
        calls.with_columns(within=met)
        .group_by(column)
        .agg(
            calls=pl.len(),
            failed=(~ANSWERED).sum(),
            share=col("within").mean(),
            ttft_p50=_bounded("ttft", 0.5),
            ttft_p99=_bounded("ttft", 0.99),
            tpot_p50=_bounded("tpot", 0.5),
            e2e_mean=col("e2e").mean(),
            norm_mean=col("norm").mean(),
        )
        .sort("calls", column, descending=[True, False])
    )


def _bounded(name: str, q: float) -> pl.Expr:
    enough = col(name).count() >= fewest(q)
    return pl.when(enough).then(col(name).quantile(q, "equiprobable"))


def _calls_with(measured: Measured, slo: SLO) -> pl.DataFrame:
    """Return the calls with what the SLO asks; raises InputError for a selector of nothing."""
    needs = ["program_id", "status", "due_s", "input_tokens", "output_tokens"]
    for group in slo.groups:
        needs += [condition.metric for condition in group.asked_of("call")]
        for key, _ in group.where:
            needs.append(SELECTORS[key])
            if SELECTORS[key] not in measured.names:
                raise InputError(
                    f"The SLO asks by {key}, which the run does not know.",
                    "Leave the selector out.",
                )
    calls = measured.columns(*needs)
    for fluid in {f: None for group in slo.groups for f in group.fluidity}:
        calls = calls.with_columns(
            measured.fluidity(fluid.first_s, fluid.gap_s).alias(_fluid(fluid))
        )
    return calls


def _fluid(fluid: object) -> str:
    return f"_{fluid}"


def _scale(group: Group, condition: Condition) -> pl.Expr:
    """Return how many times its bound a metric is; infinite where it was not measured."""
    bound = condition.bound
    allowed: pl.Expr = pl.lit(bound.constant)
    for per_token, column in (
        (bound.per_input, "input_tokens"),
        (bound.per_output, "output_tokens"),
    ):
        if per_token:
            allowed = allowed + per_token * col(column)
    scale = (col(condition.metric) / allowed).fill_null(math.inf)
    if METRICS[condition.metric].between_tokens:  # a single token has no gap to be too long
        scale = pl.when((col("output_tokens") == 1).fill_null(False)).then(0.0).otherwise(scale)
    return _where(group, scale)


def _where(group: Group, scale: pl.Expr) -> pl.Expr:
    """Ask only the calls that a group is for."""
    if not group.where:
        return scale
    return pl.when(chosen(group)).then(scale).otherwise(0.0)


def chosen(group: Group) -> pl.Expr:
    """Return which calls a group of conditions is for."""
    return pl.all_horizontal(
        col(SELECTORS[key]).cast(pl.String).eq_missing(value) for key, value in group.where
    )


def _statistic(measured: Measured, group: Group, condition: Condition) -> tuple[float | None, int]:
    """Return a statistic of the run, and of how many values it is."""
    if group.where:
        measured = measured.where(chosen(group))
    sample = measured.sample(condition.metric)
    if not len(sample):
        return None, 0
    if condition.statistic == "mean":
        return sample.mean(), len(sample)
    q = float(condition.statistic or 0.5)
    per = METRICS[condition.metric].per
    if per == "gap":
        return sample.quantile(q), len(sample)
    table = measured.programs if per == "program" else measured.columns("status", "output_tokens")
    if METRICS[condition.metric].between_tokens:
        single = (col("output_tokens") == 1).fill_null(False)
        table = table.filter(~(ANSWERED & single))
    rank = max(1, math.ceil(q * table.height - 1e-9))
    value = sample.quantile(rank / len(sample)) if rank <= len(sample) else math.inf
    return value, table.height
