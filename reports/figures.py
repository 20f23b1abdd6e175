"""The figures, one function each; every one draws one run or several over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl

from servescope.analysis.binned import quantiles_over
from servescope.analysis.comparison import Comparison
from servescope.analysis.metrics import JCT_PARTS, METRICS
from servescope.analysis.sample import Sample
from servescope.reports.canvas import (
    FAINT,
    INK,
    LOG,
    MOST_POINTS,
    PALETTE,
    canvas,
    line_of,
    literal,
    short,
)

FEW_VALUES = 1000
PATTERNS = ("", "/", "x", ".", "+")


def ccdf(values: Mapping[str, Sample], metric: str) -> go.Figure:
    """Draw the share of values above x on two log axes: the tail is where schedulers differ."""
    figure = canvas(f"{METRICS[metric].label} (ms)", "share above", log_x=True)
    figure.update_yaxes(**LOG, tickformat="~%")
    if all(len(sample) < FEW_VALUES for sample in values.values()):
        figure.update_yaxes(dtick="D2")  # of few decades Plotly names every digit, one over another
    for index, (name, sample) in enumerate(values.items()):
        keep = _spread(len(sample.values))
        below = np.cumsum(sample.weights)[keep] - sample.weights[keep]
        share = 1 - below / max(1, len(sample))
        figure.add_scatter(
            x=short(sample.values[keep] * 1000),
            y=short(share),
            name=literal(name),
            mode="lines",
            line=line_of(index),
            hovertemplate="%{y:.2%} above %{x:.1f} ms",
        )
    return figure


def over_length(calls: Mapping[str, pl.DataFrame], metric: str) -> go.Figure:
    """Draw p50 and p99 of a metric over the length of the prompt."""
    figure = canvas("input tokens", f"{METRICS[metric].label} (ms)", log_x=True)
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(calls.items()):
        bins = quantiles_over(table, "input_tokens", metric, bins=40, logarithmic=True)
        for quantile, width in (("p50", 2.0), ("p99", 1.0)):
            known = bins.drop_nulls(quantile)
            if known.is_empty():
                continue
            figure.add_scatter(
                x=short(known["x"].to_numpy()),
                y=short(known[quantile].to_numpy() * 1000),
                customdata=known["n"].to_list(),
                name=literal(f"{name} {quantile}"),
                mode="lines+markers",
                line=line_of(index, width),
                marker={"size": 4 + width, "symbol": index},
                hovertemplate="%{x:,.0f} tokens: %{y:.1f} ms (%{customdata} calls)",
            )
    return figure


def parts_of_jct(parts: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Draw mean JCT of each run as a bar of its parts (s)."""
    figure = canvas("mean JCT (s)", "")
    figure.update_layout(barmode="stack", height=160 + 44 * len(parts))
    for index, part in enumerate(JCT_PARTS):
        if not any(of_run.get(part) for of_run in parts.values()):
            continue
        figure.add_bar(
            y=[literal(name) for name in parts],
            x=[of_run.get(part) for of_run in parts.values()],
            name=METRICS[part].label.removeprefix("JCT: "),
            orientation="h",
            marker={"color": PALETTE[index], "pattern": {"shape": PATTERNS[index]}},
            hovertemplate="%{x:.3g} s",
        )
    figure.update_yaxes(autorange="reversed")
    return figure


def attainment_curve(
    scales: Sequence[float], curves: Mapping[str, Sequence[float]], per: str
) -> go.Figure:
    """Draw the share within the SLO when all its bounds are so many times as loose."""
    figure = canvas("SLO scale", f"{per} within the SLO", log_x=True)
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    for index, (name, shares) in enumerate(curves.items()):
        figure.add_scatter(
            x=short(np.asarray(scales)),
            y=short(np.asarray(shares)),
            name=literal(name),
            mode="lines",
            line=line_of(index),
            hovertemplate="%{y:.1%} at %{x:.2f} times the SLO",
        )
    figure.add_vline(x=1, line={"color": INK, "width": 1})
    return figure


def lengths(calls: pl.DataFrame) -> go.Figure:
    """Draw each call's prompt against its answer, in tokens."""
    figure = canvas("input tokens", "output tokens", log_x=True)
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
    """Draw every ratio to the baseline with its 95 % interval around the line of no difference."""
    labels = list(
        dict.fromkeys(
            row.label
            for challenge in comparison.challenges
            for row in challenge.differences
            if row.ratio is not None
        )
    )[::-1]
    several = len(comparison.challenges) > 1
    over = "" if several else f"{comparison.challenges[0].name} "
    baseline = comparison.baseline
    figure = canvas(f"{over}/ {baseline} (below 1: faster than {baseline})", "")
    figure.update_xaxes(**LOG)
    figure.update_layout(height=130 + 26 * len(labels) * len(comparison.challenges))
    margin = 1 + comparison.margin
    figure.add_vrect(x0=1 / margin, x1=margin, fillcolor=FAINT, opacity=0.5, line_width=0)
    for index, challenge in enumerate(comparison.challenges):
        for verdict, (colour, symbol) in _VERDICTS.items():
            rows = [
                row
                for row in challenge.differences
                if row.ratio is not None and (row.verdict == verdict or verdict == "")
            ]
            chosen = [(row.label, row.ratio) for row in rows if row.ratio]
            if several != (verdict == "") or not chosen:
                continue  # of several challengers the colour says which, of one what came of it
            colour = PALETTE[index % len(PALETTE)] if several else colour
            figure.add_scatter(
                x=[ratio.estimate for _, ratio in chosen],
                y=[label for label, _ in chosen],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [ratio.high - ratio.estimate for _, ratio in chosen],
                    "arrayminus": [ratio.estimate - ratio.low for _, ratio in chosen],
                    "color": colour,
                },
                mode="markers",
                name=literal(challenge.name if several else f"{challenge.name} {verdict}"),
                marker={"color": colour, "symbol": index if several else symbol, "size": 9},
                hovertemplate="%{y}: %{x:.2f}",
            )
    figure.add_vline(x=1, line={"color": INK, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=labels)
    if several:
        figure.update_layout(scattermode="group")
    return figure


_VERDICTS = {
    "better": (PALETTE[2], "circle"),
    "worse": (PALETTE[1], "square"),
    "equivalent": (PALETTE[0], "diamond"),
    "cannot tell": ("#6e7781", "diamond-open"),
    "": (INK, "circle"),
}


def _spread(count: int) -> Sequence[int]:
    """Return indices of at most MOST_POINTS ranks, denser towards the tail."""
    if count <= MOST_POINTS:
        return range(count)
    body = np.linspace(0, count - 1, MOST_POINTS // 2)
    tail = count - np.geomspace(1, count, MOST_POINTS // 2)
    return [int(i) for i in np.unique(np.concatenate([body, tail]).astype(int))]
