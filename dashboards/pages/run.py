"""One run: the report's sections of whatever part of it is brushed, and any of its programs."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from servescope.analysis.attainment import attained
from servescope.analysis.cut import KEYS, TURN_GROUPS
from servescope.analysis.intervals import bounded
from servescope.analysis.metrics import ANSWERED, METRICS, QUANTILES
from servescope.analysis.timeline import Timeline
from servescope.dashboards import components
from servescope.dashboards.library import Library
from servescope.dashboards.links import Query, cut_of, href, remember, remembered
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
    "pictures": ("Pictures", ("pictures", "programs")),
    "slow": ("Slowest calls", ()),
    "slo": ("SLO", ("objectives",)),
    "groups": ("Classes, turns, clients", ("groups",)),
    "latencies": ("Latencies", ("service", "latencies")),
    "server": ("Server", ("server",)),
    "about": ("About the run", ("steadiness", "fidelity", "workload", "provenance")),
}
WHERE = tuple(key for key in KEYS if key not in ("tenant", "turn"))  # names of one column each
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
    story = library.story([name], query.one("slo") or None)
    calls = next(iter(story.calls.values()))
    first, last = _span(calls)
    begin, end = query.number("from"), query.number("until")
    window = [first if begin is None else begin, last if end is None else end]
    chosen = {key: query.one(key) for key in WHERE}
    choices = _choices(calls, chosen)
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
            components.section(verdict) if verdict else None,
            html.H2("A part of it"),
            html.P(
                "Drag over the figure, or move the ends of the bar, to look at a window of time;"
                " every figure and table below is of that part.",
                className="says",
            ),
            components.graph(timelines.arrivals(story.calls), "run-strip"),
            dcc.RangeSlider(
                first, last, value=window, id="run-window", marks=None, step=_step(first, last),
                tooltip={"placement": "bottom"}, allowCross=False,
            ),
            html.Div(
                [
                    *(
                        components.choice(key, {"where": key}, found, chosen[key] or None)
                        for key, found in choices.items()
                    ),
                    html.Button("All of it", id="run-all", type="button"),
                ],
                className="bar",
            ),
            dcc.RadioItems(
                [{"label": label, "value": tab} for tab, (label, _) in TABS.items()],
                query.one("tab", "pictures"),
                id="run-tab",
                className="tabs",
                inline=True,
            ),
            html.Div(id="run-part", className="part"),
            html.Div(id="run-program", className="part"),
            dcc.Store(id="run-asked", data=[name, query.one("slo")]),
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

    @app.callback(
        Output("run-window", "value"),
        Output({"where": ALL}, "value"),
        Input("run-strip", "selectedData"),
        Input("run-all", "n_clicks"),
        State("run-window", "min"),
        State("run-window", "max"),
        State({"where": ALL}, "value"),
        prevent_initial_call=True,
    )
    def brush(
        selected: dict[str, Any] | None, _: int | None, low: float, high: float, where: list[Any]
    ) -> Any:
        if ctx.triggered_id == "run-all":
            return [low, high], [None] * len(where)
        dragged = (selected or {}).get("range", {}).get("x")
        if not dragged:
            return no_update, [no_update] * len(where)
        window = [max(low, min(dragged)), min(high, max(dragged))]
        return window, [no_update] * len(where)

    @app.callback(
        Output("run-part", "children"),
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
            return _tab(part, tab)
        except Exception as error:
            return components.wrong(error)

    @app.callback(
        Output("run-call", "data"),
        Input({"calls": ALL}, "clicked"),
        Input({"figure": ALL, "number": ALL}, "clickData"),
        prevent_initial_call=True,
    )
    def click(_rows: list[Any], _points: list[Any]) -> Any:
        value = ctx.triggered[0]["value"] if ctx.triggered else None
        if not value or not ctx.triggered_id:
            return no_update
        if "calls" in ctx.triggered_id:
            return value[0]
        return _call_of(ctx.triggered_id["figure"], value["points"][0]) or no_update

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


def _tab(part: Story, tab: str) -> list[Component]:
    """Return what a tab shows of a part of the run."""
    calls = next(iter(part.calls.values()))
    if calls.is_empty():
        return [components.doubt("No call is in this part. Widen the window, or choose less.")]
    if tab == "slow":
        return _slowest(calls)
    _, names = TABS.get(tab, TABS["pictures"])
    made = [section for name in names if (section := SECTIONS[name](part))]
    if not made:
        return [components.doubt("The run holds nothing of that.")]
    cards = [_cards(part)] if tab == "pictures" else []
    return [*cards, *components.sections(made)]


def _cards(part: Story) -> Component:
    """Return the numbers that people look at first."""
    measured = next(iter(part.measured.values()))
    whole = next(iter(part.wholes.values()))
    told: list[tuple[str, Column, float | None]] = [
        ("calls", Column("", "", "count"), measured.calls.height),
        ("failed", Column("", "", "count"), measured.calls.height - whole.served.height),
    ]
    for name, label in (("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "E2E")):
        sample = measured.sample(name)
        for quantile in ("p50", "p99"):
            value = bounded(sample, QUANTILES[quantile])
            told.append((f"{label} {quantile} (ms)", Column("", "", "ms"), value))
    if part.slo and part.slo.of_each:
        met = attained(measured, part.slo)
        told.append(("within SLO", Column("", "", "share"), met.share))
        told.append((f"goodput ({met.per}/s)", Column("", "", "rate"), met.goodput_rps))
    return components.cards(told)


def _slowest(calls: pl.DataFrame) -> list[Component]:
    """Return the calls that took longest, each to be clicked."""
    made: list[Component] = []
    for metric, says in (
        ("ttft", "The calls that waited longest for their first token; click one to see why."),
        ("e2e", "The calls that took longest to their last token."),
    ):
        rows = calls.drop_nulls(metric).top_k(MOST_SLOW, by=metric)
        made += [
            html.H2(f"Slowest by {METRICS[metric].label}"),
            _clickable(rows, metric),
            html.P(says, className="says"),
        ]
    failed = calls.filter(~ANSWERED).head(MOST_SLOW)
    if not failed.is_empty():
        made += [html.H2("Failed"), _clickable(failed, "failed")]
    return made


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


def _choices(calls: pl.DataFrame, chosen: dict[str, str]) -> dict[str, list[str]]:
    """Return what a run can be cut by: the names of each kind of which it has several."""
    found: dict[str, list[str]] = {}
    for key in WHERE:
        column = KEYS[key]
        if column not in calls.columns:
            continue
        if key == "turns":
            names = [name for name in TURN_GROUPS if calls["turn"].max()]
        else:
            counts = calls[column].drop_nulls().cast(pl.String).value_counts(sort=True)
            names = counts[column].head(MOST_CHOICES).to_list()
        if len(names) > 1 or chosen[key]:
            found[key] = names
    return found


def _call_of(figure: str, point: dict[str, Any]) -> str | None:
    """Return the call that a point of a figure stands for, if it is one call's."""
    if figure == "program":
        told = point.get("customdata")
        return str(told[0]) if told else None
    return point.get("text") if figure == "pictures" else None


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
        p99 = bounded(measured.sample("icl"), QUANTILES["p99"])
        says = f"Gaps between the chunks of call {call}; the line is p99 of the run."
        figures.append(Figure(program_figures.chunk_gaps(gaps, p99), says, wide=True))
    elif row["status"].eq_missing(OK).all():
        said.append(html.P("Its answer came in one piece, or the run does not hold its chunks."))
    return html.Section(
        [
            html.H2(f"Program {program.program_id}", id="program-title"),
            *said,
            html.Div(
                [components.figure(each, "program", n) for n, each in enumerate(figures)],
                className="figures",
            ),
        ],
        **components.aria(labelledby="program-title"),
    )


def _of_call(row: dict[str, Any]) -> Component:
    """Return what is known of one call, in a line."""
    shown = told(_SLOW, [row])
    text = ", ".join(f"{c.heading} {written(c, row[c.key])}" for c in shown)
    error = f". {row['error']}" if row.get("error") else ""
    return html.P(f"{text[0].upper()}{text[1:]}{error}")
