"""Runs of one plan beside each other: the verdict, how sure it is, and where it comes from."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query, remember, remembered
from servescope.reports import sections_of


def layout(library: Library, query: Query) -> Component:
    """Show which runs are chosen; the comparison follows."""
    chosen = query.get("run", [])
    return html.Div(
        [
            html.H1("Compare"),
            html.Div(
                [
                    components.choice(
                        "Runs, the baseline first",
                        "compare-runs",
                        library.names(),
                        chosen,
                        multi=True,
                    ),
                    components.field(
                        "SLO, else the baseline's",
                        "compare-slo",
                        type="text",
                        value=query.one("slo"),
                        debounce=True,
                        placeholder="ttft<2s,stall<100ms",
                    ),
                ],
                className="bar wide-choice",
            ),
            dcc.Loading(html.Div(id="compare-made", className="part"), delay_show=400),
            *remembered("compare", ("run", []), ("slo", "")),
        ]
    )


def bind(app: Dash, library: Library) -> None:
    """Compare whenever the runs or the SLO change."""
    inputs = Input("compare-runs", "value"), Input("compare-slo", "value")
    remember(app, "compare", *inputs)

    @app.callback(Output("compare-made", "children"), *inputs)
    def show(names: list[str] | None, slo: str | None) -> Any:
        if not names or len(names) < 2:
            return html.P("Choose two runs or more: the same plan, served by two systems.")
        try:
            return components.sections(sections_of(library.story(names, slo or None)))
        except Exception as error:
            return components.wrong(error)
