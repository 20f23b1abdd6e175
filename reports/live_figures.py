"""Figures of a run in progress, of a row a second: columns that it does not know yet are left out.

Rows have t_s (s since start), the calls that were planned, sent, done and failed in that second,
in_flight, and quantiles over the last seconds such as ttft_p99_s and lag_p50_s, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import plotly.graph_objects as go
import polars as pl

from servescope.analysis.binned import peaks
from servescope.analysis.metrics import METRICS, QUANTILES
from servescope.reports import timelines
from servescope.reports.blocks import Figure
from servescope.reports.canvas import LOG, MOST_POINTS, canvas, line_of, short

FEW = 8
_COUNTS = ("planned", "sent", "done", "failed")
_OF_LATENCIES = {
    "ttft": "Time to first token of the calls that got one in the last seconds.",
    "tbt": "Gaps between tokens of the calls that ended in the last seconds.",
    "tpot": "Mean time a token of the calls that ended in the last seconds.",
    "lag": "How late the client itself came to its calls: above some milliseconds, the numbers say"
    " more of the client than of the server.",
}


def pictures(name: str, seconds: pl.DataFrame, servers: pl.DataFrame) -> list[Figure]:
    """Draw all that is known of a run called `name`: counts, load, latencies, lag, its servers.

    `servers` has a row a scrape: t_s, replica, running, waiting, kv_usage.
    """
    return list(_pictures(name, seconds, servers))


def _pictures(name: str, seconds: pl.DataFrame, servers: pl.DataFrame) -> Iterator[Figure]:
    if seconds.is_empty():
        return
    yield Figure(counts(seconds), "Calls that were to be sent, were sent, and ended, a second.")
    yield Figure(in_flight(seconds), "Calls sent and not ended: the load that is there.")
    for metric, says in _OF_LATENCIES.items():
        picture = latency(seconds, metric)
        if picture is not None:
            yield Figure(picture, says)
    if servers.height:
        for quantity, (_, says) in timelines.QUANTITIES.items():
            picture = timelines.said_by_servers({name: servers}, quantity)
            if picture is not None:
                yield Figure(picture, says)


def counts(seconds: pl.DataFrame) -> go.Figure:
    """Draw how many calls were planned, sent, done and failed in each second."""
    figure = _lines(seconds, "calls /s", dict(zip(_COUNTS, _COUNTS, strict=True)), "%{y:,.4g}/s")
    figure.update_yaxes(rangemode="tozero")
    return figure


def in_flight(seconds: pl.DataFrame) -> go.Figure:
    """Draw how many calls were sent and had not ended."""
    figure = _lines(seconds, "calls in flight", {"in_flight": "in flight"}, "%{y:,.0f} in flight")
    figure.update_yaxes(rangemode="tozero", tickformat=",d")
    if "in_flight" in seconds.columns and seconds["in_flight"].max() in range(FEW):
        figure.update_yaxes(dtick=1)  # else half a call is named, and rounded
    return figure


def latency(seconds: pl.DataFrame, metric: str) -> go.Figure | None:
    """Draw the rolling quantiles of a metric (ms) on a log axis; None where none is known."""
    named = {f"{metric}_{quantile}_s": quantile for quantile in QUANTILES}
    title = f"{METRICS[metric].label} (ms)"
    figure = _lines(seconds, title, named, "%{y:.4g} ms", factor=1000.0)
    figure.update_yaxes(**LOG)
    return figure if figure.data else None


def _lines(
    seconds: pl.DataFrame, title: str, named: Mapping[str, str], says: str, factor: float = 1.0
) -> go.Figure:
    """Draw columns under their names; a second of which nothing is known is a hole in a line."""
    figure = canvas("s since start", title)
    for index, (column, name) in enumerate(named.items()):
        if column not in seconds.columns or not seconds[column].count():
            continue
        at, values = (seconds[each].cast(pl.Float64).to_numpy() for each in ("t_s", column))
        if len(at) > 2 * MOST_POINTS:
            known = ~np.isnan(values)
            at, values = peaks(at[known], values[known], 2 * MOST_POINTS)
        figure.add_scatter(
            x=short(at),
            y=short(values * factor),
            name=name,
            mode="lines",
            line={**line_of(index, 1.5), "shape": "hv"},
            hovertemplate=f"{says} at %{{x:.0f}} s",
        )
    figure.update_layout(showlegend=len(named) > 1)
    return figure
