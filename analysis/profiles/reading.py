"""What a tool would make of a run: its quantities of the calls that it counts, and sums over them.

Gaps are read from the run's file in batches, so that memory is bounded whatever the run's length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.profiles.profile import Field, Profile, Quantity, Value
from servescope.analysis.profiles.seen import Seen
from servescope.analysis.sample import Sample
from servescope.analysis.slo import SLO

_KEPT = ("row", "start_s", "first_answer_s", "last_token_s", "end_s", "output_tokens")
NOTHING = "no call has one"
NO_TIME = "no time passed"
NO_EMPTIES = (
    "This run is of before chunks without a piece of answer were kept; the tool stamps some of"
    " them, and they are missing here."
)


@dataclass(frozen=True, eq=False)
class Reading:
    """A run read by a profile."""

    profile: Profile
    seen: Seen
    _samples: dict[str, tuple[Sample, int]] = field(default_factory=dict, repr=False)

    @cached_property
    def answered(self) -> pl.DataFrame:
        """The calls that the tool takes for answered: `_KEPT`, and its quantities by name."""
        made, unknown = {}, {}
        for name, quantity in self._quantities.items():
            known = quantity.expr
            if quantity.unknown is not None:
                lost = quantity.unknown.fill_null(True)
                unknown[_unknown(name)] = lost
                known = pl.when(~lost).then(known)
            if quantity.per == "call":
                made[name] = known
            if quantity.weight is not None:
                made[_weight(name)] = quantity.weight
            if quantity.zeros is not None:
                made[_zeros(name)] = quantity.zeros
        counts = self.profile.counts(self.seen).fill_null(False)
        kept = [name for name in _KEPT if name not in made]
        return self.seen.calls.filter(counts).select(*kept, **made, **unknown)

    @cached_property
    def _quantities(self) -> dict[str, Quantity]:
        return self.profile.quantities(self.seen)

    @cached_property
    def duration_s(self) -> float | None:
        """Seconds that the tool divides by; None of no time."""
        seconds = self.profile.duration_s(self)
        return seconds if seconds is not None and seconds > 0 else None

    @property
    def lasted(self) -> Value:
        """The tool's duration."""
        return Value(self.duration_s, None if self.duration_s else NO_TIME)

    @property
    def count(self) -> Value:
        """How many calls the tool takes for answered."""
        return Value(float(self.answered.height))

    @property
    def failed(self) -> Value:
        """How many calls that were sent it does not."""
        return Value(float(self.seen.calls.height - self.answered.height))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the tool's own client would have done otherwise, and what this run lacks."""
        if self.profile.stamps_empties and not self.seen.empties_kept:
            return (*self.profile.doubts, NO_EMPTIES)
        return self.profile.doubts

    def sample(self, name: str) -> tuple[Sample, int]:
        """Return the values of a quantity, and of how many calls they are not known."""
        if name not in self._samples:
            self._samples[name] = self._sample(name)
        return self._samples[name]

    def _sample(self, name: str) -> tuple[Sample, int]:
        quantity = self._quantities[name]
        calls, lost = self.answered, 0
        if quantity.unknown is not None:
            lost = int(calls[_unknown(name)].sum())
            calls = calls.filter(~col(_unknown(name)))
        if quantity.per == "gap":
            return self._gaps(name, calls), lost
        weight = pl.lit(1) if quantity.weight is None else col(_weight(name))
        table = calls.select(value=col(name).cast(pl.Float64), weight=weight.cast(pl.Int64))
        known = table.drop_nulls().filter((col("weight") > 0) & col("value").is_finite())
        return Sample.of(known["value"].to_numpy(), weights=known["weight"].to_numpy()), lost

    def _gaps(self, name: str, calls: pl.DataFrame) -> Sample:
        quantity = self._quantities[name]
        of = calls.select("row", *quantity.needs)
        pooled = self.seen.measured.pooled(quantity.expr, of)
        zeros = int(calls[_zeros(name)].sum()) if quantity.zeros is not None else 0
        if not zeros:
            return pooled
        return Sample.of(
            np.concatenate([[0.0], pooled.values]),
            weights=np.concatenate([[zeros], pooled.weights]),
        )

    def value(
        self, name: str, statistic: Callable[[Sample], float | None], scale: float = 1.0
    ) -> Value:
        """Return a statistic of a quantity."""
        sample, lost = self.sample(name)
        found = statistic(sample)
        if found is None:
            why = self._quantities[name].why if lost else NOTHING
            return Value(None, why)
        return Value(found * scale, self._without(name, lost))

    def total(self, *names: str) -> Value:
        """Return the sum of quantities over the calls; 0 of no call, not known if one is not."""
        found = [self._total(name) for name in names]
        known = [each.value for each in found if each.value is not None]
        why = next((each.why for each in found if each.why), None)
        return Value(sum(known) if len(known) == len(found) else None, why)

    def _total(self, name: str) -> Value:
        sample, lost = self.sample(name)
        if lost and not len(sample):
            return Value(None, self._quantities[name].why)
        return Value(sample.sum(), self._without(name, lost))

    def _without(self, name: str, lost: int) -> str | None:
        if not lost:
            return None
        why = self._quantities[name].why
        return f"without {lost} of {self.answered.height} calls: {why}"

    def rate(self, amount: Value, per_s: float = 1.0) -> Value:
        """Return an amount over the tool's duration."""
        if amount.value is None:
            return amount
        if self.duration_s is None:
            return Value(None, NO_TIME)
        return Value(amount.value / self.duration_s * per_s, amount.why)

    @cached_property
    def good(self) -> Value:
        """How many calls are within the SLO."""
        within, why = self._within
        return Value(None, why) if within is None else Value(float(within.sum()))

    @cached_property
    def judged(self) -> int:
        """How many answered calls the tool judges at all."""
        within, _ = self._within
        return 0 if within is None else len(within) - within.null_count()

    @cached_property
    def _within(self) -> tuple[pl.Series | None, str]:
        bounds, why = bounds_of(self.seen.slo)
        if bounds is None or self.profile.meets is None:
            return None, why
        return self.answered.select(within=self.profile.meets(bounds))["within"], why

    def share(self, amount: Value, of: float) -> Value:
        """Return an amount as a share of a number of calls."""
        if amount.value is None:
            return amount
        return Value(amount.value / of, amount.why) if of else Value(None, NOTHING)

    def of(self, field: Field) -> Value:
        """Return a field of the tool's report; a number that is none is not known."""
        found = field.of(self)
        if found.value is not None and not math.isfinite(found.value):
            return Value(None, found.why or NOTHING)
        return found


def bounds_of(slo: SLO | None) -> tuple[dict[str, float] | None, str]:
    """Return the bounds of an SLO in seconds, as other tools know them: on ttft, tpot and e2e.

    None, and why, if there is no SLO or if it asks for anything else.
    """
    if slo is None:
        return None, "no SLO was asked"
    bounds: dict[str, float] = {}
    for group in slo.groups:
        simple = not group.where and not group.fluidity
        for condition in group.conditions:
            bound = condition.bound
            simple &= condition.statistic is None and not (bound.per_input or bound.per_output)
            simple &= condition.metric in ("ttft", "tpot", "e2e")
            bounds[condition.metric] = min(
                bound.constant, bounds.get(condition.metric, bound.constant)
            )
        if not simple:
            return None, "the tool knows bounds on TTFT, TPOT and E2E of every call, and no others"
    return bounds, ""


def _unknown(name: str) -> str:
    return f"{name} is unknown"


def _weight(name: str) -> str:
    return f"weight of {name}"


def _zeros(name: str) -> str:
    return f"zeros of {name}"
