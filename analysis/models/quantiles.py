"""What values are distributed like, as a few of their quantiles: none that a few calls alone show.

Between neighbouring knots lie `min_count` values or more. Beyond the last one the tail is a
generalised Pareto law (Pickands 1975), spliced on, so that no extreme value is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]  # of all, or a probability

MIN_COUNT = 10
KNOTS = 200
_TAIL = 0.02  # part of the values that the law of the tail is fitted to, where they are enough
_SHAPES = (-0.5, 0.9)  # of a tail: from 1 on its mean would be infinite
_NARROW = 1e-9  # width of what has a density, over its place


def rounded(value: float) -> float:
    """Return a number with the six digits that are stored, so that a file holds what is drawn."""
    return float(f"{value:.6g}")


def all_rounded(values: npt.ArrayLike) -> tuple[float, ...]:
    """Return numbers with the six digits that are stored."""
    return tuple(rounded(value) for value in np.asarray(values, np.float64).tolist())


class Tail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What lies above the last knot: generalised Pareto, cut where one value in `share` is left."""

    shape: Annotated[float, msgspec.Meta(ge=_SHAPES[0], le=_SHAPES[1])]
    scale: Annotated[float, msgspec.Meta(gt=0)]
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]

    def beyond(self, u: Floats) -> Floats:
        """Return how far above the last knot the share u of the tail's values ends, u in [0, 1]."""
        left = np.maximum(1 - u, self.share)
        if abs(self.shape) < 1e-6:
            return np.asarray(-np.log(left) * self.scale)
        return np.asarray(np.expm1(-self.shape * np.log(left)) * self.scale / self.shape)

    def below(self, beyond: Floats) -> Floats:
        """Return the share of the tail's values that are at most so far above the last knot."""
        if abs(self.shape) < 1e-6:
            return np.asarray(-np.expm1(-beyond / self.scale))
        grown = np.maximum(1 + self.shape * beyond / self.scale, 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(-np.expm1(-np.log(grown) / self.shape))


class Quantiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """An empirical quantile function: `values` at `levels` in [0, 1], linear between them.

    A value that stands at two levels is an atom: all between them have it. `whole` values are whole
    numbers, rounded when drawn.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]
    tail: Tail | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        levels, values = np.array(self.levels), np.array(self.values)
        rises = (
            len(levels) == len(values) > 0
            and levels[0] >= 0
            and levels[-1] <= 1
            and bool((np.diff(levels) >= 0).all() and (np.diff(values) >= 0).all())
        )
        if not rises:
            raise InputError(
                "The levels and values of a quantile function do not rise together within 0 to 1.",
                "Fit the model again, or mend them.",
            )
        self.__dict__["_levels"], self.__dict__["_values"] = levels, values

    @classmethod
    def fit(
        cls,
        values: npt.ArrayLike,
        min_count: int = MIN_COUNT,
        knots: int = KNOTS,
        *,
        whole: bool = False,
    ) -> Quantiles:
        """Take about `knots` quantiles at most, with `min_count` values or more between them.

        Fewer than twice `min_count` values become their median alone. Raises InputError of none.
        """
        x = np.sort(np.asarray(values, np.float64))
        if not len(x):
            raise InputError("There are no values to take quantiles of.", "Give some.")
        if len(x) < 2 * min_count:
            middle = rounded(float(np.median(x)))
            return cls(levels=(0.0, 1.0), values=(middle, middle), whole=whole)
        found = list(_knots(x, min_count, knots))
        tail = None
        if found[-1][0] < len(x):
            tail, found = _tailed(x, found, min_count)
        ranks, held = zip(*found, strict=True)
        return cls(
            levels=all_rounded(np.array(ranks) / len(x)),
            values=all_rounded(np.maximum.accumulate(held)),
            tail=tail,
            whole=whole,
        )

    def at(self, u: Floats) -> Floats:
        """Return the values with the shares u below them: shape of u."""
        levels, values = self.__dict__["_levels"], self.__dict__["_values"]
        drawn = np.interp(u, levels, values)
        if self.tail is not None:
            high = u > levels[-1]
            above = (u[high] - levels[-1]) / (1 - levels[-1])
            drawn[high] = values[-1] + self.tail.beyond(above)
        return np.asarray(np.rint(drawn) if self.whole else drawn)

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw values: shape (count,)."""
        return self.at(rng.random(count))

    def rank(self, x: Floats, within: Floats | float = 0.5) -> Floats:
        """Return the share of values below x, plus the part `within` of the share that is x.

        With `within` uniform in [0, 1) the ranks of values drawn from here are uniform too.
        """
        half = 0.5 if self.whole else 0.0
        low, high = self._below(x - half, "left"), self._below(x + half, "right")
        return np.asarray(low + within * (high - low))

    def _below(self, x: Floats, side: str) -> Floats:
        levels, values = self.__dict__["_levels"], self.__dict__["_values"]
        right = np.searchsorted(values, x, side="right")
        place = right if side == "right" else np.searchsorted(values, x, side="left")
        at = np.clip(place, 1, len(values) - 1)
        width = values[at] - values[at - 1]
        part = np.divide(x - values[at - 1], width, out=np.zeros(len(x)), where=width > 0)
        share = levels[at - 1] + np.clip(part, 0, 1) * (levels[at] - levels[at - 1])
        share = np.where(place == 0, 0.0, np.where(place == len(values), levels[-1], share))
        if self.tail is None:
            return np.asarray(np.where(place == len(values), 1.0, share))
        beyond = np.maximum(x - values[-1], 0.0)
        above = levels[-1] + (1 - levels[-1]) * self.tail.below(beyond)
        return np.asarray(np.where(x > values[-1], above, share))

    def log_score(self, x: Floats) -> float:
        """Return the log-likelihood of values (nats): probabilities of whole ones, else densities.

        A value that cannot come is given a millionth.
        """
        half = np.full(len(x), 0.5) if self.whole else np.maximum(np.abs(x), 1.0) * _NARROW
        mass = self._below(x + half, "right") - self._below(x - half, "left")
        likely = mass if self.whole else mass / (2 * half)
        return float(np.log(np.maximum(likely, 1e-6)).sum())

    @property
    def mean(self) -> float:
        """Mean of what is drawn."""
        return float(self.at((np.arange(20_000) + 0.5) / 20_000).mean())


def _knots(x: Floats, min_count: int, knots: int) -> Iterator[tuple[int, float]]:
    """Yield (rank, value): atoms at both ends of their ranks, the rest in equal groups.

    It ends at the last rank if the greatest value is an atom, else below it.
    """
    count = len(x)
    edges = np.flatnonzero(np.diff(x)) + 1
    starts, ends = np.concatenate(([0], edges)), np.concatenate((edges, [count]))
    often = ends - starts >= max(count / knots, min_count)
    often[-1] = ends[-1] - starts[-1] >= min_count  # a limit that prompts are cut at
    begin = 0
    for first, end in [
        *zip(starts[often].tolist(), ends[often].tolist(), strict=True),
        (count, count),
    ]:
        size = first - begin
        groups = max(1, min(size // min_count, math.ceil(size * knots / count)))
        if begin == 0 and size >= min_count:
            yield 0, float(x[:min_count].mean())
        elif begin == 0 < size:
            yield 0, float(x[first])
        for group in range(1, groups):
            rank = begin + group * size // groups
            yield rank, float(x[rank - 1] + x[rank]) / 2
        if end > first:
            yield first, float(x[first])
            yield end, float(x[first])
        begin = end


def _tailed(
    x: Floats, found: list[tuple[int, float]], min_count: int
) -> tuple[Tail | None, list[tuple[int, float]]]:
    """Return the law of the tail and the knots below it.

    The last values are too few for knots of their own, or are no atom: a law stands for them.
    """
    count = len(x)
    last = found[-1][0]
    size = max(count - last, min(max(2 * min_count, int(_TAIL * count)), count // 2))
    atoms = [k for k in range(1, len(found)) if found[k][1] == found[k - 1][1]]
    fixed = atoms[-1] + 1 if atoms else 1  # no atom is taken for a part of the tail
    kept = [knot for k, knot in enumerate(found) if k < fixed or knot[0] <= count - size]
    rank, edge = kept[-1]
    above = x[rank:] - edge
    above = above[above > 0]
    if len(above) < min_count:  # so few behind the last atom that they count as it
        return None, [*kept, (count, edge)]
    # probability-weighted moments (Hosking and Wallis 1987): closed, and never far off
    place = (np.arange(len(above)) + 0.65) / len(above)
    first, second = float(above.mean()), float((above * (1 - place)).mean())
    shape = float(np.clip(2 - first / max(first - 2 * second, 1e-12), *_SHAPES))
    return (
        Tail(
            shape=rounded(shape),
            scale=rounded(first * (1 - shape)),
            share=rounded(0.5 / len(above)),
        ),
        kept,
    )
