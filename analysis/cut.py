"""A part of a run: what was due in a window of its time, of some class, client, turn or replica."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import polars as pl
from polars import col

from servescope.analysis.sample import Bools
from servescope.analysis.slo import SELECTORS
from servescope.traces.errors import InputError
from servescope.traces.server import COUNTERS

# The first turn of a program finds no cache of its own; later ones may.
TURN_GROUPS = ("first (cold)", "2 to 3", "4 to 7", "8 and later")
TURNS = (
    pl.when(col("turn") == 0)
    .then(pl.lit(TURN_GROUPS[0]))
    .when(col("turn") <= 2)
    .then(pl.lit(TURN_GROUPS[1]))
    .when(col("turn") <= 6)
    .then(pl.lit(TURN_GROUPS[2]))
    .when(col("turn").is_not_null())
    .then(pl.lit(TURN_GROUPS[3]))
)
# What a part can be chosen by, and the column that says it; `turns` is made of turn.
KEYS = {**SELECTORS, "replica": "replica", "turns": "turn"}
_LARGE = 1 / 64  # share of calls from which on a group is worth knowing

Group = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a run: calls due in [from_s, until_s) whose columns have the values of `where`.

    A bound that is None is no bound; an empty value of `where` is that of calls that have none. A
    program is in it if its first call is, and then with its whole JCT, as the warm-up is cut.
    """

    from_s: float | None = None
    until_s: float | None = None
    where: tuple[Group, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is left out of it."""
        return self != EVERYTHING

    def chosen(self, columns: Collection[str]) -> pl.Expr:
        """Return which calls are in it; raises InputError for what the run does not know."""
        asked = [self.window("due_s")]
        for key, value in self.where:
            if key not in KEYS or KEYS[key] not in columns:
                raise InputError(
                    f"The run cannot be cut by '{key}'.",
                    f"Choose among {', '.join(k for k, name in KEYS.items() if name in columns)}.",
                )
            asked.append(_value_of(key).eq_missing(pl.lit(value or None, pl.String)))
        return pl.all_horizontal(each.fill_null(False) for each in asked)

    def window(self, moment: str) -> pl.Expr:
        """Return whether a moment is in the window; where there is none, all are."""
        inside = pl.lit(True)
        if self.from_s is not None:
            inside = inside & (col(moment) >= self.from_s)
        if self.until_s is not None:
            inside = inside & (col(moment) < self.until_s)
        return inside

    @property
    def groups(self) -> tuple[Group, ...]:
        """The large groups (`groups_of`) that all of its calls would be of."""
        return tuple(("client" if key == "tenant" else key, value) for key, value in self.where)

    def of_servers(self, series: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `servers.over_time` that are in the window, of one replica if asked.

        Counters grow from the last scrape before the window on. Servers know of no classes: nothing
        else of `where` counts.
        """
        replicas = [value for key, value in self.where if key == "replica"]
        since = float("-inf") if self.from_s is None else self.from_s
        before = pl.when(col("t_s") < since).then(col(*COUNTERS)).max().over("replica")
        return (
            series.filter(col("replica").is_in(replicas) if replicas else True)
            .with_columns(col(*COUNTERS) - before.fill_null(0.0))
            .filter(self.window("t_s"))
        )


EVERYTHING = Cut()


def groups_of(calls: pl.DataFrame) -> dict[Group, Bools]:
    """Return which calls are of each large group that a cut could choose."""
    found: dict[Group, Bools] = {}
    for key, values, counted in _counted(calls):
        for value in counted.filter(col("count") >= _LARGE * len(values))["value"].to_list():
            found[key, value] = (values == value).fill_null(False).to_numpy()
    return found


def choices_of(calls: pl.DataFrame, most: int) -> dict[str, list[str]]:
    """Return by which values a cut could choose among calls, of each key the `most` common first.

    The groups of turns stand in their order.
    """
    found = {key: counted["value"].head(most).to_list() for key, _, counted in _counted(calls)}
    if "turns" in found:
        found["turns"].sort(key=TURN_GROUPS.index)
    return found


def _counted(calls: pl.DataFrame) -> Iterator[tuple[str, pl.Series, pl.DataFrame]]:
    """Yield the value of each call by each key that calls have, and how often it is there."""
    for key, column in KEYS.items():
        if key != "tenant" and column in calls.columns:  # another word for client
            values = calls.select(_value_of(key).alias("value")).to_series()
            yield key, values, values.drop_nulls().value_counts(sort=True)


def _value_of(key: str) -> pl.Expr:
    return TURNS if key == "turns" else col(KEYS[key]).cast(pl.String)
