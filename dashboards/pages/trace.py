"""What traffic is like: a trace, a run's demand, or a real one beside a synthetic one."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query, remember, remembered
from servescope.reports.trace_sections import sections_of


def layout(library: Library, query: Query) -> Component:
    """Show which traces are chosen; what they are like follows."""
    names = [*library.traces, *library.names()]
    return html.Div(
        [
            html.H1("Traces"),
            html.Div(
                [
                    components.choice(
                        "Trace, or run", "trace-one", names, query.one("trace") or None
                    ),
                    components.choice(
                        "Beside it", "trace-beside", names, query.one("beside") or None
                    ),
                ],
                className="bar wide-choice",
            ),
            html.P(
                "Name traces of your own at the start: servescope dashboard RUNS --trace FILE.",
                className="says",
            ),
            dcc.Loading(html.Div(id="trace-made", className="part"), delay_show=400),
            *remembered("trace", ("trace", None), ("beside", None)),
        ]
    )


def bind(app: Dash, library: Library) -> None:
    """Characterise whenever the choice changes."""
    inputs = Input("trace-one", "value"), Input("trace-beside", "value")
    remember(app, "trace", *inputs)

    @app.callback(Output("trace-made", "children"), *inputs)
    def show(one: str | None, beside: str | None) -> Any:
        if not one:
            return html.P("Choose a trace.")
        try:
            found = [library.characterized(name) for name in dict.fromkeys((one, beside)) if name]
            return components.sections(sections_of(found))
        except Exception as error:
            return components.wrong(error)
