"""Each quantity for itself: gaps between arrivals, lengths of prompts and of answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from servescope.analysis.fidelity.scores import Found, LeftOut, Measure, Score
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.sample import Floats

_LABELS = ("model", "call_class")
_FEWEST = 50  # calls of a label on both sides
_MOST_LABELS = 8
# Of the real values that are drawn: evenly, and the tail of one in a hundred by octaves.
_SHARES = np.concatenate([np.linspace(0, 0.99, 150), 1 - np.geomspace(0.009, 1e-5, 40)])

MEASURES = {
    "ks": Measure(
        "largest difference between the two distribution functions",
        "1",
        "two-sample Kolmogorov-Smirnov distance",
    ),
    "wasserstein": Measure(
        "mean distance by which values would have to move, over the real mean",
        "1",
        "area between the two distribution functions over the mean",
        "Wasserstein-1 distance",
    ),
    "mean": Measure("difference of the means, over the real one", "1", "|ratio - 1|"),
    "mix": Measure(
        "calls that would have to change their label", "share", "total variation distance of shares"
    ),
}


def scores(real: Side, other: Side) -> Found:
    """Compare gaps and lengths, and lengths by label."""
    if real.timed and other.timed:
        yield from _compared("gap_s", real.gaps, other.gaps)
    else:
        yield LeftOut("gaps between arrivals", "calls are not on one clock")
    for name in ("input_tokens", "output_tokens"):
        yield from _compared(name, real.column(name), other.column(name))
    for label in _LABELS:
        yield from _by_label(label, real, other)


def _compared(subject: str, x: Floats, y: Floats) -> Iterator[Score | LeftOut]:
    if not len(x) or not len(y):
        yield LeftOut(subject, "one of the traces does not say it")
        return
    mean = float(x.mean())
    yield Score("ks", ks(x, y), subject)
    if mean > 0:
        yield Score("wasserstein", wasserstein(x, y) / mean, subject)
        yield Score("mean", abs(float(y.mean()) / mean - 1), subject, mean, float(y.mean()))


def _by_label(label: str, real: Side, other: Side) -> Iterator[Score | LeftOut]:
    if label not in real.demand.columns:
        return
    if label not in other.demand.columns:
        yield LeftOut(f"{label} by {label}", f"the synthetic trace has no {label}")
        return
    a, b = (side.demand.calls.with_columns(pl.col(label).cast(pl.String)) for side in (real, other))
    shares = [
        table[label].drop_nulls().value_counts(normalize=True, name="share") for table in (a, b)
    ]
    both = shares[0].join(shares[1], on=label, how="full", coalesce=True, suffix="_b").fill_null(0)
    yield Score("mix", float((both["share"] - both["share_b"]).abs().sum()) / 2, label)
    if shares[0].height < 2:
        return
    for value in shares[0].sort("share", label, descending=True)[label].head(_MOST_LABELS):
        x, y = (table.filter(pl.col(label) == value) for table in (a, b))
        if min(x.height, y.height) < _FEWEST:
            continue
        for name in ("input_tokens", "output_tokens"):
            if name in x.columns and name in y.columns:
                values = [t[name].drop_nulls().cast(pl.Float64).to_numpy() for t in (x, y)]
                if all(map(len, values)):
                    yield Score("ks", ks(*values), f"{name}, {label} {value}")


def ks(x: Floats, y: Floats) -> float:
    """Return the largest difference between two empirical distribution functions."""
    x, y = np.sort(x), np.sort(y)
    at = np.concatenate([x, y])
    below = [np.searchsorted(values, at, side="right") / len(values) for values in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


def wasserstein(x: Floats, y: Floats) -> float:
    """Return the area between two empirical distribution functions, in units of the values."""
    at = np.sort(np.concatenate([x, y]))
    below = [
        np.searchsorted(np.sort(values), at[:-1], side="right") / len(values) for values in (x, y)
    ]
    return float((np.abs(below[0] - below[1]) * np.diff(at)).sum())


def curves(real: Side, side: Side) -> dict[str, pl.DataFrame]:
    """Return the distribution functions at values of the real trace."""
    drawn = {}
    for name in ("gap_s", "input_tokens", "output_tokens"):
        values, own = (s.gaps if name == "gap_s" else s.column(name) for s in (real, side))
        if len(values) and len(own):
            at = np.unique(np.quantile(values, _SHARES))
            share = np.searchsorted(np.sort(own), at, side="right") / len(own)
            drawn[f"{name} cdf"] = pl.DataFrame({"x": at, "y": share})
    return drawn
