"""Figures of one program: what each of its calls did, and the gaps between the chunks of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
from polars import col

from servescope.analysis.binned import peaks
from servescope.analysis.timeline import STAGES, Stage, Timeline
from servescope.reports.canvas import INK, MOST_POINTS, PALETTE, canvas, literal, short

MOST_CALLS = 100  # of a timeline
# Colour and pattern: those of figures.parts_of_jct where it knows the stage.
_LOOKS: dict[Stage, tuple[str, str]] = {
    "pause": (PALETTE[0], ""),
    "wait": (PALETTE[1], "/"),
    "connect": (PALETTE[1], "\\"),
    "queue": (PALETTE[5], "-"),
    "prefill": (PALETTE[2], ""),
    "first_token": (PALETTE[2], "x"),
    "decode": (PALETTE[3], "."),
    "closing": (PALETTE[4], "+"),
    "failed": ("#6e7781", "|"),
}
_LONGEST_NAME = 16  # of a lane
_LONGEST_ERROR = 120


def timeline(told: Timeline) -> go.Figure:
    """Draw a lane a call and a bar a stage, in seconds since the program's first call was due.

    The calls of the critical path are outlined, failures marked where they ended. Of more than
    MOST_CALLS calls those of the critical path come first, then those that took longest. A point's
    `customdata` begins with the name of its call.
    """
    calls = _shown(told)
    lanes = {call_id: lane for lane, call_id in enumerate(calls["call_id"])}
    several = (
        "" if len(lanes) == told.calls.height else f"{len(lanes)} of {told.calls.height} calls"
    )
    figure = canvas("s since the program began", several)
    stages = told.stages.join(calls, on="call_id", maintain_order="left")
    for stage, (colour, pattern) in _LOOKS.items():
        rows = stages.filter(col("stage") == stage).to_dicts()
        if not rows:
            continue
        figure.add_bar(
            y=[lanes[row["call_id"]] for row in rows],
            base=short(np.array([row["from_s"] for row in rows])),
            x=short(np.array([row["until_s"] - row["from_s"] for row in rows])),
            customdata=[[row["call_id"], _said(row)] for row in rows],
            name=STAGES[stage],
            orientation="h",
            width=0.8,
            marker={"color": colour, "pattern": {"shape": pattern}},
            hovertemplate="%{customdata[1]}<extra></extra>",
        )
    _outline(figure, stages.filter("on_path"), lanes)
    _mark_failures(figure, stages.filter(col("stage") == "failed").to_dicts(), lanes)
    figure.update_layout(
        barmode="overlay",
        height=200 + 24 * max(2, len(lanes)),  # on a phone the legend takes half of it
        legend={"font": {"size": 12}},
    )
    figure.update_yaxes(
        tickvals=list(lanes.values()),
        ticktext=[literal(_tail(call_id)) for call_id in lanes],
        range=[len(lanes) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(zeroline=False)
    return figure


def chunk_gaps(gaps: pl.DataFrame, p99_s: float | None = None) -> go.Figure:
    """Draw the gaps of one call (`Timeline.gaps`) where they ended, and the run's p99 as a line."""
    figure = canvas("s since the program began", "gap between chunks (ms)")
    figure.update_yaxes(rangemode="tozero")
    place = np.arange(gaps.height, dtype=np.float64)
    kept = gaps[peaks(place, gaps["gap_s"].to_numpy(), 2 * MOST_POINTS)[0].astype(np.int64)]
    figure.add_scatter(
        x=short(kept["t_s"].to_numpy()),
        y=short(kept["gap_s"].to_numpy() * 1000),
        text=[_tokens(count) for count in kept["tokens"]],
        mode="lines+markers",
        line={"color": PALETTE[0], "width": 1},
        marker={"color": PALETTE[0], "size": 5},
        hovertemplate="%{y:.1f} ms before a chunk%{text} at %{x:.3f} s<extra></extra>",
        showlegend=False,
    )
    if p99_s is not None:
        figure.add_hline(
            y=p99_s * 1000,
            line={"color": INK, "width": 1, "dash": "dot"},
            annotation={
                "text": f"p99 of the run: {p99_s * 1000:.3g} ms",
                "xanchor": "right",
                "yanchor": "bottom",
            },
        )
    return figure


def _shown(told: Timeline) -> pl.DataFrame:
    """Return the calls that have a stage, at most MOST_CALLS of them, in their order."""
    took = told.stages.group_by("call_id").agg(took_s=col("until_s").max() - col("from_s").min())
    calls = told.calls.join(took, on="call_id", maintain_order="left")
    return calls.sort(~col("on_path"), -col("took_s"), "lane").head(MOST_CALLS).sort("lane")


def _said(row: dict[str, Any]) -> str:
    """Return what hovers over a stage, in lines; what others wrote is shown as it is."""
    stage = STAGES[row["stage"]]
    if row["stage"] == "pause":
        stage += f" of a {row['delay_kind']}" if row["delay_kind"] in ("user", "tool") else ""
    turn = "" if row["turn"] is None else f", turn {row['turn'] + 1}"
    took_ms = 1000 * (row["until_s"] - row["from_s"])
    lines = [
        f"call {row['call_id']}{turn}",
        f"{stage}: {took_ms:,.1f} ms, from {row['from_s']:.3f} s",
    ]
    if row["input_tokens"] is not None:
        answer = row["output_tokens"]
        lines.append(f"{row['input_tokens']:,} tokens in, {'no' if answer is None else answer} out")
    if row["stage"] == "failed":
        lines.append(f"{row['status']}: {row['error'] or 'nothing said'}"[:_LONGEST_ERROR])
    if row["on_path"]:
        lines.append("on the critical path")
    return "<br>".join(map(literal, lines))


def _outline(figure: go.Figure, stages: pl.DataFrame, lanes: dict[str, int]) -> None:
    """Outline each call of the critical path, its pause included."""
    spans = stages.group_by("call_id", maintain_order=True).agg(
        col("from_s").min(), col("until_s").max()
    )
    for call_id, begin, end in spans.iter_rows():
        lane = lanes[call_id]
        figure.add_shape(
            type="rect", x0=begin, x1=end, y0=lane - 0.46, y1=lane + 0.46,
            line={"color": INK, "width": 2},
        )  # fmt: skip
    if spans.height:
        figure.add_scatter(
            x=[None],
            y=[None],
            name="critical path",
            mode="markers",
            marker={"symbol": "square-open", "size": 12, "color": INK, "line": {"width": 2}},
        )


def _mark_failures(
    figure: go.Figure, failures: list[dict[str, Any]], lanes: dict[str, int]
) -> None:
    """Mark where calls failed: a refusal takes no time and would have no bar."""
    if failures:
        figure.add_scatter(
            x=short(np.array([row["until_s"] for row in failures])),
            y=[lanes[row["call_id"]] for row in failures],
            customdata=[[row["call_id"], _said(row)] for row in failures],
            mode="markers",
            marker={"symbol": "x", "size": 10, "color": INK},
            hovertemplate="%{customdata[1]}<extra></extra>",
            showlegend=False,
        )


def _tail(call_id: str) -> str:
    """Return the end of a long name: it is what tells the calls of a program apart."""
    return call_id if len(call_id) <= _LONGEST_NAME else f"…{call_id[1 - _LONGEST_NAME :]}"


def _tokens(count: int | None) -> str:
    return "" if count is None else f" of {count} token{'' if count == 1 else 's'}"
