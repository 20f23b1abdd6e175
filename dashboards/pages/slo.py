"""The SLO explorer: move a bound, and see who meets it, and how much goodput that is."""

from __future__ import annotations

import math
from typing import Any, Literal

from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from servescope.analysis.metrics import METRICS
from servescope.analysis.thresholds import RANGES, Bounds
from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query, remember, remembered
from servescope.dashboards.plots import Plots, drawn
from servescope.reports import slo_figures
from servescope.reports.blocks import Cell, Column, Figure, Table

_CURVES: dict[Literal["attainment", "goodput"], str] = {
    "attainment": "Share within all bounds, if this bound were the value on the axis.",
    "goodput": "How many are within all bounds, a second of the run.",
}
# At its right end a slider asks nothing.
SLIDERS = {
    "ttft": "TTFT",
    "stall": "Longest stall (largest TBT of a call)",
    "tpot": "TPOT",
    "jct": "JCT (asks programs)",
}
_COLUMNS = (
    Column("run", "run"),
    Column("asked", "asked", "count"),
    Column("met", "met", "count"),
    Column("share", "within SLO", "share"),
    Column("goodput", "goodput /s", "rate"),
)


def layout(library: Library, query: Query) -> Component:
    """Show the runs and the bounds; the curves follow them."""
    sliders = []
    for metric, label in SLIDERS.items():
        low, high = _ends(metric)
        asked = query.number(metric)
        value = high if asked is None or asked <= 0 else min(high, max(low, math.log10(asked)))
        sliders.append(
            html.Div(
                [
                    html.Label([label, " ", html.B(id=f"slo-said-{metric}")]),
                    dcc.Slider(
                        low, high, step=0.01, value=value, id=f"slo-{metric}",
                        marks=_marks(metric), updatemode="drag", allow_direct_input=False,
                    ),
                ],
                className="slider",
                role="group",
                **components.aria(label=label),
            )
        )  # fmt: skip
    return html.Div(
        [
            html.H1("SLO explorer"),
            components.choice(
                "Runs", "slo-runs", library.names(), query.get("run", []), multi=True
            ),
            html.Div(sliders, className="sliders"),
            dcc.RadioItems(
                [{"label": f"over {_short(metric)}", "value": metric} for metric in SLIDERS],
                over if (over := query.one("over")) in SLIDERS else "ttft",
                id="slo-over",
                className="tabs",
                inline=True,
            ),
            html.Div(id="slo-made", className="part"),
            Plots(id={"plots": "slo"}),
            dcc.Store(id="slo-bounds"),
            *remembered(
                "slo", ("run", []), ("over", "ttft"),
                (tuple(SLIDERS), None),
            ),
        ]
    )  # fmt: skip


def bind(app: Dash, library: Library) -> None:
    """Let the curves and the sentence of the SLO follow the bounds at once."""
    runs, over = Input("slo-runs", "value"), Input("slo-over", "value")
    sliders = [Input(f"slo-{metric}", "value") for metric in SLIDERS]
    remember(app, "slo", runs, over, Input("slo-bounds", "data"))

    @app.callback(
        Output("slo-made", "children"),
        Output({"plots": "slo"}, "figures"),
        Output("slo-bounds", "data"),
        *(Output(f"slo-said-{metric}", "children") for metric in SLIDERS),
        runs,
        over,
        *sliders,
    )
    def show(names: list[str] | None, over: str, *places: float) -> Any:
        bounds = [
            None if place >= _ends(metric)[1] - 1e-9 else float(f"{10**place:.3g}")
            for metric, place in zip(SLIDERS, places, strict=True)
        ]
        said = [_told(bound) for bound in bounds]
        try:
            words, figures = _made(library, names or [], over, Bounds(*bounds))
        except Exception as error:
            words, figures = [components.wrong(error)], []
        return words, drawn(figures), bounds, *said


def _made(
    library: Library, names: list[str], over: str, bounds: Bounds
) -> tuple[list[Component], list[Figure]]:
    if not names:
        return [html.P("Choose one run or more.")], []
    asked = {name: library.bounds(name) for name in names}
    rows: list[dict[str, Cell]] = []
    for name, each in asked.items():
        met = each.attained(bounds)
        rows.append(
            {"run": name, "asked": met.asked, "met": met.met, "share": met.share,
             "goodput": met.goodput_rps}
        )  # fmt: skip
    text = _slo_text(bounds)
    says = f"Failures are misses. The same in a report or a replay: --slo '{text}'" if text else ""
    words = [components.table(Table(_COLUMNS, rows, says))]
    curves = {name: each.curve(bounds, over) for name, each in asked.items()}
    grid_s = next(iter(curves.values())).grid_s
    per = next(iter(curves.values())).per
    figures = []
    for what, says in _CURVES.items():
        curve_of = slo_figures.over_threshold(
            {name: getattr(curve, what) for name, curve in curves.items()},
            grid_s,
            _short(over),
            what=what,
            at_s=bounds.asked.get(over),
            per=per,
        )
        figures.append(Figure(curve_of, says))
    return words, figures


def _slo_text(bounds: Bounds) -> str:
    return ",".join(f"{metric}<{bound * 1000:g}ms" for metric, bound in bounds.asked.items())


def _short(metric: str) -> str:
    return METRICS[metric].label


def _ends(metric: str) -> tuple[float, float]:
    """Return the ends of a slider, as powers of ten of seconds."""
    low_s, high_s = RANGES[metric]
    return math.log10(low_s), math.log10(high_s)


def _told(bound: float | None) -> str:
    if bound is None:
        return "any"
    return f"< {bound:g} s" if bound >= 1 else f"< {bound * 1000:g} ms"


def _marks(metric: str) -> dict[float, str]:
    """Return a mark at each power of ten."""
    low, high = _ends(metric)
    powers = range(math.ceil(low), math.ceil(high))
    return {**{float(power): _told(10.0**power)[2:] for power in powers}, high: "any"}
