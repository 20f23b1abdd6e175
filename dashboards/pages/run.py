"""One run: the report's sections of whatever part of it is brushed, and any of its programs."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from servescope.analysis.cut import Cut, choices_of
from servescope.analysis.headline import headline_of
from servescope.analysis.intervals import bounded
from servescope.analysis.measured import Measured
from servescope.analysis.metrics import ANSWERED, METRICS, QUANTILES
from servescope.analysis.slo import SLO
from servescope.analysis.timeline import Timeline
from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query, cut_of, href, remember, remembered
from servescope.dashboards.plots import Plots, drawn
from servescope.dashboards.rows import Rows
from servescope.reports import program_figures, timelines
from servescope.reports.blocks import Column, Figure, told
from servescope.reports.render import written
from servescope.reports.sections import SECTIONS
from servescope.reports.story import Story
from servescope.traces.status import OK

MOST_CHOICES = 200  # of a class, client, ...
MOST_SLOW = 12
# The tabs: what stands in each is sections of the report, of the part that is brushed.
TABS = {
    "pictures": ("Pictures", ("pictures",)),
    "slow": ("Slowest calls", ()),
    "programs": ("Programs", ("programs",)),
    "slo": ("SLO", ("objectives",)),
    "groups": ("Classes, turns, clients", ("groups",)),
    "latencies": ("Latencies", ("service", "latencies")),
    "server": ("Server", ("server",)),
    "about": ("About the run", ("steadiness", "fidelity", "workload", "provenance")),
}
_COUNT, _MS, _RATE, _SHARE = (Column("", "", f) for f in ("count", "ms", "rate", "share"))
_SLOW = (
    Column("call_id", "call"),
    Column("program_id", "program"),
    Column("due_s", "due (s)", "rate"),
    Column("input_tokens", "input tokens", "count"),
    Column("output_tokens", "output tokens", "count"),
    Column("ttft", "TTFT (ms)", "ms"),
    Column("tpot", "TPOT (ms)", "ms"),
    Column("e2e", "E2E (ms)", "ms"),
    Column("status", "status"),
)


def layout(library: Library, query: Query) -> Component:
    """Show what came of the run, and the controls; the rest follows them."""
    name = query.one("run")
    if not name:
        return html.P(["Choose a run of ", html.A("the list", href="/"), "."])
    story = library.part([name], query.one("slo") or None, Cut())
    measured = next(iter(story.measured.values()))
    calls = measured.asked
    first, last = _span(calls)
    begin, end = query.number("from"), query.number("until")
    window = [first if begin is None else begin, last if end is None else end]
    window = [min(max(first, at), last) for at in window]
    choices = {
        key: values
        for key, values in choices_of(calls, MOST_CHOICES).items()
        if key != "turn" and (len(values) > 1 or query.one(key))  # turns are chosen in groups
    }
    verdict = SECTIONS["verdict"](story)
    return html.Div(
        [
            html.H1(f"Run {name}"),
            html.P(
                [
                    html.A("Live", href=href("live", run=name), className="button"), " ",
                    html.A("Compare with ...", href=href("compare", run=name), className="button"),
                    " ",
                    html.A("SLO explorer", href=href("slo", run=name), className="button"), " ",
                    html.A("Traffic", href=href("trace", trace=name), className="button"),
                ]
            ),
            *components.sections([verdict] if verdict else []),
            html.H2("A part of it"),
            html.P(
                "Drag over the figure, or move the ends of the bar, to look at a window of time;"
                " every figure and table below is of that part.",
                className="says",
            ),
            Plots([Figure(timelines.arrivals({name: calls}), "", wide=True)], "run-strip"),
            dcc.RangeSlider(
                first, last, value=window, id="run-window", marks=None, step=_step(first, last),
                tooltip={"placement": "bottom"}, allowCross=False,
            ),
            html.Div(
                [
                    *(
                        components.choice(key, {"where": key}, values, query.one(key) or None)
                        for key, values in choices.items()
                    ),
                    html.Button("All of it", id="run-all", type="button"),
                ],
                className="bar",
            ),
            dcc.RadioItems(
                [{"label": label, "value": tab} for tab, (label, _) in TABS.items()],
                tab if (tab := query.one("tab")) in TABS else "pictures",
                id="run-tab",
                className="tabs",
                inline=True,
            ),
            html.Div(id="run-part", className="part"),
            Plots(id={"plots": "part"}),
            html.Div(id="run-program", className="part"),
            dcc.Store(id="run-asked", data=[name, query.one("slo")]),
            dcc.Store(id="run-revealed"),
            dcc.Store(id="run-call", data=query.one("call")),
            *remembered(
                "run",
                (("from", "until"), (first, last)),
                ("tab", "pictures"),
                ("call", ""),
                (tuple(choices), None),
            ),
        ]
    )  # fmt: skip


def bind(app: Dash, library: Library) -> None:
    """Answer the brush, the choices, the tabs, and clicks on calls."""
    remember(
        app,
        "run",
        Input("run-window", "value"),
        Input("run-tab", "value"),
        Input("run-call", "data"),
        Input({"where": ALL}, "value"),
    )

    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("servescope", "brush"),
        Output("run-window", "value"),
        Output({"where": ALL}, "value"),
        Input("run-strip", "dragged"),
        Input("run-all", "n_clicks"),
        State("run-window", "min"),
        State("run-window", "max"),
        State({"where": ALL}, "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("servescope", "reveal"),
        Output("run-revealed", "data"),
        Input("run-program", "children"),
        State("run-call", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("run-part", "children"),
        Output({"plots": "part"}, "figures"),
        Input("run-window", "value"),
        Input({"where": ALL}, "value"),
        Input("run-tab", "value"),
        State({"where": ALL}, "id"),
        State("run-window", "min"),
        State("run-window", "max"),
        State("run-asked", "data"),
    )
    def show(
        window: list[float], values: list[str | None], tab: str, ids: list[dict[str, str]],
        low: float, high: float, asked: list[str],
    ) -> Any:  # fmt: skip
        where = {each["where"]: value for each, value in zip(ids, values, strict=True)}
        name, slo = asked
        try:
            bounds = (
                window[0] if window[0] > low else None,
                window[1] if window[1] < high else None,
            )
            part = library.part([name], slo or None, cut_of(bounds, where))
            words, figures = _tab(part, tab)
            return words, drawn(figures)
        except Exception as error:
            return components.wrong(error), []

    @app.callback(
        Output("run-call", "data"),
        Input({"calls": ALL}, "clicked"),
        Input({"plots": ALL}, "clicked"),
        prevent_initial_call=True,
    )
    def click(_rows: list[Any], _points: list[Any]) -> Any:
        value = ctx.triggered[0]["value"] if ctx.triggered else None
        if not value or not ctx.triggered_id:
            return no_update
        if "calls" in ctx.triggered_id:
            return value[0]
        _, text, custom, _ = value
        if ctx.triggered_id["plots"] == "program":
            return str(custom[0]) if custom else no_update
        return text or no_update  # of a figure whose points are calls

    @app.callback(
        Output("run-program", "children"), Input("run-call", "data"), State("run-asked", "data")
    )
    def program(call: str, asked: list[str]) -> Any:
        if not call:
            return None
        try:
            name, slo = asked
            return _program(library.story([name], slo or None), call)
        except Exception as error:
            return components.wrong(error)


def _tab(part: Story, tab: str) -> tuple[list[Component], list[Figure]]:
    """Return what a tab shows of a part of the run, and the figures below it."""
    measured = next(iter(part.measured.values()))
    if not measured.height:
        text = "No call is in this part. Widen the window, clear a choice, or press All of it."
        return [components.doubt(text)], []
    if tab == "slow":
        columns = (column.key for column in _SLOW if column.key in measured.names)
        return _slowest(measured.columns(*columns)), []
    _, names = TABS.get(tab, TABS["pictures"])
    with ThreadPoolExecutor(1) as beside:  # long arrays are sorted without holding others up
        cards = beside.submit(_cards, measured, part.slo) if "pictures" in names else None
        sections = [section for name in names if (section := SECTIONS[name](part))]
    if not sections:
        return [components.doubt("The run holds nothing of that.")], []
    words = components.words(sections)
    return [cards.result(), *words] if cards else words, components.figures_of(sections)


def _cards(measured: Measured, slo: SLO | None) -> Component:
    """Return the numbers that people look at first."""
    found = headline_of(measured, slo, None)
    told: list[tuple[str, Column, float | None]] = [
        ("calls", _COUNT, found.calls),
        ("failed", _COUNT, found.failed),
        ("TTFT p50 (ms)", _MS, found.ttft_p50_s),
        ("TTFT p99 (ms)", _MS, found.ttft_p99_s),
        ("TPOT p50 (ms)", _MS, found.tpot_p50_s),
        ("TPOT p99 (ms)", _MS, found.tpot_p99_s),
        ("E2E p50 (ms)", _MS, found.e2e_p50_s),
        ("E2E p99 (ms)", _MS, found.e2e_p99_s),
        ("output tokens/s", _RATE, found.output_tps),
    ]
    if found.attainment is not None:
        told.append(("within SLO", _SHARE, found.attainment))
    return components.cards(told)


def _slowest(calls: pl.DataFrame) -> list[Component]:
    """Return the calls that took longest, each to be clicked."""
    shown: list[Component] = []
    for metric, says in (
        ("ttft", "The calls that waited longest for their first token; click one to see why."),
        ("e2e", "The calls that took longest to their last token."),
    ):
        rows = calls.drop_nulls(metric).top_k(MOST_SLOW, by=metric)
        shown += [
            html.H2(f"Slowest by {METRICS[metric].label}"),
            _clickable(rows, metric),
            html.P(says, className="says"),
        ]
    failed = calls.filter(~ANSWERED).head(MOST_SLOW)
    if not failed.is_empty():
        shown += [html.H2("Failed"), _clickable(failed, "failed")]
    return shown


def _clickable(rows: pl.DataFrame, name: str) -> Component:
    shown = told(_SLOW, rows.to_dicts())
    return Rows(
        [components.heading(column) for column in shown],
        [
            [
                {"text": row["call_id"], "value": row["call_id"]},
                *(written(c, row.get(c.key)) for c in shown[1:]),
            ]
            for row in rows.iter_rows(named=True)
        ],
        id={"calls": name},
    )


def _span(calls: pl.DataFrame) -> tuple[float, float]:
    """Return the seconds in which calls were due, a little wider than they are."""
    first, last = calls.select(low=pl.col("due_s").min(), high=pl.col("due_s").max()).row(0)
    low, high = math.floor(first or 0.0), math.ceil(last or 0.0)
    return float(low), float(max(high, low + 1))


def _step(first: float, last: float) -> float:
    """Return a round step of which a window has some hundreds."""
    return 10.0 ** math.floor(math.log10((last - first) / 300))


def _program(story: Story, call: str) -> Component:
    """Return what the program of a call did, and when the chunks of the call came."""
    measured = next(iter(story.measured.values()))
    row = measured.asked.filter(pl.col("call_id") == call)
    if row.is_empty():
        return components.doubt(f"The run measured no call {call}.", "Call")
    program = Timeline(measured, row["program_id"][0])
    figures = [
        Figure(
            program_figures.timeline(program),
            "Where each call of the program waited, was computed, and paused; the critical path is"
            " outlined. Click a call to see its chunks.",
            wide=True,
        )
    ]
    said = [_of_call(row.row(0, named=True))]
    gaps = program.gaps(call)
    if gaps.height:
        p99 = bounded(measured.spread("icl"), QUANTILES["p99"])
        says = f"Gaps between the chunks of call {call}; the line is p99 of the run."
        figures.append(Figure(program_figures.chunk_gaps(gaps, p99), says, wide=True))
    elif row["status"].eq_missing(OK).all():
        said.append(html.P("Its answer came in one piece, or the run does not hold its chunks."))
    return html.Section(
        [
            html.H2(f"Program {program.program_id}", id="program-title"),
            *said,
            Plots(figures, {"plots": "program"}),
        ],
        **components.aria(labelledby="program-title"),
    )


def _of_call(row: dict[str, Any]) -> Component:
    """Return what is known of one call, in a line."""
    shown = told(_SLOW, [row])
    text = ", ".join(f"{c.heading} {written(c, row[c.key])}" for c in shown)
    error = f". {row['error']}" if row.get("error") else ""
    return html.P(f"{text[0].upper()}{text[1:]}{error}")
