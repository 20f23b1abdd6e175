"""What a trace is like: every aspect of it, as tables with units, estimators and uncertainty."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from servescope.analysis.aspects import ASPECTS
from servescope.analysis.clock import Audit
from servescope.analysis.demand import Demand
from servescope.analysis.findings import STATISTICS_SCHEMA
from servescope.analysis.sample import Sample
from servescope.analysis.server_shape import ServerShape
from servescope.traces.provenance import Provenance
from servescope.traces.trace import Trace


@dataclass(frozen=True, eq=False)
class Characterization:
    """Everything that was found in a trace, and what was left out and why.

    `statistics` has a row a number: aspect, statistic, subject (what of), value, low, high (95 %),
    p_value, n, unit, estimator, uncertainty. `tables` are the curves and distributions by name;
    `analysis.aspects` says what each of their columns means. `left_out` has aspect, what, why.
    `samples` are distributions by sections of time, from which traces are compared.
    """

    name: str
    calls: int
    about: Provenance
    audit: Audit
    statistics: pl.DataFrame
    tables: Mapping[str, pl.DataFrame]
    left_out: pl.DataFrame
    samples: Mapping[str, Sample]
    server: ServerShape | None = None

    def value(self, aspect: str, statistic: str, subject: str | None = None) -> float | None:
        """Return a number; without `subject` the first one that was found. None if it was not."""
        rows = self.rows(aspect, statistic, subject)
        return float(rows["value"][0]) if rows.height else None

    def rows(self, aspect: str, statistic: str, subject: str | None = None) -> pl.DataFrame:
        """Return the rows of a statistic, of one subject or of all."""
        found = self.statistics.filter(
            (pl.col("aspect") == aspect) & (pl.col("statistic") == statistic)
        )
        return found if subject is None else found.filter(pl.col("subject") == subject)


def characterize(
    trace: Trace | Demand,
    *,
    name: str | None = None,
    server: ServerShape | None = None,
    begins: Callable[[str], None] = lambda title: None,
) -> Characterization:
    """Characterise a trace, aspect by aspect; one that has been read already is not read again.

    `server` lets memory and concurrency be said too; `begins` is told the title of every aspect
    when it is begun. The same trace always gives the same numbers. Raises BadRow for rows that make
    no sense.
    """
    begins("Reading")
    demand = trace if isinstance(trace, Demand) else Demand.of(trace)
    made = []
    # what cannot be computed is left out or null, and not a warning from inside a library
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for key, aspect in ASPECTS.items():
            begins(aspect.title)
            findings = aspect.findings(key)
            if aspect.on_a_server:
                aspect.module.found(demand, findings, server)
            else:
                aspect.module.found(demand, findings)
            made.append(findings)
    return Characterization(
        name or demand.about.source,
        len(demand),
        demand.about,
        demand.audit,
        pl.DataFrame([row for f in made for row in f.rows], schema=STATISTICS_SCHEMA),
        {table: frame for f in made for table, frame in f.made.items()},
        pl.DataFrame(
            [(f.aspect, what, why) for f in made for what, why in f.left_out],
            schema={"aspect": pl.String, "what": pl.String, "why": pl.String},
            orient="row",
        ),
        {key: sample for f in made for key, sample in f.samples.items()},
        server,
    )
