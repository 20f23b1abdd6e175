"""Programs of several calls: how many, how far apart, and how their context grows."""

from __future__ import annotations

import numpy as np
import polars as pl
from polars import col

from servescope.analysis import copulas
from servescope.analysis.fidelity.marginals import ks
from servescope.analysis.fidelity.scores import Found, LeftOut, Measure, Score, difference
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.sample import Floats

_FEWEST = 20
_PAIRS = 50
_MOST_TURNS = 30  # in the figure

MEASURES = {
    "turns": Measure(
        "largest difference between the distributions of calls a program",
        "1",
        "two-sample Kolmogorov-Smirnov distance; a call outside every program is one of its own",
        bar=0.02,
    ),
    "session_ks": Measure(
        "largest difference between two distributions of what lies between one call of a program"
        " and the next",
        "1",
        "two-sample Kolmogorov-Smirnov distance; gap_s: from arrival to arrival; pause_s: from the"
        " end of what is waited for; growth_tokens: of the prompt",
        bar=0.02,
    ),
    "successive": Measure(
        "difference of the rank correlation of a pause, or else a gap, with the next one in the"
        " same program",
        "1",
        "|difference|, of 50 pairs or more",
        bar=0.05,
    ),
}


def scores(real: Side, other: Side) -> Found:
    """Compare programs where both traces know them."""
    tables = [_calls(side) for side in (real, other)]
    if tables[0] is None:
        yield LeftOut("sessions", "the real trace names no programs")
        return
    if tables[1] is None:
        yield LeftOut("sessions", "the synthetic trace names no programs")
        return
    turns = [_turns(side) for side in (real, other)]
    if max(float(turns[0].max()), float(turns[1].max())) < 2:
        yield LeftOut("sessions", "every program has one call")
        return
    yield Score("turns", ks(*turns), real=float(turns[0].mean()), synthetic=float(turns[1].mean()))
    a, b = (_steps(table) for table in tables if table is not None)
    for name in ("gap_s", "pause_s", "growth_tokens"):
        if name not in a.columns:
            continue
        x, y = (_known(steps, name) for steps in (a, b))
        if len(x) < _FEWEST:
            yield LeftOut(name, f"fewer than {_FEWEST} of the real trace")
        elif len(y) < _FEWEST:
            yield LeftOut(name, f"fewer than {_FEWEST} of the synthetic trace")
        else:
            yield Score("session_ks", ks(x, y), name)
    by = next((n for n in ("pause_s", "gap_s") if n in a.columns and n in b.columns), None)
    found = [_successive(steps, by) for steps in (a, b)] if by else []
    if len(found) == 2 and found[0] is not None and found[1] is not None:
        yield difference("successive", found[0], found[1], by or "")
    else:
        yield LeftOut("successive pauses", f"fewer than {_PAIRS} pairs")


def _calls(side: Side) -> pl.DataFrame | None:
    """Return the calls inside programs, program by program and in their order."""
    calls = side.demand.calls
    if "program_id" not in calls.columns:
        return None
    order = [c for c in ("arrival_s", "turn") if c in calls.columns]
    inside = calls.filter(col("program_id").is_not_null())
    return inside.sort(["program_id", *order], maintain_order=True) if inside.height else None


def _turns(side: Side) -> Floats:
    """Return the calls of every program."""
    known = side.demand.calls["program_id"]
    several = known.drop_nulls().value_counts()["count"].to_numpy().astype(np.float64)
    return np.concatenate([several, np.ones(known.null_count())])


def _steps(calls: pl.DataFrame) -> pl.DataFrame:
    """Return what lies between a call and the one before in its program; null for the first."""
    follows = (col("program_id") == col("program_id").shift(1)).fill_null(False)
    made = {
        "gap_s": ("arrival_s", col("arrival_s").diff()),
        "pause_s": ("delay_s", col("delay_s")),
        "growth_tokens": ("input_tokens", col("input_tokens").diff()),
    }
    return calls.select(
        "program_id",
        **{
            name: pl.when(follows).then(value).cast(pl.Float64)
            for name, (needs, value) in made.items()
            if needs in calls.columns
        },
    )


def _known(steps: pl.DataFrame, name: str) -> Floats:
    return steps[name].drop_nulls().to_numpy() if name in steps.columns else np.empty(0)


def _successive(steps: pl.DataFrame, name: str) -> float | None:
    """Return the rank correlation of one step of a program with the next; None of too few."""
    same = (col("program_id") == col("program_id").shift(1)).fill_null(False)
    pairs = steps.select(a=pl.when(same).then(col(name).shift(1)), b=name).drop_nulls()
    if pairs.height < _PAIRS:
        return None
    u, v = (copulas.mid_ranks(pairs[c].to_numpy()) for c in ("a", "b"))
    return float(np.corrcoef(u, v)[0, 1]) if np.ptp(u) > 0 and np.ptp(v) > 0 else None


def curves(real: Side, side: Side) -> dict[str, pl.DataFrame]:
    """Return the shares of programs by their calls, and distributions of gaps or pauses."""
    tables = [_calls(each) for each in (real, side)]
    if tables[0] is None or tables[1] is None:
        return {}
    own = _turns(side)
    if float(_turns(real).max()) < 2:
        return {}
    at = np.arange(1, min(_MOST_TURNS, int(_turns(real).max())) + 1)
    drawn = {
        "turns": pl.DataFrame(
            {"x": at.astype(np.float64), "y": [float((own >= k).mean()) for k in at]}
        )
    }
    steps = [_steps(table) for table in tables if table is not None]
    name = next((n for n in ("pause_s", "gap_s") if n in steps[0].columns), None)
    if name and len(_known(steps[0], name)) >= _FEWEST and len(_known(steps[1], name)):
        grid = np.unique(np.quantile(_known(steps[0], name), np.linspace(0, 1, 200)))
        values = np.sort(_known(steps[1], name))
        share = np.searchsorted(values, grid, side="right") / len(values)
        drawn["session pause cdf"] = pl.DataFrame({"x": grid, "y": share})
    return drawn
