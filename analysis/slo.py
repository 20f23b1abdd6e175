"""Service level objectives: conditions on metrics, and the share that meets them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from servescope.analysis import metrics
from servescope.analysis.metrics import METRICS, Metric
from servescope.traces.errors import InputError
from servescope.traces.status import OK
from servescope.traces.trace import Trace

_CONDITION = re.compile(
    r"(\w+)\s*(<=|<|:)\s*(\d+\.?\d*|\.\d+)(?:\s*(ms|s))?(?=[\s,]|$)", re.IGNORECASE | re.ASCII
)
_BETWEEN = ", \t\r\n"
_ALIASES = {"e2el": "e2e"}  # vLLM's name
_MEND = "Write it like ttft<500ms or jct<60s, several with commas between."


@dataclass(frozen=True, slots=True)
class Condition:
    """A metric below a bound in seconds."""

    metric: str
    below_s: float

    def __str__(self) -> str:
        bound = f"{self.below_s:g} s" if self.below_s >= 1 else f"{self.below_s * 1000:g} ms"
        return f"{METRICS[self.metric].label} < {bound}"


@dataclass(frozen=True, slots=True)
class SLO:
    """Conditions that must all hold.

    Program metrics (jct) are asked of programs; with one of them the SLO is a program's, which
    meets it if all its calls do too.
    """

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))

    @property
    def per(self) -> Literal["calls", "programs"]:
        """What the SLO is asked of."""
        per_program = any(METRICS[c.metric].per == "program" for c in self.conditions)
        return "programs" if per_program else "calls"

    @classmethod
    def parse(cls, text: str) -> SLO:
        """Read `ttft<2s, stall<100ms`, or vLLM's goodput form `ttft:500 tpot:50` (milliseconds).

        `<=` means the same as `<`; capitals do not matter. Raises InputError for text without a
        condition, an unknown metric, or a bound that is no time above 0.
        """
        conditions = []
        rest = text.lstrip(_BETWEEN)
        while rest:
            match = _CONDITION.match(rest)
            if not match:
                wrong = rest.split(",")[0].strip()
                raise InputError(f"'{wrong}' is not a condition of an SLO.", _MEND)
            conditions.append(_condition(*match.groups()))
            rest = rest[match.end() :].lstrip(_BETWEEN)
        if not conditions:
            raise InputError("The SLO holds no condition.", _MEND)
        return cls(tuple(conditions))


def _condition(name: str, sign: str, number: str, unit: str | None) -> Condition:
    name = _ALIASES.get(name.lower(), name.lower())
    metric = METRICS.get(name)
    if metric is None or not _can_be_asked(metric):
        known = ", ".join(m for m, metric in METRICS.items() if _can_be_asked(metric))
        raise InputError(f"An SLO cannot be asked of '{name}'.", f"Choose among {known}.")
    if unit is None and sign != ":":
        raise InputError(
            f"'{name}{sign}{number}' has no unit.", f"Write {name}<{number}ms or {name}<{number}s."
        )
    below_s = float(number) / (1 if unit and unit.lower() == "s" else 1000)
    if below_s == 0:
        raise InputError(f"No {name} is below 0.", "Give a bound above 0.")
    return Condition(name, below_s)


def _can_be_asked(metric: Metric) -> bool:
    """Not of a single gap, and not of what the client itself did."""
    return metric.per != "gap" and not metric.of_client


@dataclass(frozen=True, slots=True)
class Attainment:
    """How many calls (or programs) met the SLO, and how many a second.

    A failed, timed-out, cancelled or unmeasured one is a miss. The goodput over no time is null.
    """

    met: int
    asked: int
    per: Literal["calls", "programs"]
    goodput_rps: float | None

    @property
    def share(self) -> float:
        """Share of all calls (or programs) asked, in [0, 1]; 0 where none was asked."""
        return self.met / self.asked if self.asked else 0.0


def judged(run: Trace, slo: SLO) -> pl.DataFrame:
    """Return one row a call (a program, if the SLO asks for JCT): program_id, due_s, met."""
    per_program = [c for c in slo.conditions if METRICS[c.metric].per == "program"]
    per_call = [c for c in slo.conditions if METRICS[c.metric].per == "call"]
    answered = pl.col("status").eq_missing(OK)
    calls = metrics.of_calls(run).select("program_id", "due_s", met=answered & _all_below(per_call))
    if not per_program:
        return calls
    programs = metrics.of_programs(run).select("program_id", "due_s", met=_all_below(per_program))
    all_calls = calls.group_by("program_id").agg(calls_met=pl.col("met").all())
    return (
        programs.join(all_calls, on="program_id", how="left", maintain_order="left")
        .with_columns(met=pl.col("met") & pl.col("calls_met"))
        .drop("calls_met")
    )


def attainment(run: Trace, slo: SLO) -> Attainment:
    """Return how many met the SLO and the goodput: those per second of the run."""
    table = judged(run, slo)
    met = int(table["met"].sum())
    span = metrics.throughput(run).span_s
    return Attainment(met, table.height, slo.per, met / span if span > 0 else None)


def _all_below(conditions: list[Condition]) -> pl.Expr:
    holds = pl.lit(True)
    for condition in conditions:
        below = (pl.col(condition.metric) < condition.below_s).fill_null(False)
        if METRICS[condition.metric].between_tokens:  # a single token has no gap to be too long
            below |= (pl.col("output_tokens") == 1).fill_null(False)
        holds &= below
    return holds
