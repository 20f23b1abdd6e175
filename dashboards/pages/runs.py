"""Every run under the folder: sorted, filtered, tagged, and selected for a closer look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from servescope.dashboards import components
from servescope.dashboards.library import Library, Listed
from servescope.dashboards.links import Query, href, remember, remembered
from servescope.reports.blocks import Cell, Column
from servescope.reports.render import written
from servescope.traces.errors import InputError

MOST_ROWS = 100
REFRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class _Of:
    """A column of the list, and how it is read off a run."""

    column: Column
    of: Callable[[Listed], Cell]


def _number(name: str) -> Callable[[Listed], Cell]:
    return lambda run: getattr(run.headline, name) if run.headline else None


_COLUMNS = tuple(
    _Of(*each)
    for each in (
        (Column("run", "run"), lambda run: run.name),
        (Column("system", "system"), lambda run: run.info.system if run.info else None),
        (Column("workload", "workload"), lambda run: _workload(run)),
        (Column("validity", "validity"), lambda run: run.info.validity if run.info else None),
        (Column("offered_rps", "offered /s", "rate"), _number("offered_rps")),
        (Column("calls", "calls", "count"), _number("calls")),
        (Column("failed", "failed", "count"), _number("failed")),
        (Column("ttft_p50_s", "TTFT p50 (ms)", "ms"), _number("ttft_p50_s")),
        (Column("ttft_p99_s", "p99", "ms"), _number("ttft_p99_s")),
        (Column("tpot_p50_s", "TPOT p50 (ms)", "ms"), _number("tpot_p50_s")),
        (Column("tpot_p99_s", "p99", "ms"), _number("tpot_p99_s")),
        (Column("e2e_p99_s", "E2E p99 (ms)", "ms"), _number("e2e_p99_s")),
        (Column("output_tps", "output tokens/s", "rate"), _number("output_tps")),
        (Column("attainment", "within SLO", "share"), _number("attainment")),
        (Column("started", "began"), lambda run: _began(run)),
    )
)


def layout(library: Library, query: Query) -> Component:
    """Show the controls; the list itself follows them."""
    return html.Div(
        [
            html.H1("Runs"),
            html.Div(
                [
                    html.Div(
                        [
                            html.Label("Filter", htmlFor="runs-words"),
                            dcc.Input(
                                id="runs-words",
                                type="search",
                                value=query.one("q"),
                                debounce=0.2,
                                placeholder="words of name, system, workload, validity or tags",
                            ),
                        ],
                        className="field grow",
                    ),
                    html.A("Compare", id="runs-compare", className="button"),
                    html.A("SLO explorer", id="runs-slo", className="button"),
                    html.Div(
                        [
                            html.Label("Tag of the selected", htmlFor="runs-tag"),
                            dcc.Input(id="runs-tag", type="text", maxLength=40),
                        ],
                        className="field",
                    ),
                    html.Button("Add tag", id="runs-tag-add", type="button"),
                    html.Button("Remove tag", id="runs-tag-remove", type="button"),
                ],
                className="bar",
            ),
            html.Div(id="runs-said", role="status"),
            dcc.Store(id="runs-sort", data=query.one("sort", "-started")),
            dcc.Store(id="runs-picked", data=query.get("pick", [])),
            dcc.Interval(id="runs-tick", interval=int(REFRESH_S * 1000)),
            html.Div(_list(library, query.one("q"), query.one("sort", "-started"),
                           query.get("pick", [])), id="runs-list"),
            *remembered("runs", ("q", ""), ("sort", "-started"), ("pick", [])),
        ]
    )  # fmt: skip


def bind(app: Dash, library: Library) -> None:
    """Answer words, clicks on headings, ticks of rows, and tags."""

    remember(
        app,
        "runs",
        Input("runs-words", "value"),
        Input("runs-sort", "data"),
        Input("runs-picked", "data"),
    )

    @app.callback(
        Output("runs-list", "children"),
        Input("runs-words", "value"),
        Input("runs-sort", "data"),
        Input("runs-tick", "n_intervals"),
        Input("runs-said", "children"),
        State("runs-picked", "data"),
        prevent_initial_call=True,
    )
    def show(
        words: str | None, sort: str, _tick: int | None, _said: Any, picked: list[str]
    ) -> list[Component]:
        return _list(library, words or "", sort, picked)

    @app.callback(
        Output("runs-sort", "data"),
        Input({"sort": ALL}, "n_clicks"),
        State("runs-sort", "data"),
        prevent_initial_call=True,
    )
    def sort(clicks: list[int | None], current: str) -> Any:
        if not any(clicks) or not ctx.triggered_id:
            return no_update
        key = ctx.triggered_id["sort"]
        return key if current == f"-{key}" else f"-{key}"

    @app.callback(
        Output("runs-picked", "data"),
        Input({"pick": ALL}, "value"),
        State({"pick": ALL}, "id"),
        State("runs-picked", "data"),
        prevent_initial_call=True,
    )
    def pick(values: list[list[str]], ids: list[dict[str, str]], before: list[str]) -> Any:
        shown = {each["pick"]: bool(value) for each, value in zip(ids, values, strict=True)}
        kept = [name for name in before if shown.get(name, True)]
        after = [*kept, *(name for name, on in shown.items() if on and name not in kept)]
        return no_update if after == before else after

    @app.callback(
        Output("runs-compare", "href"),
        Output("runs-slo", "href"),
        Input("runs-picked", "data"),
    )
    def lead(picked: list[str]) -> tuple[str, str]:
        return href("compare", run=picked), href("slo", run=picked)

    @app.callback(
        Output("runs-said", "children"),
        Input("runs-tag-add", "n_clicks"),
        Input("runs-tag-remove", "n_clicks"),
        State("runs-tag", "value"),
        State("runs-picked", "data"),
        prevent_initial_call=True,
    )
    def tag(_add: int | None, _remove: int | None, text: str | None, picked: list[str]) -> Any:
        try:
            if not picked:
                raise InputError("No run is selected.", "Tick some in the list.")
            library.tag(picked, text or "", remove=ctx.triggered_id == "runs-tag-remove")
        except InputError as error:
            return components.wrong(error)
        return None


def _list(library: Library, words: str, sort: str, picked: Sequence[str]) -> list[Component]:
    runs = library.listed()
    if not runs:
        return [components.doubt(
            f"There is no run in {library.folder.name} yet. Make one: servescope demo --out"
            f" {library.folder.name}/demo"
        )]  # fmt: skip
    wanted = words.casefold().split()
    found = [run for run in runs if all(word in _words(run) for word in wanted)]
    found = _sorted(found, sort)
    says = f"{len(found)} of {len(runs)} runs"
    if len(found) > MOST_ROWS:
        says += f", the first {MOST_ROWS} shown: filter to see others"
    heads: list[Component] = [html.Th(html.Span("select", className="unseen"))]
    heads += [_head(each.column, sort) for each in _COLUMNS]
    heads.append(html.Th("tags", className="text"))
    rows = [_row(run, run.name in picked) for run in found[:MOST_ROWS]]
    table = html.Table([html.Thead(html.Tr(heads)), html.Tbody(rows)])
    return [
        html.P(f"{says}.", className="says"),
        html.Div(table, className="wide", tabIndex="0"),
    ]


def _head(column: Column, sort: str) -> Component:
    key = sort.removeprefix("-")
    order = None if key != column.key else "descending" if sort[0] == "-" else "ascending"
    arrow = {None: "", "descending": " \u2193", "ascending": " \u2191"}[order]
    return html.Th(
        html.Button(column.heading + arrow, id={"sort": column.key}, type="button"),
        scope="col",
        className=column.form,
        **(components.aria(sort=order) if order else {}),
    )


def _row(run: Listed, picked: bool) -> Component:
    box = dcc.Checklist(
        [{"label": html.Span(f"select {run.name}", className="unseen"), "value": "on"}],
        ["on"] if picked else [],
        id={"pick": run.name},
    )
    tags = html.Td([html.Span(tag, className="tag") for tag in run.tags], className="text")
    if run.wrong:
        says = html.Td(run.wrong, colSpan=len(_COLUMNS) - 1, className="prose doubt")
        return html.Tr([html.Td(box), html.Td(run.name, className="text"), says, tags])
    cells = [html.Td(_shown(run, each), className=each.column.form) for each in _COLUMNS]
    return html.Tr([html.Td(box), *cells, tags])


def _shown(run: Listed, each: _Of) -> Any:
    text = written(each.column, each.of(run))
    if each.column.key == "run":
        return html.A(text, href=href("run", run=run.name))
    if each.column.key == "validity" and run.live:
        return html.A("live", href=href("live", run=run.name), className="badge-live")
    return text


def _sorted(runs: list[Listed], sort: str) -> list[Listed]:
    """Sort by a column; what has no value there comes last, whichever the order."""
    key, down = sort.removeprefix("-"), sort.startswith("-")
    of = next((each.of for each in _COLUMNS if each.column.key == key), None)
    if of is None:
        return runs
    known = [(value, run) for run in runs if (value := of(run)) is not None]
    known.sort(key=lambda each: each[0], reverse=down)
    return [run for _, run in known] + [run for run in runs if of(run) is None]


def _words(run: Listed) -> str:
    cells = [each.of(run) for each in _COLUMNS if each.column.form == "text"]
    state = "live" if run.live else ""
    return " ".join(map(str, filter(None, (*cells, state, *run.tags, run.wrong)))).casefold()


def _workload(run: Listed) -> str | None:
    if run.info is None:
        return None
    source = run.info.trace.get("source") or (run.info.imported and run.info.imported.file)
    return str(source) if source else None


def _began(run: Listed) -> str | None:
    return run.info.started[:16].replace("T", " ") if run.info and run.info.started else None
