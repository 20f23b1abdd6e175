"""What a profile is: whose definitions, which calls count, what is measured of them, the fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from servescope.analysis.sample import Sample

if TYPE_CHECKING:
    from servescope.analysis.profiles.reading import Reading
    from servescope.analysis.profiles.seen import Seen

SCALES = {"ms": 1e3, "ns": 1e9}  # all other units are as they are measured


@dataclass(frozen=True, slots=True)
class Value:
    """A number by a tool's definition; None where a run does not tell it.

    `why` says why it is not known, or which calls it is without.
    """

    value: float | None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What a tool measures of a call, or of the gaps of a call: null where it has none.

    `unknown` says of which calls the tool has one and a run does not tell it, and `why`. Each value
    counts `weight` times; `zeros` are gaps of no length besides. The expression of gaps is made of
    lists of chunks and of the columns that it `needs`.
    """

    expr: pl.Expr
    per: Literal["call", "gap"] = "call"
    unknown: pl.Expr | None = None
    why: str = ""
    weight: pl.Expr | None = None
    zeros: pl.Expr | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Statistic:
    """How many values become one number: the tool's word for it, ours, and what it is."""

    name: str
    of: Callable[[Sample], float | None]
    ours: str | None
    says: str


def percentile(
    percent: float, name: str, method: Literal["linear", "lower", "order"] = "linear"
) -> Statistic:
    """Return the statistic of a percentile, by the way in which the tool takes it."""
    how = {"linear": "interpolated", "lower": "the value below", "order": "a value that occurred"}
    said = "median" if percent == 50 else f"p{percent:g}"
    return Statistic(
        name, lambda s: s.percentile(percent, method), f"p{percent:g}", f"{said}, {how[method]}"
    )


def mean(name: str = "mean") -> Statistic:
    """Return the statistic of a mean."""
    return Statistic(name, Sample.mean, "mean", "mean")


def least(name: str = "min") -> Statistic:
    """Return the statistic of the smallest value."""
    return Statistic(name, Sample.min, "min", "smallest")


def most(name: str = "max") -> Statistic:
    """Return the statistic of the largest value."""
    return Statistic(name, Sample.max, "max", "largest")


def deviation(name: str, *, of_sample: bool = False) -> Statistic:
    """Return the statistic of a standard deviation: of the values, or estimated of a sample."""
    said = "standard deviation" + (", estimated (n - 1)" if of_sample else " of the values (n)")
    return Statistic(name, lambda s: s.std(of_sample=of_sample), None, said)


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a tool's report: its name there, its unit, and how it is computed of a run.

    `ours` names what servescope has for it: a metric and a statistic, or a total.
    """

    name: str
    unit: str
    says: str
    of: Callable[[Reading], Value]
    statistic: Statistic | None = None
    ours: str | None = None

    @property
    def scale(self) -> float:
        """What a value of ours is multiplied with to stand beside this one."""
        return SCALES.get(self.unit, 1.0)

    @property
    def definition(self) -> str:
        """What the number is, in a sentence."""
        return f"{self.statistic.says} of: {self.says}" if self.statistic else self.says


def spread(
    pattern: str,
    quantity: str,
    statistics: Iterable[Statistic],
    unit: str,
    says: str,
    ours: str | None = None,
) -> Iterator[Field]:
    """Make a field for each statistic of a quantity; `pattern` is its name with `{}` for that."""
    for statistic in statistics:
        yield Field(
            pattern.format(statistic.name), unit, says, _of(quantity, statistic, unit), statistic,
            ours,
        )  # fmt: skip


def _of(quantity: str, statistic: Statistic, unit: str) -> Callable[[Reading], Value]:
    return lambda reading: reading.value(quantity, statistic.of, SCALES.get(unit, 1.0))


@dataclass(frozen=True, slots=True)
class Profile:
    """The definitions of one tool, of one version.

    `counts` says which calls it takes for answered, `quantities` what it measures of them,
    `duration_s` what it divides by, `meets` whether a call is within bounds in seconds on ttft,
    tpot and e2e (null: it does not judge it). `doubts` are what its own client would have done
    otherwise; `stamps_empties` that it stamps chunks without a piece of answer.
    """

    name: str
    tool: str
    version: str
    counts: Callable[[Seen], pl.Expr]
    quantities: Callable[[Seen], dict[str, Quantity]]
    duration_s: Callable[[Reading], float | None]
    fields: tuple[Field, ...]
    doubts: tuple[str, ...]
    meets: Callable[[Mapping[str, float]], pl.Expr] | None = None
    stamps_empties: bool = False
