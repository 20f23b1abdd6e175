"""The page of many runs: every load of a study or sweep, its verdict, and the curves over load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import plotly.graph_objects as go
import polars as pl

from servescope.reports import render
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table, told
from servescope.reports.canvas import LOG, canvas, line_of, literal, short

# What is drawn over the offered load: column, axis, factor, whether on a log axis, how to read it.
_CURVES = (
    ("ttft_p99_s", "TTFT p99 (ms)", 1000.0, True, "The knee is where the queue begins."),
    ("tpot_p99_s", "TPOT p99 (ms)", 1000.0, True, "How steadily tokens come as load grows."),
    ("attainment", "share within the SLO", 1.0, False, "Failures are misses."),
    ("goodput_rps", "goodput (/s)", 1.0, False, "What met the SLO, a second."),
    ("served_rps", "served programs /s", 1.0, False, "Below the diagonal the server falls behind."),
)
_COLUMNS = (
    Column("system", "system"),
    Column("workload", "workload"),
    Column("repeat", "repeat", "count"),
    Column("rate_rps", "rate asked /s", "rate"),
    Column("speed_up", "speed-up", "ratio"),
    Column("offered_rps", "offered /s", "rate"),
    Column("served_rps", "served /s", "rate"),
    Column("output_tps", "output tokens/s", "rate"),
    Column("failed", "failed", "count"),
    Column("ttft_p50_s", "TTFT p50 (ms)", "ms"),
    Column("ttft_p99_s", "p99", "ms"),
    Column("tpot_p50_s", "TPOT p50 (ms)", "ms"),
    Column("tpot_p99_s", "p99", "ms"),
    Column("attainment", "within SLO", "share"),
    Column("goodput_rps", "goodput /s", "rate"),
    Column("validity", "validity"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one load: its name, the verdict or why there is none, its page if it has one.

    `doubts` are those of its report.
    """

    condition: str
    verdict: str | None
    why: str | None = None
    report: str | None = None
    doubts: tuple[str, ...] = ()


def write_overview(
    title: str,
    rows: pl.DataFrame,
    outcomes: Sequence[Outcome],
    out: Path,
    failed: Sequence[Mapping[str, str]] = (),
) -> Path:
    """Write the page of a study, replacing one of before; returns its path.

    `rows` has a row a run: the columns of `analysis.sweep`, and workload, rate_rps, speed_up and
    repeat. `failed` says of each run that has no row which (`run`) and `why`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render.html(title, sections_of(rows, outcomes, failed)), encoding="utf-8")
    return out


def sections_of(
    rows: pl.DataFrame, outcomes: Sequence[Outcome], failed: Sequence[Mapping[str, str]] = ()
) -> list[Section]:
    """Return the verdict of every load and what failed, the curves over load, and a row a run."""
    made = []
    notes = []
    for each in outcomes:
        kind: Literal["verdict", "doubt"] = "verdict" if each.verdict else "doubt"
        said = each.verdict or each.why or ""
        notes.append(Note(kind, said, each.condition, each.report or ""))
        notes += [Note("doubt", doubt, "Doubt") for doubt in each.doubts]
    notes += [Note("doubt", each["why"], f"FAILED, {each['run']}") for each in failed]
    if notes:
        made.append(Section("verdicts", "Load by load", tuple(notes)))
    figures = curves(rows)
    if figures:
        made.append(Section("curves", "Over the offered load", tuple(figures)))
    cells: list[dict[str, Cell]] = rows.to_dicts()
    made.append(Section("runs", "Every run", (Table(told(_COLUMNS, cells), cells),)))
    return made


def curves(rows: pl.DataFrame) -> list[Figure]:
    """Draw latency, attainment and goodput over the offered load, a line a system and workload.

    Repeats are one point, their median. Nothing is drawn of fewer than two loads.
    """
    known = rows.drop_nulls("offered_rps")
    if known.is_empty() or known["offered_rps"].round(6).n_unique() < 2:
        return []
    several = known["workload"].n_unique() > 1
    figures = []
    for column, title, factor, logarithmic, says in _CURVES:
        if not known[column].count():
            continue
        figure = canvas("offered programs /s", title)
        if logarithmic:
            figure.update_yaxes(**LOG)
        elif column == "attainment":
            figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
        else:
            figure.update_yaxes(rangemode="tozero")
        _lines(figure, known, column, factor, several=several)
        figures.append(Figure(figure, says))
    return figures


def _lines(
    figure: go.Figure, rows: pl.DataFrame, column: str, factor: float, *, several: bool
) -> None:
    loads = [name for name in ("rate_rps", "speed_up") if rows[name].count()]
    lines = rows.group_by("system", "workload", maintain_order=True)
    for index, ((system, workload), of_line) in enumerate(lines):
        points = (
            of_line.group_by(loads or "offered_rps", maintain_order=True)
            .agg(x=pl.col("offered_rps").median(), y=pl.col(column).median())
            .drop_nulls("y")
            .sort("x")
        )
        figure.add_scatter(
            x=short(points["x"].to_numpy()),
            y=short(points["y"].to_numpy() * factor),
            name=literal(f"{system}, {workload}" if several else str(system)),
            mode="lines+markers",
            line=line_of(index),
            marker={"size": 7, "symbol": index},
            hovertemplate="%{y:.4g} at %{x:.3g}/s",
        )
