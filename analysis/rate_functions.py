"""Arrival processes whose rate is a function of time: lines through points, and ramps."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from servescope.analysis.point_processes import (
    Drawn,
    Times,
    check_positive,
    check_rates,
    check_shape,
    unit_rate,
)
from servescope.traces.errors import InputError


@dataclass(frozen=True)
class Piecewise(Drawn):
    """Starts whose rate follows a line through points: (`times_s`, `rates_rps`).

    Before the first point and after the last one the rate stays as it is there, so it ends only
    where the last rate is 0. Two points of one time make a jump. Drawn by inversion of the
    cumulative rate, from Poisson starts of rate 1, or gamma ones where `burstiness` is not 1.
    """

    times_s: tuple[float, ...]
    rates_rps: tuple[float, ...]
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        if len(self.times_s) != len(self.rates_rps) or not self.times_s:
            raise InputError(
                f"{len(self.times_s)} times and {len(self.rates_rps)} rates make no line.",
                "Give one of each for every point.",
            )
        for before_s, time_s in pairwise((0.0, *self.times_s)):
            if not before_s <= time_s < math.inf:
                raise InputError(f"After {before_s:g} s comes {time_s:g} s.", "Put them in order.")
        check_rates("rates_rps", self.rates_rps)
        check_shape("burstiness", self.burstiness)

    @classmethod
    def from_csv(cls, path: Path, burstiness: float = 1.0) -> Piecewise:
        """Read the points from a CSV file with the columns `t_s,rate_rps`.

        Raises InputError that names the line which is wrong.
        """
        points: list[tuple[float, float]] = []
        before_s = 0.0
        for line, row in _rows(path):
            here = f"{path} line {line}: '{','.join(row)[:80]}'"
            try:
                time_s, rate_rps = map(float, row)
            except ValueError:
                raise InputError(
                    f"{here} is no time and rate.", "Write two numbers: t_s,rate_rps."
                ) from None
            if not 0 <= rate_rps < math.inf:
                raise InputError(f"{here} has no rate of 0 or more.", "Mend the line.")
            if not before_s <= time_s < math.inf:
                raise InputError(
                    f"{here} does not come after {before_s:g} s.",
                    "Put the lines in order of t_s, from 0 on.",
                )
            points.append((time_s, rate_rps))
            before_s = time_s
        if not any(rate_rps for _, rate_rps in points):
            raise InputError(f"{path} has no rate above 0.", "Write lines of t_s,rate_rps.")
        times_s, rates_rps = zip(*points, strict=True)
        return cls(times_s, rates_rps, burstiness)

    @property
    def rate_rps(self) -> float:
        """Mean rate from 0 to the last point."""
        span_s = self.times_s[-1]
        return float(self._cumulative()[2][-1]) / span_s if span_s else self.rates_rps[-1]

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield starts of rate 1, each at the moment by which that many are expected."""
        times_s, rates_rps, expected = self._cumulative()
        width_s = np.diff(times_s, append=math.inf)
        slope = np.divide(
            np.diff(rates_rps, append=0.0), width_s, out=np.zeros_like(width_s), where=width_s > 0
        )
        for units in unit_rate(rng, self.burstiness):
            ends = rates_rps[-1] == 0 and units[-1] >= expected[-1]
            if ends:
                units = units[units < expected[-1]]
            point = np.searchsorted(expected, units, side="right") - 1
            more, rate = units - expected[point], rates_rps[point]
            # the root of rate x + slope x^2 / 2 = more, in the form that loses no digits
            under = np.sqrt(np.maximum(rate**2 + 2 * slope[point] * more, 0))
            after_s = np.divide(2 * more, rate + under, out=np.zeros_like(more), where=more > 0)
            yield times_s[point] + np.minimum(after_s, width_s[point])
            if ends:
                return

    def _cumulative(self) -> tuple[Times, Times, Times]:
        """Return the points from 0 on, their rates, and how many starts are expected by each."""
        times_s, rates_rps = np.array((0.0, *self.times_s)), np.array(self.rates_rps)
        rates_rps = np.concatenate((rates_rps[:1], rates_rps))
        steps = np.diff(times_s) * (rates_rps[1:] + rates_rps[:-1]) / 2
        return times_s, rates_rps, np.concatenate(([0.0], np.cumsum(steps)))


@dataclass(frozen=True)
class Ramp(Drawn):
    """Starts whose rate goes from `start_rps` to `end_rps` in `duration_s`, and stays there.

    "linear" adds the same rate in every second, "exponential" multiplies by the same factor (vLLM's
    `--ramp-up-strategy`). Drawn as Piecewise is.
    """

    start_rps: float
    end_rps: float
    duration_s: float
    strategy: Literal["linear", "exponential"] = "linear"
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        if self.strategy not in ("linear", "exponential"):
            raise InputError(f"A ramp cannot be '{self.strategy}'.", "Give linear or exponential.")
        if self.strategy == "exponential" or self.start_rps:
            check_positive("start_rps", self.start_rps)
        check_positive("end_rps", self.end_rps)
        check_positive("duration_s", self.duration_s)
        check_shape("burstiness", self.burstiness)

    @classmethod
    def over(
        cls,
        count: int,
        start_rps: float,
        end_rps: float,
        strategy: Literal["linear", "exponential"] = "linear",
        burstiness: float = 1.0,
    ) -> Ramp:
        """Return the ramp that ends when `count` programs are expected to have started."""
        whole = cls(start_rps, end_rps, 1.0, strategy, burstiness)
        return cls(start_rps, end_rps, count / whole._expected(), strategy, burstiness)

    @property
    def rate_rps(self) -> float:
        """Mean rate while it ramps."""
        return self._expected() / self.duration_s

    def pieces(self, rng: np.random.Generator) -> Iterator[Times]:
        """Yield starts of rate 1, each at the moment by which that many are expected."""
        if self.strategy == "linear":
            line = (0.0, self.duration_s), (self.start_rps, self.end_rps)
            yield from Piecewise(*line, self.burstiness).pieces(rng)
            return
        growth = math.log(self.end_rps / self.start_rps) / self.duration_s
        expected = self._expected()
        for units in unit_rate(rng, self.burstiness):
            during = np.minimum(units, expected) / self.start_rps
            ramped_s = np.log1p(during * growth) / growth if growth else during
            rest_s = np.maximum(units - expected, 0) / self.end_rps
            yield np.minimum(ramped_s, self.duration_s) + rest_s

    def _expected(self) -> float:
        """Return how many starts the ramp has on average."""
        if self.strategy == "linear" or self.start_rps == self.end_rps:
            return (self.start_rps + self.end_rps) / 2 * self.duration_s
        growth = math.log(self.end_rps / self.start_rps)
        return (self.end_rps - self.start_rps) / growth * self.duration_s


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a rate file with the number of their line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            if [cell.strip() for cell in head] != ["t_s", "rate_rps"]:
                raise InputError(
                    f"{path} line 1: '{','.join(head)}' is not the head of a rate file.",
                    "Begin it with t_s,rate_rps.",
                )
            yield from ((reader.line_num, row) for row in reader if row)
    except (OSError, ValueError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read: {why}.", "Check the path.") from None
