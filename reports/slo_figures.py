"""Figures of an SLO that is being looked for: what comes of moving one of its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import plotly.graph_objects as go

from servescope.analysis.sample import Floats
from servescope.reports.canvas import INK, canvas, line_of, literal, short


def over_threshold(
    curves: Mapping[str, Floats],
    grid_s: Floats,
    label: str,
    *,
    what: Literal["attainment", "goodput"],
    at_s: float | None = None,
    per: str = "calls",
) -> go.Figure:
    """Draw the attainment (a share) or the goodput (a second) of runs over one bound.

    `curves` has a value a place of `grid_s` by run, `label` names the bound, which stands at `at_s`
    now; None is no bound.
    """
    share = what == "attainment"
    figure = canvas(
        f"{label} below (ms)",
        f"{per} within the SLO" if share else f"goodput ({per}/s)",
        log_x=True,
    )
    if share:
        figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    else:
        figure.update_yaxes(rangemode="tozero")
    said = "%{y:.1%}" if share else "%{y:.4g}/s"
    for index, (name, values) in enumerate(curves.items()):
        figure.add_scatter(
            x=short(grid_s * 1000),
            y=short(values),
            name=literal(name),
            mode="lines",
            line=line_of(index),
            hovertemplate=f"{said} below %{{x:.4g}} ms",
        )
    if at_s is not None:
        figure.add_vline(x=at_s * 1000, line={"color": INK, "width": 1})
    return figure
