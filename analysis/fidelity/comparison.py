"""A real trace against synthetic ones: every score, its noise floor, and the curves behind it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from servescope.analysis.clock import Tick
from servescope.analysis.demand import Demand
from servescope.analysis.fidelity import (
    classifier,
    joint,
    marginals,
    prefixes,
    sessions,
    sides,
    temporal,
)
from servescope.analysis.fidelity.scores import Aspect, LeftOut, Measure, Score
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError
from servescope.traces.trace import Trace

ASPECTS: Final[dict[str, Aspect]] = {
    "marginals": Aspect("Gaps and lengths", marginals),
    "temporal": Aspect("Arrivals over time", temporal),
    "joint": Aspect("Lengths together, and with the load", joint),
    "sessions": Aspect("Sessions and programs", sessions),
    "prefixes": Aspect("Prefix reuse", prefixes),
    "classifier": Aspect("Whether a classifier can tell", classifier),
}
SCHEMA: Final = {
    "aspect": pl.String,
    "measure": pl.String,
    "subject": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "floor": pl.Float64,
    "bar": pl.Float64,
    "met": pl.Boolean,
    "real": pl.Float64,
    "synthetic": pl.Float64,
    "synthetic_low": pl.Float64,
    "synthetic_high": pl.Float64,
    "unit": pl.String,
    "says": pl.String,
    "how": pl.String,
}
BAND = (0.05, 0.95)
BAND_TRACES = 10  # synthetic ones from which a band is worth holding a real number against
# Of these curves the error of the mean one is told too.
_MEAN_CURVES = {"idc": "temporal", "token_idc": "joint"}


@dataclass(frozen=True, eq=False)
class Fidelity:
    """How far synthetic traces are from a real one.

    `table` has a row a score. `value` is its mean over the synthetic traces, `low` and `high` the
    band that 9 of 10 of them are in (of a single trace: its own interval), and `floor` the score of
    one part of the real trace against the other. Where a score compares two numbers, `real` and
    `synthetic` (the median) are these, and of 10 traces or more `synthetic_low` and
    `synthetic_high` the band of the synthetic ones. `curves` are what is drawn: keys, real,
    synthetic (mean), low, high (5th and 95th percentile). `tick` is the one over which the arrivals
    of all were spread. `bar` is what a good model is held to, and `met` whether the score is.
    `left_out` has aspect, what, why.
    """

    real: str
    synthetic: tuple[str, ...]
    calls: tuple[int, ...]  # of the real trace, then of the synthetic ones
    tick: Tick | None
    table: pl.DataFrame
    curves: Mapping[str, pl.DataFrame]
    left_out: pl.DataFrame
    doubts: tuple[str, ...] = ()

    def value(self, measure: str, subject: str | None = None) -> float | None:
        """Return a score, without `subject` the first of its measure; None if there is none."""
        rows = self.table.filter(pl.col("measure") == measure)
        if subject is not None:
            rows = rows.filter(pl.col("subject") == subject)
        return float(rows["value"][0]) if rows.height else None

    @property
    def inside(self) -> tuple[int, int]:
        """How many real numbers are within the band of the synthetic ones, and of how many."""
        return inside(self.table)

    def joined(
        self,
        table: pl.DataFrame,
        curves: Mapping[str, pl.DataFrame],
        left_out: pl.DataFrame,
        doubts: Sequence[str] = (),
    ) -> Fidelity:
        """Return it with more rows and curves, of the same columns, and what was left out."""
        return replace(
            self,
            table=pl.concat([self.table, table]),
            curves={**self.curves, **curves},
            left_out=pl.concat([self.left_out, left_out]),
            doubts=(*self.doubts, *doubts),
        )


def compare(
    real: Trace,
    synthetic: Sequence[Trace],
    *,
    parts: tuple[Trace, Trace] | None = None,
    name: str | None = None,
    names: Sequence[str] = (),
    aspects: Collection[str] = tuple(ASPECTS),
    seed: int = 0,
    begins: Callable[[str], None] = lambda stage: None,
) -> Fidelity:
    """Compare a real trace with one or more synthetic ones, such as the same model's seeds.

    The noise floor is the first of two `parts` against the second: by default the halves of the
    real trace. Arrivals are spread over the coarsest tick of all clocks, drawn from `seed`, so that
    no clock gives a trace away. Only `aspects` are looked at. `begins` hears of every stage. Raises
    InputError without a synthetic trace or without calls.
    """
    if not synthetic:
        raise InputError("There is no synthetic trace to compare with.", "Name one or more.")
    begins("Reading")
    demands = [Demand.of(trace) for trace in (real, *synthetic)]
    titles = [name or demands[0].about.source]
    titles += [*names, *(d.about.source for d in demands[1 + len(names) :])]
    for title, demand in zip(titles, demands, strict=True):
        if not len(demand):
            raise InputError(f"{title} has no calls.", "Choose another window.")
    tick = sides.coarsest(demands)
    truth, *others = (Side.of(demand, tick, seed) for demand in demands)
    first, second = (Side.of(Demand.of(t), tick, seed) for t in parts or sides.split(real, 0.5))
    halved = bool(len(first.demand) and len(second.demand))
    rows: list[dict[str, object]] = []
    left: list[tuple[str, str, str]] = []
    drawn: dict[str, pl.DataFrame] = {}
    # what cannot be computed is left out, and not a warning from inside a library
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for key, aspect in ASPECTS.items():
            if key not in aspects:
                continue
            begins(aspect.title)
            floors = aspect.scores(second, first) if halved else []
            found = [aspect.scores(truth, other) for other in others]
            rows += rows_of(key, aspect.measures, found, floors)
            outs = [x for each in found for x in each if isinstance(x, LeftOut)]
            left += dict.fromkeys((key, out.what, out.why) for out in outs)
            drawn |= _together(
                aspect.curves(truth, truth), [aspect.curves(truth, other) for other in others]
            )
        for curve, key in _MEAN_CURVES.items():
            if curve in drawn:
                rows += _of_mean_curve(curve, key, drawn[curve], rows)
    table = pl.DataFrame(rows, schema=SCHEMA)
    order = {key: place for place, key in enumerate(ASPECTS)}
    return Fidelity(
        titles[0],
        tuple(titles[1:]),
        tuple(len(demand) for demand in demands),
        tick,
        table.sort(pl.col("aspect").replace_strict(order), maintain_order=True),
        drawn,
        pl.DataFrame(
            left, schema={"aspect": pl.String, "what": pl.String, "why": pl.String}, orient="row"
        ),
        tuple(_doubts(titles[0], demands, tick)),
    )


def rows_of(
    aspect: str,
    measures: Mapping[str, Measure],
    found: Sequence[Sequence[Score | LeftOut]],
    floors: Sequence[Score | LeftOut],
    middle: Callable[[Floats], float] = lambda values: float(values.mean()),
) -> list[dict[str, object]]:
    """Return a row of the table a score: its mean and band over the traces, and its floor."""
    floor = {(s.measure, s.subject): s.value for s in floors if isinstance(s, Score)}
    by: dict[tuple[str, str], list[Score]] = {}
    for each in found:
        for score in each:
            if isinstance(score, Score) and np.isfinite(score.value):
                by.setdefault((score.measure, score.subject), []).append(score)
    rows: list[dict[str, object]] = []
    for (measure, subject), scored in by.items():
        values = np.array([score.value for score in scored])
        low, high = band(values) if len(values) > 1 else (scored[0].low, scored[0].high)
        made = np.array([s.synthetic for s in scored if s.synthetic is not None])
        made_low, made_high = band(made) if len(made) >= BAND_TRACES else (None, None)
        rows.append(
            {
                "aspect": aspect,
                "measure": measure,
                "subject": subject,
                "value": middle(values),
                "low": low,
                "high": high,
                "floor": floor.get((measure, subject)),
                "bar": measures[measure].bar,
                "met": measures[measure].met(middle(values)),
                "real": scored[0].real,
                "synthetic": float(np.median(made)) if len(made) else None,
                "synthetic_low": made_low,
                "synthetic_high": made_high,
                "unit": measures[measure].unit,
                "says": measures[measure].says,
                "how": measures[measure].how,
            }
        )
    return rows


def band(values: Floats) -> tuple[float, float]:
    """Return the band that a further value of the same law is in with probability 0.9.

    Its ends are at ranks 0.05 (n + 1) and 0.95 (n + 1), or the extremes of fewer than 19 values:
    the usual percentiles of 20 values are so near that only 8 of 10 further ones are between.
    """
    low, high = np.quantile(values, BAND, method="weibull")
    return float(low), float(high)


def inside(table: pl.DataFrame) -> tuple[int, int]:
    """Count the rows whose real number is within the synthetic band, and those that have both."""
    known = table.drop_nulls(["real", "synthetic_low", "synthetic_high"])
    within = known.filter(pl.col("real").is_between("synthetic_low", "synthetic_high"))
    return within.height, known.height


def _together(
    real: Mapping[str, pl.DataFrame], others: Sequence[Mapping[str, pl.DataFrame]]
) -> dict[str, pl.DataFrame]:
    """Lay the curves of the synthetic traces beside the real ones: mean and band of each point."""
    drawn = {}
    for curve, table in real.items():
        keys = table.columns[:-1]
        made = [other[curve] for other in others if curve in other]
        if not made:
            continue
        spread = (
            pl.concat(made)
            .group_by(keys)
            .agg(
                synthetic=pl.col("y").mean(),
                low=pl.col("y").quantile(BAND[0], "linear"),
                high=pl.col("y").quantile(BAND[1], "linear"),
            )
        )
        drawn[curve] = table.rename({"y": "real"}).join(
            spread, on=keys, how="left", maintain_order="left"
        )
    return drawn


def _of_mean_curve(
    curve: str, aspect: str, drawn: pl.DataFrame, rows: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """Return the row of the error of the mean curve; its floor is that of a single one."""
    single = next((row for row in rows if row["measure"] == curve), None)
    known = drawn.drop_nulls()
    if single is None or known.is_empty():
        return []
    off = np.log(known["synthetic"].to_numpy() / known["real"].to_numpy())
    error = float(np.abs(off).mean())
    about = ASPECTS[aspect].measures[f"{curve}_mean_curve"]
    row = dict.fromkeys(SCHEMA) | {
        "aspect": aspect,
        "measure": f"{curve}_mean_curve",
        "subject": "",
        "value": error,
        "floor": single["floor"],
        "bar": about.bar,
        "met": about.met(error),
        "unit": about.unit,
        "says": about.says,
        "how": about.how,
    }
    return [row]


def _doubts(real: str, demands: Sequence[Demand], tick: Tick | None) -> list[str]:
    """Say what may mislead."""
    said = []
    if tick:
        said.append(
            f"Arrivals are drawn anew within a tick of {tick.step_s:g} s on both sides: a clock"
            " shows it, and nothing finer is compared."
        )
    spans = [demand.span_s for demand in demands]
    if spans[0] > 0:
        ratio = float(np.median(spans[1:])) / spans[0]
        if not 0.8 <= ratio <= 1.25:
            said.append(
                f"The synthetic trace is {ratio:.2g} times as long as {real}: peaks, sessions and"
                " prefix reuse depend on how long a trace is."
            )
    return said
