"""The figures of a comparison of synthetic traces with the real one: both over each other.

Each takes a curve of `Fidelity.curves`: keys, real, synthetic, low, high; and returns None where
there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl

from servescope.analysis.binned import sampled
from servescope.reports.canvas import (
    INK,
    LOG,
    MOST_POINTS,
    PALETTE,
    canvas,
    line_of,
    literal,
    shade,
    short,
)
from servescope.reports.trace_figures import densities

Draw = Callable[[pl.DataFrame], go.Figure | None]
_REAL, _MADE, _FLOOR = 0, 1, 2


def overlaid(
    x: str,
    y: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    above: bool = False,
    share: bool = False,
    level: float | None = None,
) -> Draw:
    """Return what draws the real curve over the synthetic ones and their band.

    `above` turns the share below into the share above, `share` writes y in per cent, and `level`
    is a line to compare with.
    """

    def draw(curve: pl.DataFrame) -> go.Figure | None:
        known = curve.drop_nulls(["real", "synthetic"])
        if above:
            known = known.select(
                "x",
                real=1 - pl.col("real"),
                synthetic=1 - pl.col("synthetic"),
                low=1 - pl.col("high"),
                high=1 - pl.col("low"),
            )
        if log_x:
            known = known.filter(pl.col("x") > 0)
        known = sampled(known, MOST_POINTS)
        if known.height < 2:
            return None
        figure = canvas(x, y, log_x=log_x)
        if log_y:
            figure.update_yaxes(**LOG)
        if share:
            figure.update_yaxes(tickformat="~%", **({"dtick": 1} if log_y else {}))
        at = short(known["x"].to_numpy())
        if not log_y:
            figure.update_yaxes(rangemode="tozero")
        _band(figure, known, log_y=log_y)
        for index, (column, name) in enumerate((("real", "real"), ("synthetic", "synthetic"))):
            values = [v if v > 0 or not log_y else None for v in short(known[column].to_numpy())]
            figure.add_scatter(
                x=at,
                y=values,
                name=name,
                mode="lines",
                line=line_of(index),
                hovertemplate=f"{name}: %{{y:.4g}} at %{{x:.4g}}<extra></extra>",
            )
        if level is not None:
            figure.add_hline(y=level, line={"color": INK, "width": 1, "dash": "dot"})
        return figure

    return draw


def _band(figure: go.Figure, curve: pl.DataFrame, *, log_y: bool) -> None:
    """Shade where 9 of 10 synthetic traces are; nothing of a single one."""
    at, low, high = (curve[c].to_numpy() for c in ("x", "low", "high"))
    if (low == high).all():
        return
    if log_y:
        low = np.maximum(low, high[high > 0].min() / 10 if (high > 0).any() else 1e-9)
        high = np.maximum(high, low)
    shade(figure, (at, low), (at, high), _MADE)


def over_time(curve: pl.DataFrame) -> go.Figure | None:
    """Draw calls a second over time."""
    longest = float(curve["x"].max() or 0.0)  # type: ignore[arg-type]
    word, size = next(
        ((word, size) for size, word in ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
         if longest >= 2 * size), ("seconds", 1.0)
    )  # fmt: skip
    draw = overlaid(f"{word} since the first call", "calls /s")
    return draw(curve.with_columns(pl.col("x") / size))


def copula(column: str) -> Draw:
    """Return what draws how often ranks of prompt and answer fall together, over independence."""

    def draw(curve: pl.DataFrame) -> go.Figure | None:
        side = curve["input_rank"].n_unique()
        ordered = curve.sort("input_rank", "output_rank")
        density = ordered[column].fill_null(0.0).to_numpy().reshape(side, side).T
        at = [round(x, 4) for x in ordered["input_rank"].unique().sort()]
        return densities(at, density, f"{column}: ")

    return draw


def quantiles(curve: pl.DataFrame) -> go.Figure | None:
    """Draw the share of calls whose first token takes longer: x is the share below."""
    turned = [
        pl.DataFrame({"t": curve[column], "above": 1 - curve["x"]})
        for column in ("real", "synthetic", "low", "high")
    ]
    if float(turned[0]["t"].max() or 0.0) <= 0:  # type: ignore[arg-type]
        return None
    figure = canvas("time to first token (s)", "share of calls longer", log_x=True)
    figure.update_yaxes(**LOG, tickformat="~%", dtick=1)
    real, made, low, high = turned
    if not low["t"].equals(high["t"]):
        quick, slow = ((each["t"].to_numpy(), each["above"].to_numpy()) for each in (low, high))
        shade(figure, quick, slow, _MADE)
    for index, (name, each) in enumerate((("real", real), ("synthetic", made))):
        figure.add_scatter(
            x=short(each["t"].to_numpy()),
            y=short(each["above"].to_numpy()),
            name=name,
            mode="lines",
            line=line_of(index),
            hovertemplate=f"{name}: %{{y:.2~%}} take longer than %{{x:.3g}} s<extra></extra>",
        )
    return figure


def errors(rows: Sequence[dict[str, object]], labels: dict[str, str]) -> go.Figure | None:
    """Draw the errors of the service as bars by metric and load, with the floor as a mark.

    `labels` names the metrics in their order.
    """
    loads = list(dict.fromkeys(str(row["subject"]) for row in rows))
    if not loads:
        return None
    figure = canvas("", "|synthetic / real - 1|")
    figure.update_yaxes(tickformat="~%", rangemode="tozero")
    for index, load in enumerate(loads):
        of = {row["measure"]: row for row in rows if row["subject"] == load}
        there = [measure for measure in labels if measure in of]
        figure.add_bar(
            x=[labels[measure] for measure in there],
            y=[of[measure]["value"] for measure in there],
            name=literal(load),
            offsetgroup=load,
            marker={"color": PALETTE[index % len(PALETTE)]},
            hovertemplate="%{y:.1%}",
        )
    floors = {
        measure: [float(str(row["floor"])) for row in rows
                  if row["measure"] == measure and row["floor"] is not None]
        for measure in labels
    }  # fmt: skip
    known = {measure: sum(each) / len(each) for measure, each in floors.items() if each}
    if known:
        figure.add_scatter(
            x=[labels[measure] for measure in known],
            y=list(known.values()),
            name="two parts of the real trace",
            mode="markers",
            marker={"symbol": "line-ew", "size": 34, "line": {"width": 2, "color": INK}},
            hovertemplate="floor: %{y:.1%}<extra></extra>",
        )
    figure.update_layout(barmode="group", showlegend=True)
    return figure
