"""What is found in a trace: numbers and tables, each with its unit, its estimator and its doubt."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from servescope.analysis.intervals import Interval
from servescope.analysis.sample import Sample


@dataclass(frozen=True, slots=True)
class Statistic:
    """One kind of number: what it says, its unit, how it is estimated, its interval, its source.

    `unit` is a word such as s, tokens, calls/s, share or 1 (a pure number).
    """

    says: str
    unit: str
    estimator: str
    uncertainty: str = "none"
    source: str = ""


@dataclass(frozen=True, slots=True)
class TableOf:
    """One kind of table: what a row is, the unit of every column, estimator, interval, source."""

    says: str
    units: Mapping[str, str]
    estimator: str
    uncertainty: str = "none"
    source: str = ""


STATISTICS_SCHEMA: Final = {
    "aspect": pl.String,
    "statistic": pl.String,
    "subject": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p_value": pl.Float64,
    "n": pl.Int64,
    "unit": pl.String,
    "estimator": pl.String,
    "uncertainty": pl.String,
}


@dataclass
class Findings:
    """What one aspect of a trace shows, as it is being found; refuses what has no definition."""

    aspect: str
    statistics: Mapping[str, Statistic]
    tables: Mapping[str, TableOf]
    rows: list[dict[str, object]] = field(default_factory=list)
    made: dict[str, pl.DataFrame] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)

    def say(
        self,
        name: str,
        value: Interval | float | None,
        *,
        of: str = "",
        n: int | None = None,
        p: float | None = None,
    ) -> None:
        """Note a number; None and what is not finite is passed over. `of` says what of."""
        known = self.statistics[name]
        if value is None:
            return
        number, low, high = (
            (value.estimate, value.low, value.high)
            if isinstance(value, Interval)
            else (value, None, None)
        )
        if not math.isfinite(number):
            return
        self.rows.append(
            {
                "aspect": self.aspect,
                "statistic": name,
                "subject": of,
                "value": float(number),
                "low": low if low is not None and math.isfinite(low) else None,
                "high": high if high is not None and math.isfinite(high) else None,
                "p_value": p,
                "n": n,
                "unit": known.unit,
                "estimator": known.estimator,
                "uncertainty": known.uncertainty if isinstance(value, Interval) else "none",
            }
        )

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Note a table with exactly the columns of its definition; an empty one is passed over."""
        expected = list(self.tables[name].units)
        if frame.columns != expected:
            raise ValueError(f"table {name} has {frame.columns}, not {expected}")
        if frame.height:
            self.made[name] = frame

    def keep(self, name: str, sample: Sample) -> None:
        """Keep a distribution by sections of time, for a comparison with another trace."""
        self.samples[name] = sample

    def lacks(self, package: str, what: str) -> bool:
        """Tell whether an optional package is not installed, and leave out what needs it then."""
        if importlib.util.find_spec(package):
            return False
        self.leave_out(what, f"needs {package}: pip install 'servescope[stats]'")
        return True

    def leave_out(self, what: str, why: str) -> None:
        """Note what the trace cannot say, and why."""
        self.left_out.append((what, why))


def written(parameters: Mapping[str, float]) -> str:
    """Write parameters by their names, for a cell of a table."""
    return ", ".join(f"{name} {value:.4g}" for name, value in parameters.items())
