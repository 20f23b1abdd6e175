"""How a paper shows a workload: its tables, row by row, and the figures it draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from servescope.analysis.characterization import Characterization
from servescope.analysis.demand import Demand

Value = float | None


@dataclass(frozen=True, eq=False)
class Reading:
    """A trace as the rows of a paper look at it; of several pools of clients, one."""

    found: Characterization
    demand: Demand
    pool: str | None = None

    def calls(self, **wanted: str) -> pl.DataFrame:
        """Return the calls of a class or a model."""
        calls = self.demand.calls
        for column, value in wanted.items():
            if column not in calls.columns:
                return calls.head(0)
            calls = calls.filter(pl.col(column).cast(pl.String) == value)
        return calls


@dataclass(frozen=True, slots=True)
class Row:
    """A quantity of a paper: what is published of it, and how it is found in a trace.

    `ours` returns None where the trace cannot say it.
    """

    quantity: str
    unit: str
    published: Value
    ours: Callable[[Reading], Value]


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of a paper by their titles, and our tables that its figures draw, with theirs.

    Each pool of clients has a table `of_pools` of its own. `note` says where the published values
    are from, and what they are of.
    """

    title: str
    source: str
    note: str
    tables: Mapping[str, tuple[Row, ...]]
    figures: Mapping[str, str] = field(default_factory=dict)
    of_pools: str = ""

    def filled(self, found: Characterization, demand: Demand) -> dict[str, pl.DataFrame]:
        """Return the tables with what is found in a trace: quantity, unit, published, ours."""
        pools = found.rows("clients", "clients")["subject"].to_list() or [None]
        made = {}
        with np.errstate(all="ignore"):
            for title, rows in self.tables.items():
                for pool in pools if title == self.of_pools else pools[:1]:
                    name = f"{title}, {pool}" if pool and title == self.of_pools else title
                    made[name] = _filled(rows, Reading(found, demand, pool))
        return made


def _filled(rows: tuple[Row, ...], reading: Reading) -> pl.DataFrame:
    kinds = {"quantity": pl.String, "unit": pl.String, "published": pl.Float64, "ours": pl.Float64}
    cells = [(row.quantity, row.unit, row.published, _finite(row.ours(reading))) for row in rows]
    return pl.DataFrame(cells, schema=kinds, orient="row")


def _finite(value: Value) -> Value:
    return None if value is None or not np.isfinite(value) else float(value)
