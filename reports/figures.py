"""The figures, one function each; every one draws one run or several over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl

from servescope.analysis.comparison import Comparison
from servescope.analysis.metrics import METRICS
from servescope.analysis.sample import Sample

# Okabe and Ito's palette: told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_POINTS = 400
LOG = {"type": "log", "minor": {"ticks": "outside"}, "nticks": 8}
INK, FAINT = "#24292f", "#d8dee4"


def _canvas(x: str, y: str, *, log_x: bool = False) -> go.Figure:
    figure = go.Figure()
    axis = {"gridcolor": FAINT, "zerolinecolor": FAINT, "linecolor": FAINT, "automargin": True}
    figure.update_layout(
        template="none",
        height=340,
        margin={"l": 56, "r": 12, "t": 36, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(title=x, **(LOG if log_x else {}), **axis)
    figure.update_yaxes(title=y, **axis)
    return figure


def ccdf(values: Mapping[str, Sample], metric: str) -> go.Figure:
    """Draw the share of values above x on two log axes: the tail is where schedulers differ."""
    figure = _canvas(f"{METRICS[metric].label} (ms)", "share above", log_x=True)
    figure.update_yaxes(**LOG, tickformat="~%")
    for index, (name, sample) in enumerate(values.items()):
        ranked = sample.values * 1000
        upto = np.cumsum(sample.weights)
        share = 1 - (upto - sample.weights) / max(1, len(sample))
        keep = _spread(len(ranked))
        figure.add_scatter(
            x=ranked[keep],
            y=share[keep],
            name=name,
            mode="lines",
            line={"color": PALETTE[index], "dash": DASHES[index], "width": 2},
            hovertemplate="%{y:.2%} above %{x:.1f} ms",
        )
    return figure


def over_time(calls: Mapping[str, pl.DataFrame], metric: str) -> go.Figure:
    """Draw a metric of every call against the moment it was due."""
    figure = _canvas("due (s since start)", f"{METRICS[metric].label} (ms)")
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(calls.items()):
        known = table.drop_nulls(metric)
        figure.add_scatter(
            x=known["due_s"].to_list(),
            y=(known[metric] * 1000).to_list(),
            text=known["call_id"].to_list(),
            name=name,
            mode="markers",
            marker={"color": PALETTE[index], "size": 5, "opacity": 0.7, "symbol": index},
            hovertemplate="call %{text}<br>due %{x:.2f} s<br>%{y:.1f} ms",
        )
    return figure


def in_flight(calls: Mapping[str, pl.DataFrame]) -> go.Figure:
    """Draw how many calls were sent and not ended, over time."""
    figure = _canvas("s since start", "calls in flight")
    figure.update_yaxes(tickformat=",d", rangemode="tozero")
    for index, (name, table) in enumerate(calls.items()):
        sent = table.drop_nulls("sent_s")
        moments = np.concatenate([sent["sent_s"].to_numpy(), sent["end_s"].to_numpy()])
        steps = np.concatenate([np.ones(sent.height), -np.ones(sent.height)])
        order = np.argsort(moments, kind="stable")
        figure.add_scatter(
            x=moments[order],
            y=np.cumsum(steps[order]),
            name=name,
            mode="lines",
            line={"color": PALETTE[index], "dash": DASHES[index], "shape": "hv", "width": 1.5},
            hovertemplate="%{y:.0f} in flight at %{x:.2f} s",
        )
    return figure


def said_by_servers(series: Mapping[str, pl.DataFrame], quantity: str) -> go.Figure | None:
    """Draw what the servers of each run said over time, a line a replica; None if none says it."""
    titles = {"running": "calls running", "waiting": "calls waiting", "kv_usage": "KV cache in use"}
    figure = _canvas("s since start", titles[quantity])
    figure.update_yaxes(rangemode="tozero", tickformat="~%" if quantity == "kv_usage" else ",~r")
    number = 0
    for run, table in series.items():
        replicas = table.partition_by("replica", maintain_order=True)
        for replica in replicas:
            if replica[quantity].is_not_null().any():
                url = replica["replica"][0].partition("://")[2]
                name = ", ".join(
                    ([run] if len(series) > 1 or len(replicas) == 1 else [])
                    + ([url] if len(replicas) > 1 else [])
                )
                figure.add_scatter(
                    x=replica["t_s"].to_list(),
                    y=replica[quantity].to_list(),  # a null is a hole in the line
                    name=name,
                    mode="lines",
                    line={
                        "color": PALETTE[number % len(PALETTE)],
                        "dash": DASHES[number % len(DASHES)],
                        "shape": "hv",
                        "width": 1.5,
                    },
                    hovertemplate="%{y} at %{x:.1f} s",
                )
            number += 1
    figure.update_layout(height=340 + 19 * max(0, len(figure.data) - 4))  # a legend of many lines
    return figure if figure.data else None


def lengths(calls: pl.DataFrame) -> go.Figure:
    """Draw each call's prompt against its answer, in tokens."""
    figure = _canvas("input tokens", "output tokens", log_x=True)
    figure.update_yaxes(**LOG)
    figure.add_scatter(
        x=calls["input_tokens"].to_list(),
        y=calls["output_tokens"].to_list(),
        mode="markers",
        marker={"color": PALETTE[0], "size": 5, "opacity": 0.5},
        hovertemplate="%{x} in, %{y} out",
        showlegend=False,
    )
    return figure


def forest(comparison: Comparison) -> go.Figure:
    """Draw every ratio B / A with its 95 % interval around the line of no difference."""
    rows = [row for row in comparison.differences if row.ratio is not None][::-1]
    figure = _canvas(f"{comparison.b} / {comparison.a} (below 1: {comparison.b} is faster)", "")
    figure.update_xaxes(**LOG)
    figure.update_layout(height=120 + 26 * len(rows))
    colours = {"better": PALETTE[2], "worse": PALETTE[1], "indistinguishable": "#6e7781"}
    symbols = {"better": "circle", "worse": "square", "indistinguishable": "diamond-open"}
    for verdict in colours:
        chosen = [row for row in rows if row.verdict == verdict]
        ratios = [row.ratio for row in chosen if row.ratio]
        figure.add_scatter(
            x=[ratio.estimate for ratio in ratios],
            y=[row.label for row in chosen],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [ratio.high - ratio.estimate for ratio in ratios],
                "arrayminus": [ratio.estimate - ratio.low for ratio in ratios],
                "color": colours[verdict],
            },
            mode="markers",
            name=f"{comparison.b} {verdict}",
            marker={"color": colours[verdict], "symbol": symbols[verdict], "size": 9},
            hovertemplate="%{y}: %{x:.2f}",
        )
    figure.add_vline(x=1, line={"color": INK, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=[row.label for row in rows])
    return figure


def _spread(count: int) -> Sequence[int]:
    """Return indices of at most MOST_POINTS ranks, denser towards the tail."""
    if count <= MOST_POINTS:
        return range(count)
    body = np.linspace(0, count - 1, MOST_POINTS // 2)
    tail = count - np.geomspace(1, count, MOST_POINTS // 2)
    return [int(i) for i in np.unique(np.concatenate([body, tail]).astype(int))]
