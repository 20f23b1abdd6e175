"""Figures over the time of a run: latency and the load that it met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import polars as pl

from servescope.analysis.binned import peaks, quantiles_over, rate_over
from servescope.analysis.metrics import METRICS
from servescope.analysis.sample import Floats
from servescope.reports.canvas import (
    DASHES,
    FAINT,
    LOG,
    MOST_DOTS,
    MOST_POINTS,
    PALETTE,
    canvas,
    line_of,
    literal,
    short,
)


def latency(
    calls: Mapping[str, pl.DataFrame], metric: str, servers: Mapping[str, pl.DataFrame]
) -> go.Figure:
    """Draw a metric over time above what arrived and, where servers say it, what waited.

    Few calls are dots, each with its name; many are p50 and a tail of stretches of time: p99 where
    they hold enough calls for it, else p90.
    """
    queues = {name: table for name, table in servers.items() if table["waiting"].count()}
    figure = _stacked(
        (f"{METRICS[metric].label} (ms)", LOG),
        ("due /s", {"rangemode": "tozero"}),
        *([("waiting", {"rangemode": "tozero"})] if queues else []),
    )
    drawn: list[Floats] = []
    for index, (name, table) in enumerate(calls.items()):
        figure.add_traces(_latencies(index, name, table, metric))
        rate = rate_over(table["due_s"])
        due = rate["per_s"].to_numpy()
        if any(len(due) == len(other) and (due == other).all() for other in drawn):
            continue  # the same plan arrives alike
        drawn.append(due)
        figure.add_scatter(
            x=short(rate["t_s"].to_numpy()),
            y=short(due),
            name=literal(f"{name} due"),
            showlegend=False,
            mode="lines",
            line={**line_of(index, 1.5), "shape": "hv"},
            hovertemplate="%{y:.3g}/s from %{x:.5g} s",
            xaxis="x2",
            yaxis="y2",
        )
    for name, table in queues.items():
        waiting = table.group_by("t_s", maintain_order=True).agg(pl.col("waiting").sum())
        moments, counts = waiting["t_s"].to_numpy(), waiting["waiting"].to_numpy()
        moments, counts = peaks(moments, counts, MOST_POINTS)
        figure.add_scatter(
            x=short(moments),
            y=short(counts),
            name=literal(f"{name} waiting"),
            showlegend=False,
            mode="lines",
            line={**line_of(list(calls).index(name), 1.5), "shape": "hv"},
            hovertemplate="%{y:.0f} waiting at %{x:.5g} s",
            xaxis="x3",
            yaxis="y3",
        )
    return figure


_DOMAINS = {
    2: ((0.36, 1.0), (0.0, 0.26)),
    3: ((0.5, 1.0), (0.26, 0.42), (0.0, 0.18)),
}


def _stacked(*rows: tuple[str, dict[str, Any]]) -> go.Figure:
    """Return empty axes of two or three rows over one time: the title of each, and its form.

    They are laid out at once, in a fifth of the time that Plotly's subplots take.
    """
    axis = {"gridcolor": FAINT, "zerolinecolor": FAINT, "linecolor": FAINT, "automargin": True}
    axes: dict[str, Any] = {}
    last = len(rows)
    for row, ((title, form), domain) in enumerate(zip(rows, _DOMAINS[last], strict=True), start=1):
        x, y = ("x", "y") if row == 1 else (f"x{row}", f"y{row}")
        below = {"matches": f"x{last}", "showticklabels": False, "title": {"text": ""}}
        named = {"title": {"text": "s since start"}} if row == last else below
        axes[f"xaxis{x[1:]}"] = {**axis, "anchor": y, "domain": (0.0, 1.0), **named}
        axes[f"yaxis{y[1:]}"] = {
            **axis, **form, "anchor": x, "domain": domain, "title": {"text": title}
        }  # fmt: skip
    return canvas("", "", height=300 + 130 * last, **axes)


def _latencies(index: int, name: str, table: pl.DataFrame, metric: str) -> list[go.Scatter]:
    if table[metric].count() <= MOST_DOTS:
        known = table.drop_nulls(metric)
        return [
            go.Scatter(
                x=short(known["due_s"].to_numpy()),
                y=short(known[metric].to_numpy() * 1000),
                text=known["call_id"].to_list(),
                customdata=[literal(call_id) for call_id in known["call_id"]],
                name=literal(name),
                mode="markers",
                marker={
                    "color": PALETTE[index % len(PALETTE)],
                    "size": 5,
                    "opacity": 0.7,
                    "symbol": index,
                },
                hovertemplate="call %{customdata}<br>due %{x:.5g} s<br>%{y:.1f} ms",
            )
        ]
    bins = quantiles_over(table, "due_s", metric)
    # few bins hold the 299 calls that p99 needs
    tail = "p99" if 2 * bins["p99"].count() > bins.height else "p90"
    drawn = []
    for quantile, width in (("p50", 2.0), (tail, 1.0)):
        of_bins = bins.drop_nulls(quantile)
        drawn.append(
            go.Scatter(
                x=short(of_bins["x"].to_numpy()),
                y=short(of_bins[quantile].to_numpy() * 1000),
                name=literal(f"{name} {quantile}"),
                mode="lines",
                line=line_of(index, width),
                hovertemplate=quantile + " %{y:.1f} ms around %{x:.5g} s",
            )
        )
    return drawn


def in_flight(steps: Mapping[str, tuple[Floats, Floats]]) -> go.Figure:
    """Draw how many calls were sent and not ended, over time."""
    figure = canvas("s since start", "calls in flight")
    figure.update_yaxes(tickformat=",d", rangemode="tozero")
    for index, (name, (moments, counts)) in enumerate(steps.items()):
        moments, counts = peaks(moments, counts, 2 * MOST_POINTS)
        figure.add_scatter(
            x=short(moments),
            y=counts.tolist(),
            name=literal(name),
            mode="lines",
            line={**line_of(index, 1.5), "shape": "hv"},
            hovertemplate="%{y:.0f} in flight at %{x:.2f} s",
        )
    return figure


# What servers say over time: its axis, and how to read it.
QUANTITIES = {
    "running": ("calls running", "Calls that the server computes at once, as it says."),
    "waiting": ("calls waiting", "Calls in the server's queue: what no step had room for."),
    "kv_usage": (
        "KV cache in use",
        "Share of the KV cache in use; near 1, calls wait or are preempted.",
    ),
}


def said_by_servers(series: Mapping[str, pl.DataFrame], quantity: str) -> go.Figure | None:
    """Draw what the servers of each run said over time, a line a replica; None if none says it."""
    title, _ = QUANTITIES[quantity]
    figure = canvas("s since start", title)
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
                    name=literal(name),
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


def arrivals(calls: Mapping[str, pl.DataFrame]) -> go.Figure:
    """Draw what was due a second as a strip, over which a window of time can be dragged."""
    figure = canvas("", "due /s")
    figure.update_layout(
        height=150,
        margin={"l": 56, "r": 12, "t": 8, "b": 28},
        dragmode="select",
        selectdirection="h",
        showlegend=len(calls) > 1,
    )
    figure.update_yaxes(rangemode="tozero", fixedrange=True)
    for index, (name, table) in enumerate(calls.items()):
        rate = rate_over(table["due_s"])
        figure.add_scatter(
            x=short(rate["t_s"].to_numpy()),
            y=short(rate["per_s"].to_numpy()),
            name=literal(name),
            mode="lines",
            line={**line_of(index, 1.5), "shape": "hv"},
            hovertemplate="%{y:.3g}/s from %{x:.5g} s",
        )
    return figure
