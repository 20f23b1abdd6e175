"""The web app: a shell with the way around, and a page for each look at runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component
from dash.exceptions import DependencyException
from flask import Flask, Response
from plotly.offline import get_plotlyjs

from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query
from servescope.dashboards.pages import compare, live, run, runs, slo, trace
from servescope.reports.render import style

# The first stands at the root; those with a name are in the way around.
PAGES: dict[str, ModuleType] = {
    "": runs,
    "run": run,
    "compare": compare,
    "slo": slo,
    "trace": trace,
    "live": live,
}
_WAYS = {"": "Runs", "compare": "Compare", "slo": "SLO explorer", "trace": "Traces", "live": "Live"}


def app_of(library: Library) -> Dash:
    """Make the app of a library; it is served by `dashboards.server`."""
    here = Path(__file__).parent
    app = Dash(
        __name__,
        # Flask looks for the root of a namespace in vain, so it is told where it is
        server=Flask(  # type: ignore[arg-type]  # a server may be given, too
            __name__, root_path=str(here), instance_path=str(here)
        ),
        assets_folder=str(here / "assets"),
        title="servescope",
        update_title=None,  # type: ignore[arg-type]  # None keeps the title as it is
        external_stylesheets=["/style.css"],
        suppress_callback_exceptions=True,  # pages come and go
        add_log_handler=False,
    )
    app.layout = _shell(library)

    app.server.add_url_rule("/style.css", view_func=_style)
    app.server.add_url_rule("/plotly.js", view_func=_plotly)
    app.server.register_error_handler(DependencyException, lambda _: ("Not here.\n", 404))

    @app.callback(
        Output("page", "children"),
        Output("ways", "children"),
        Input("address", "pathname"),
        State("address", "search"),
    )
    def show(path: str | None, search: str | None) -> tuple[Component, list[Component]]:
        name = (path or "").strip("/")
        return _page(library, name, Query.of(search)), _ways(name)

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("servescope", "entitle"),
        Output("entitled", "data"),
        Input("page", "children"),
    )
    for page in PAGES.values():
        page.bind(app, library)
    return app


def _style() -> Response:
    """Answer with the style that reports have, too."""
    return Response(style(), content_type="text/css; charset=utf-8")


def _plotly() -> Response:
    """Answer with the Plotly that reports have."""
    answer = Response(get_plotlyjs(), content_type="text/javascript; charset=utf-8")
    answer.cache_control.max_age = 3600
    return answer


def _shell(library: Library) -> Component:
    return html.Div(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="entitled"),
            html.A("Skip to the page", href="#page", className="skip"),
            html.Header(
                [
                    html.A("servescope", href="/", className="home"),
                    html.Nav(id="ways", **components.aria(label="pages")),
                    html.Span(library.folder.name, className="folder"),
                    html.Button("Light or dark", id="theme", type="button"),
                ]
            ),
            html.Main(id="page", tabIndex="-1"),
        ]
    )


def _ways(current: str) -> list[Component]:
    return [
        html.A(
            label,
            href=f"/{name}",
            **(components.aria(current="page") if name == current else {}),
        )
        for name, label in _WAYS.items()
    ]


def _page(library: Library, name: str, query: Query) -> Component:
    page = PAGES.get(name)
    if page is None:
        return html.Div([html.H1("Not here"), components.doubt(f"There is no page '{name}'.")])
    try:
        made: Component = page.layout(library, query)
    except Exception as error:  # a run that cannot be read is a sentence, and the way around stays
        return components.wrong(error)
    return made
