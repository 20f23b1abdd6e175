"""What a comparison of two traces is made of: measures, their scores, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import polars as pl

from servescope.analysis.fidelity.sides import Side


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of score: what it says, its unit, how it is computed, and its source.

    0 means that the traces are alike, or `ideal`. `bar` is what a good model is held to; a score
    that is further from the ideal misses it.
    """

    says: str
    unit: str
    how: str
    source: str = ""
    ideal: float = 0.0
    bar: float | None = None

    def met(self, value: float) -> bool | None:
        """Whether a score is as near to the ideal as the bar is, on either side."""
        return None if self.bar is None else abs(value - self.ideal) <= self.bar - self.ideal


@dataclass(frozen=True, slots=True)
class Score:
    """How far one trace is from the real one by a measure; `subject` says of what.

    `real` and `synthetic` are the two numbers where the score compares just these; `low` and
    `high` are the interval of the score itself where it has one.
    """

    measure: str
    value: float
    subject: str = ""
    real: float | None = None
    synthetic: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What two traces cannot be compared by, and why."""

    what: str
    why: str


Found = Iterator[Score | LeftOut]


@dataclass(frozen=True, slots=True)
class Aspect:
    """One aspect of fidelity: its title, and a module with MEASURES, `scores` and `curves`.

    `scores(real, other)` yields scores and what is left out. `curves(real, side)` returns tables of
    one side on a grid that the real one sets: keys first, and what is drawn over them as `y`.
    """

    title: str
    module: ModuleType

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What its scores mean."""
        known: Mapping[str, Measure] = self.module.MEASURES
        return known

    def scores(self, real: Side, other: Side) -> list[Score | LeftOut]:
        """Return how far a trace is from the real one."""
        return list(self.module.scores(real, other))

    def curves(self, real: Side, side: Side) -> dict[str, pl.DataFrame]:
        """Return what there is to draw of one side."""
        drawn: dict[str, pl.DataFrame] = self.module.curves(real, side)
        return drawn


def difference(measure: str, real: float, synthetic: float, subject: str = "") -> Score:
    """Score two numbers by their absolute difference."""
    return Score(measure, abs(synthetic - real), subject, real, synthetic)
