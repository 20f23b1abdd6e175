"""Figures of the same calls in two runs or more: the challenger's latency less the baseline's."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
import polars as pl

from servescope.analysis.binned import quantiles_over
from servescope.analysis.intervals import fewest
from servescope.analysis.metrics import METRICS
from servescope.reports.canvas import INK, canvas, line_of, literal, shade, short

_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
_FEWEST_BINS, _MOST_BINS = 5, 40


def over_time(
    differences: Mapping[str, pl.DataFrame], metric: str, baseline: str
) -> go.Figure | None:
    """Draw the median of paired differences and 8 of 10 of them over the time calls were due.

    `differences` holds a table of `pairing.differences` by challenger; None if none has a row.
    """
    return _drawn(differences, metric, baseline, "due_s", "s since start")


def over_length(
    differences: Mapping[str, pl.DataFrame], metric: str, baseline: str
) -> go.Figure | None:
    """Draw the same over the length of the prompt."""
    return _drawn(differences, metric, baseline, "input_tokens", "input tokens")


def _drawn(
    differences: Mapping[str, pl.DataFrame], metric: str, baseline: str, x: str, title: str
) -> go.Figure | None:
    of_lengths = x == "input_tokens"
    figure = canvas(title, f"{METRICS[metric].label}, less {baseline}'s (ms)", log_x=of_lengths)
    place = "%{x:,.0f} tokens" if of_lengths else "%{x:.5g} s"
    for index, (name, table) in enumerate(differences.items()):
        # as many bins as leave the band its values, were they spread evenly
        count = min(_MOST_BINS, max(_FEWEST_BINS, table.height // fewest(0.9)))
        bins = quantiles_over(
            table, x, "difference", bins=count, logarithmic=of_lengths, quantiles=_QUANTILES
        ).with_columns(pl.col(*_QUANTILES) * 1000)
        if bins.is_empty():
            continue
        band = bins.drop_nulls(list(_QUANTILES))
        if band.height > 1:
            at, low, high = (band[each].to_numpy() for each in ("x", "p10", "p90"))
            shade(figure, (at, low), (at, high), index)
        figure.add_scatter(
            x=short(bins["x"].to_numpy()),
            y=short(bins["p50"].to_numpy()),
            customdata=bins["n"].to_list(),
            name=literal(name),
            mode="lines+markers",
            line=line_of(index),
            marker={"size": 6, "symbol": index},
            hovertemplate=f"median %{{y:+.4g}} ms around {place} (%{{customdata}} calls)",
        )
    if not figure.data:
        return None
    figure.update_layout(showlegend=True)
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    return figure
