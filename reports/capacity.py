"""The page of a search for capacity: the answer, the curve of burn over load, and every probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from servescope.analysis.capacity import Capacity, Probe, rows_of, torn
from servescope.reports import render
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table
from servescope.reports.canvas import FAINT, INK, LOG, PALETTE, canvas, short

FLOOR = 0.01  # where probes are drawn that missed nothing, or next to nothing
_SYMBOLS = {"bracket": "circle-open", "measure": "circle", "confirm": "star"}
_COLUMNS = (
    Column("run", "probe"),
    Column("load", "load", "ratio"),
    Column("seconds", "length (s)", "rate"),
    Column("stage", "to"),
    Column("burn", "burn rate", "ratio"),
    Column("condition", "condition that is worst off"),
)


def write_page(
    title: str,
    verdict: str,
    slo: str,
    probes: Sequence[Probe],
    found: Capacity | None,
    runs: Sequence[str],
    doubts: Sequence[str],
    unit: str,
    out: Path,
) -> Path:
    """Write the page, replacing one of before; returns its path.

    `runs` are the run directories of the probes.
    """
    sections = sections_of(verdict, slo, probes, found, runs, doubts, unit)
    out.write_text(render.html(title, sections), encoding="utf-8")
    return out


def sections_of(
    verdict: str,
    slo: str,
    probes: Sequence[Probe],
    found: Capacity | None,
    runs: Sequence[str],
    doubts: Sequence[str],
    unit: str,
) -> list[Section]:
    """Return the answer and its doubts, the curve, and a row a probe."""
    notes = [Note("verdict", verdict), *(Note("doubt", doubt, "Doubt") for doubt in doubts)]
    rows: list[dict[str, Cell]] = [
        {"run": run, **row} for run, row in zip(runs, rows_of(probes), strict=True)
    ]
    says = (
        f"The SLO is {slo}. A burn rate says how many times more of it missed than may; 1 is the"
        " limit. The warm-up of each probe, twice its longest call, is left out."
    )
    reads = (
        "Each point is a probe, a larger one lasted longer; those on the bottom line missed next to"
        " nothing."
    )
    if not torn(probes):
        reads += " The grey band reaches from the lower bound to the estimate."
    picture = Figure(curve(probes, found, unit), reads, wide=True)
    return [
        Section("verdict", "Capacity", tuple(notes)),
        Section("curve", "Burn rate over load", (picture,)),
        Section("probes", "Every probe", (Table(_COLUMNS, rows, says),)),
    ]


def curve(probes: Sequence[Probe], found: Capacity | None, unit: str) -> go.Figure:
    """Draw the burn rate of each probe over its load, and the curve that was fitted to them."""
    figure = canvas(f"load ({unit})", "burn rate", log_x=True)
    figure.update_yaxes(**LOG)
    if found is not None:
        _draw_fit(figure, probes, found)
    longest = max((probe.seconds for probe in probes), default=1.0)
    for stage, symbol in _SYMBOLS.items():
        those = [probe for probe in probes if probe.stage == stage]
        if those:
            figure.add_scatter(
                x=[probe.load for probe in those],
                y=[max(probe.rate, FLOOR) for probe in those],
                customdata=[[probe.seconds, probe.rate] for probe in those],
                name=f"to {stage}",
                mode="markers",
                marker={
                    "color": PALETTE[1 if stage == "confirm" else 0],
                    "symbol": symbol,
                    "size": [7 + 9 * (probe.seconds / longest) ** 0.5 for probe in those],
                },
                hovertemplate="%{x:.4g}: %{customdata[1]:.3g} (%{customdata[0]:.0f} s)",
            )
    figure.add_hline(y=1, line={"color": INK, "width": 1})
    return figure


def _draw_fit(figure: go.Figure, probes: Sequence[Probe], found: Capacity) -> None:
    if not torn(probes):
        figure.add_vrect(x0=found.low, x1=found.load, fillcolor=FAINT, opacity=0.6, line_width=0)
    burns = [b for probe in probes for b in probe.burns if b.condition == found.condition]
    loads = np.geomspace(found.load / 1.5, found.load * 1.5, 120)
    rates = found.burn_at(loads, burns[0].allowed, share=burns[0].kind == "share")
    drawn = (rates > FLOOR) & (rates < 100)
    figure.add_scatter(
        x=short(loads[drawn]),
        y=short(rates[drawn]),
        name="fit",
        mode="lines",
        line={"color": INK, "width": 1.5},
        hoverinfo="skip",
    )
