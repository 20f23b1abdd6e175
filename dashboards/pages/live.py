"""A run in progress: how far it is, how well it goes, and whether it can be believed so far."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from servescope.analysis.progress import Progress
from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query, href
from servescope.dashboards.plots import Plots, drawn
from servescope.reports import live_figures
from servescope.reports.blocks import Column
from servescope.traces.live import Live
from servescope.traces.run import RunInfo

EVERY_S = 0.7  # with the second after which a run says more, less than two behind
MOST_OTHERS = 20
_COUNT, _MS, _SHARE = (Column("", "", form) for form in ("count", "ms", "share"))


def layout(library: Library, query: Query) -> Component:
    """Show the run, or which there are to watch; what it says comes every second."""
    name = query.one("run")
    if not name:
        return html.Div([html.H1("Live"), *_choose(library)])
    library.run(name)  # a run that is none is said at once
    return html.Div(
        [
            html.H1(f"Live: {name}"),
            html.Div(id="live-made"),
            Plots(id={"plots": "live"}),
            dcc.Interval(id="live-tick", interval=int(EVERY_S * 1000)),
            dcc.Store(id="live-asked", data=name),
        ]
    )


def bind(app: Dash, library: Library) -> None:
    """Look at the run again and again, until it has ended."""

    @app.callback(
        Output("live-made", "children"),
        Output({"plots": "live"}, "figures"),
        Output("live-tick", "disabled"),
        Input("live-tick", "n_intervals"),
        State("live-asked", "data"),
    )
    def look(_: int | None, name: str) -> Any:
        try:
            with library.following(name) as progress:
                return _shown(name, library.run(name).info, progress)
        except Exception as error:
            return components.wrong(error), [], False


def _choose(library: Library) -> list[Component]:
    listed = library.listed()
    going = [run.name for run in listed if run.live]
    if going:
        return [
            html.P("In progress now:"),
            html.Ul([html.Li(html.A(name, href=href("live", run=name))) for name in going]),
        ]
    latest = [run.name for run in listed if run.info][:MOST_OTHERS]
    return [
        html.P("No run is in progress here. Start one: servescope replay TRACE --out RUN."),
        *([html.P("Those that began last:")] if latest else []),
        html.Ul([html.Li(html.A(name, href=href("live", run=name))) for name in latest]),
    ]


def _shown(
    name: str, info: RunInfo, progress: Progress
) -> tuple[list[Component], list[dict[str, Any]], bool]:
    """Return what is known of a run, its figures, and whether it has ended."""
    live = progress.live
    ended = progress.sealed and info.ended is not None
    going = live is not None and not ended and live.alive()
    made: list[Component] = [_state(name, info, live, going=going, ended=ended)]
    if live is not None and not ended:
        made += [_bar(live), _cards(live)]
    doubts = info.doubts if live is None or ended else live.doubts
    made += [components.doubt(text, "Doubt so far" if going else "Doubt") for text in doubts]
    figures = live_figures.pictures(info.name, progress.seconds, progress.servers)
    return made, drawn(figures), ended


def _state(name: str, info: RunInfo, live: Live | None, *, going: bool, ended: bool) -> Component:
    if ended:
        link = html.A("Look at the whole of it", href=href("run", run=name))
        return html.P([f"It has ended and is {info.validity}. ", link, "."], className="verdict")
    if going and live is not None:
        text = (
            "All calls have ended; the tables are being written."
            if live.sealing
            else (f"In progress for {live.now_s:.1f} s; so far it is {live.validity}.")
        )
        return html.P(text, className="verdict", role="status")
    if live is None:
        return components.doubt("It has not ended, and says nothing of itself.", "Stopped")
    return components.doubt(
        f"It was killed, or hangs: its last word was {live.age_s():.0f} s ago. What had ended is"
        f" kept; servescope replay --resume sends the rest.",
        "Stopped",
    )


def _bar(live: Live) -> Component:
    done = str(live.done)
    return html.Progress(value=done, max=str(max(1, live.planned)), title=f"{done} calls done")


def _cards(live: Live) -> Component:
    told: list[tuple[str, Column, float | None]] = [
        ("planned", _COUNT, live.planned),
        ("sent", _COUNT, live.sent),
        ("in flight", _COUNT, live.in_flight),
        ("done", _COUNT, live.done),
        ("failed", _COUNT, live.failed),
        ("lag p99 (ms)", _MS, live.lag_p99_s),
        ("TTFT p50 (ms)", _MS, live.ttft_p50_s),
        ("TTFT p99 (ms)", _MS, live.ttft_p99_s),
        ("TPOT p50 (ms)", _MS, live.tpot_p50_s),
        ("TPOT p99 (ms)", _MS, live.tpot_p99_s),
    ]
    if live.waiting:
        told.insert(3, ("waiting for a slot", _COUNT, live.waiting))
    if live.judged:
        told.append(("within SLO", _SHARE, live.met / live.judged))
    for server in live.servers:
        mark = f", {server.replica.partition('://')[2]}" if len(live.servers) > 1 else ""
        told += [
            (f"{label}{mark}", column, value)
            for label, column, value in (
                ("running on the server", _COUNT, server.running),
                ("queued on the server", _COUNT, server.waiting),
                ("KV in use", _SHARE, server.kv_usage),
            )
            if value is not None
        ]
    return components.cards(told)
