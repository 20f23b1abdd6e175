"""What all figures share: the empty axes, the palette, the way a run is drawn."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.graph_objects as go

from servescope.analysis.sample import Floats

# Okabe and Ito's palette: told apart by colour-blind readers too. All stand out from dark paper
# (3:1 and more), the last two not from white (2.3:1): what tells them there are dash and symbol.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_POINTS = 400  # of a line
MOST_DOTS = 2000
LOG = {"type": "log", "minor": {"ticks": "outside"}, "nticks": 8}
INK, FAINT = "#24292f", "#d8dee4"  # templates/style.css knows them and turns them in the dark


def canvas(x: str, y: str, *, log_x: bool = False, **layout: Any) -> go.Figure:
    """Return empty axes with their titles, which are text whatever signs they hold.

    What stands in `layout` by Plotly's names takes the place of ours.
    """
    axis = {"gridcolor": FAINT, "zerolinecolor": FAINT, "linecolor": FAINT, "automargin": True}
    ours = {  # given at once: each update of a figure takes Plotly a millisecond or two
        "template": "none",
        "height": 340,
        "margin": {"l": 56, "r": 12, "t": 36, "b": 48},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "hoverlabel": {"namelength": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"title": {"text": literal(x)}, **(LOG if log_x else {}), **axis},
        "yaxis": {"title": {"text": literal(y)}, **axis},
    }
    return go.Figure(layout={**ours, **layout})


def literal(text: str) -> str:
    """Return text that Plotly shows as it is: in any other it obeys <b>, <a href=...> and &lt;.

    What comes from a trace, a server or a user goes through here on its way to a name, a category
    or a label; `html.unescape` is the way back.
    """
    return escape(text, quote=False)


def line_of(index: int, width: float = 2.0) -> dict[str, Any]:
    """Return the colour and dash of the run of this number; they repeat after many."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "dash": DASHES[index % len(DASHES)],
        "width": width,
    }


def shade(
    figure: go.Figure, low: tuple[Floats, Floats], high: tuple[Floats, Floats], index: int
) -> None:
    """Shade what lies between two lines, each its x and y, in the colour of the run's line."""
    colour = PALETTE[index % len(PALETTE)]
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    figure.add_scatter(
        x=[*short(high[0]), *short(low[0])[::-1]],
        y=[*short(high[1]), *short(low[1])[::-1]],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def short(values: Floats) -> list[float]:
    """Return numbers to five significant digits: more is not seen, and makes a page heavy."""
    return [float(f"{value:.5g}") for value in values]
