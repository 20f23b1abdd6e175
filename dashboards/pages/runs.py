"""Every run under the folder: sorted, filtered, tagged, and selected for a closer look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html
from dash.development.base_component import Component

from servescope.dashboards import components
from servescope.dashboards.library import LONGEST_TAG, Library, Listed
from servescope.dashboards.links import Query, href, remember, remembered
from servescope.dashboards.rows import Cell, Heading, Rows
from servescope.reports.blocks import Cell as Value
from servescope.reports.blocks import Column
from servescope.reports.render import written
from servescope.traces.errors import InputError

MOST_ROWS = 100
REFRESH_S = 5.0
USUAL = "-started"


@dataclass(frozen=True, slots=True)
class _Of:
    """A column of the list, and how it is read off a run."""

    column: Column
    of: Callable[[Listed], Value]


def _number(name: str) -> Callable[[Listed], Value]:
    return lambda run: getattr(run.headline, name) if run.headline else None


_COLUMNS = tuple(
    _Of(*each)
    for each in (
        (Column("run", "run"), lambda run: run.name),
        (Column("system", "system"), lambda run: run.info.system if run.info else None),
        (Column("workload", "workload"), lambda run: _workload(run)),
        (Column("validity", "validity"), lambda run: run.info.validity if run.info else None),
        (Column("offered_rps", "offered programs/s", "rate"), _number("offered_rps")),
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


_HEADINGS: list[Heading] = [
    *(components.heading(each.column, sorts=True) for each in _COLUMNS),
    {"heading": "tags", "form": "text"},
]


def layout(library: Library, query: Query) -> Component:
    """Show the controls and the list, which follows them."""
    sort = query.one("sort", USUAL)
    found = _found(library, query.one("q"), sort)
    return html.Div(
        [
            html.H1("Runs"),
            html.Div(
                [
                    components.field(
                        "Filter",
                        "runs-words",
                        "grow",
                        type="search",
                        value=query.one("q"),
                        debounce=0.2,
                        placeholder="words of name, system, workload, validity or tags",
                    ),
                    html.A("Compare", id="runs-compare", className="button"),
                    html.A("SLO explorer", id="runs-slo", className="button"),
                    components.field(
                        "Tag of the selected", "runs-tag", type="text", maxLength=LONGEST_TAG
                    ),
                    html.Button("Add tag", id="runs-tag-add", type="button"),
                    html.Button("Remove tag", id="runs-tag-remove", type="button"),
                ],
                className="bar",
            ),
            html.Div(id="runs-said", role="status"),
            dcc.Interval(id="runs-tick", interval=int(REFRESH_S * 1000)),
            html.P(found.says, id="runs-says", className="says"),
            Rows(_HEADINGS, found.rows, "runs-list", found.names, query.get("pick", []), sort),
            *remembered("runs", ("q", ""), ("sort", USUAL), ("pick", [])),
        ]
    )  # fmt: skip


def bind(app: Dash, library: Library) -> None:
    """Answer words, clicks on headings, ticks of rows, and tags."""

    remember(
        app,
        "runs",
        Input("runs-words", "value"),
        Input("runs-list", "sort"),
        Input("runs-list", "picked"),
    )

    @app.callback(
        Output("runs-says", "children"),
        Output("runs-list", "rows"),
        Output("runs-list", "names"),
        Input("runs-words", "value"),
        Input("runs-list", "sort"),
        Input("runs-tick", "n_intervals"),
        Input("runs-said", "children"),
        prevent_initial_call=True,
    )
    def show(words: str | None, sort: str, _tick: int | None, _said: Any) -> Any:
        found = _found(library, words or "", sort)
        return found.says, found.rows, found.names

    @app.callback(
        Output("runs-compare", "href"),
        Output("runs-slo", "href"),
        Input("runs-list", "picked"),
    )
    def lead(picked: list[str] | None) -> tuple[str, str]:
        return href("compare", run=picked or []), href("slo", run=picked or [])

    @app.callback(
        Output("runs-said", "children"),
        Input("runs-tag-add", "n_clicks"),
        Input("runs-tag-remove", "n_clicks"),
        State("runs-tag", "value"),
        State("runs-list", "picked"),
        prevent_initial_call=True,
    )
    def tag(_a: int | None, _r: int | None, text: str | None, picked: list[str] | None) -> Any:
        try:
            if not picked:
                raise InputError("No run is selected.", "Tick some in the list.")
            library.tag(picked, text or "", remove=ctx.triggered_id == "runs-tag-remove")
        except InputError as error:
            return components.wrong(error)
        return None


@dataclass(frozen=True, slots=True)
class _Found:
    """The runs that are shown: what is said of them, their cells, and their names."""

    says: str
    rows: list[list[str | Cell]]
    names: list[str]


def _found(library: Library, words: str, sort: str) -> _Found:
    runs = library.listed()
    if not runs:
        name = library.folder.name
        return _Found(
            f"There is no run in {name} yet. Make one: servescope demo --out {name}/demo", [], []
        )
    wanted = words.casefold().split()
    found = _sorted([run for run in runs if all(w in _words(run) for w in wanted)], sort)
    if not found:
        return _Found(f"No run of {len(runs)} matches: clear the filter.", [], [])
    says = f"{len(found)} of {len(runs)} runs."
    if len(found) > MOST_ROWS:
        says += f" The first {MOST_ROWS} are shown: filter to see others."
    shown = found[:MOST_ROWS]
    return _Found(says, [_row(run) for run in shown], [run.name for run in shown])


def _row(run: Listed) -> list[str | Cell]:
    tags: Cell = {"tags": run.tags, "form": "text"}
    if run.wrong:
        wrong: Cell = {"text": run.wrong, "wide": len(_COLUMNS) - 1, "form": "prose doubt"}
        return [{"text": run.name, "form": "text"}, wrong, tags]
    return [*(_shown(run, each) for each in _COLUMNS), tags]


def _shown(run: Listed, each: _Of) -> str | Cell:
    text = written(each.column, each.of(run))
    if each.column.key == "run":
        return {"text": text, "href": href("run", run=run.name)}
    if each.column.key == "validity" and run.live:
        return {"text": "live", "href": href("live", run=run.name)}
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
