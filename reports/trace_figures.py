"""The figures of a trace, one function each; every one draws one trace or several over each other.

Each takes tables of `analysis.characterization` by the name of their trace, and returns None where
no trace has anything to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from servescope.analysis.binned import sampled
from servescope.reports.canvas import (
    DASHES,
    FAINT,
    INK,
    LOG,
    PALETTE,
    canvas,
    line_of,
    literal,
    shade,
    short,
)

Tables = Mapping[str, pl.DataFrame]
_MOST = 400


def _line(
    figure: go.Figure,
    table: pl.DataFrame,
    x: str,
    y: str,
    name: str,
    index: int,
    *,
    mode: str = "lines",
    hover: str = "%{y:.4g} at %{x:.4g}",
    **more: Any,
) -> None:
    known = sampled(table.drop_nulls([x, y]), _MOST)
    if known.is_empty():
        return
    figure.add_scatter(
        x=short(known[x].cast(pl.Float64).to_numpy()),
        y=short(known[y].cast(pl.Float64).to_numpy()),
        name=literal(name),
        mode=mode,
        line={**line_of(index), **more.pop("line", {})},
        marker={"size": 5, "symbol": index},
        hovertemplate=hover,
        **more,
    )


def _band(figure: go.Figure, table: pl.DataFrame, x: str, low: str, high: str, index: int) -> None:
    """Shade from low to high, in the colour of the line."""
    known = sampled(table.drop_nulls([x, low, high]), _MOST)
    if known.is_empty():
        return
    at, bottom, top = (known[each].cast(pl.Float64).to_numpy() for each in (x, low, high))
    shade(figure, (at, bottom), (at, top), index)


def _drawn(figure: go.Figure, *, several: bool) -> go.Figure | None:
    if all(each.type == "scatter" and len(each.x) < 2 for each in figure.data):
        return None  # nothing, or one point of each
    figure.update_layout(showlegend=several)
    return figure


def _one(figure: go.Figure, value: float = 1.0) -> None:
    figure.add_hline(y=value, line={"color": INK, "width": 1, "dash": "dot"})


def _time(tables: Tables) -> tuple[str, float]:
    """Return the axis of time and what its numbers are divided by."""
    longest = max(float(t["t_s"].max() or 0) - float(t["t_s"].min() or 0) for t in tables.values())  # type: ignore[arg-type]
    for size, name in ((2 * 86_400.0, "days"), (2 * 3600.0, "hours"), (600.0, "minutes")):
        if longest >= size:
            return name, {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0}[name]
    return "seconds", 1.0


def _over_time(
    tables: Tables, title: str, lines: Sequence[tuple[str, str]], *, band: bool = False
) -> go.Figure | None:
    word, size = _time(tables)
    figure = canvas(f"{word} since the trace's zero", title)
    index = 0
    for name, table in tables.items():
        at = table.with_columns(pl.col("t_s") / size)
        for column, label in lines:
            if band:
                _band(figure, at, "t_s", "low", "high", index)
            said = ", ".join(part for part in (name if len(tables) > 1 else "", label) if part)
            _line(figure, at, "t_s", column, said or name, index)
            index += 1
    figure.update_yaxes(rangemode="tozero")
    return _drawn(figure, several=len(tables) * len(lines) > 1)


def rate(tables: Tables) -> go.Figure | None:
    """Draw calls a second over time, with their band."""
    return _over_time(tables, "calls /s", [("rate_rps", "")], band=True)


def dispersion(tables: Tables) -> go.Figure | None:
    """Draw the index of dispersion and the Allan factor over the time scale, on log axes."""
    figure = canvas("width of the window (s)", "variance / mean", log_x=True)
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(tables.items()):
        _band(figure, table, "scale_s", "idc_low", "idc_high", index)
        own = f"{name}, " if len(tables) > 1 else ""
        _line(figure, table, "scale_s", "idc", f"{own}index of dispersion", index,
              mode="lines+markers")  # fmt: skip
        free = table.filter(pl.col("allan") > 0)
        _line(figure, free, "scale_s", "allan", f"{own}without trend (Allan)", index,
              line={"dash": "dot", "width": 1.5})  # fmt: skip
    _one(figure)
    return _drawn(figure, several=True)


def peak_to_mean(tables: Tables) -> go.Figure | None:
    """Draw the busiest window over the mean one, and what Poisson arrivals would show."""
    figure = canvas("width of the window (s)", "peak / mean", log_x=True)
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(tables.items()):
        own = f"{name}, " if len(tables) > 1 else ""
        _line(figure, table, "scale_s", "peak_to_mean", f"{own}peak", index, mode="lines+markers")
        by_chance = table.filter(pl.col("poisson_peak_to_mean") > 0)
        _line(figure, by_chance, "scale_s", "poisson_peak_to_mean", f"{own}Poisson", index,
              line={"dash": "dot", "width": 1.5})  # fmt: skip
    return _drawn(figure, several=True)


def poisson_test(tables: Tables) -> go.Figure | None:
    """Draw by how many standard errors splits are wider than a Poisson process would make them."""
    figure = canvas("width of half a window (s)", "standard errors from Poisson", log_x=True)
    for index, (name, table) in enumerate(tables.items()):
        _line(figure, table, "scale_s", "z", name, index, mode="lines+markers")
    figure.add_hrect(y0=-1.96, y1=1.96, fillcolor=FAINT, opacity=0.6, line_width=0)
    return _drawn(figure, several=len(tables) > 1)


def interval_dispersion(tables: Tables) -> go.Figure | None:
    """Draw the index of dispersion of sums of gaps."""
    figure = canvas("gaps in a row", "k Var / mean^2", log_x=True)
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(tables.items()):
        _band(figure, table, "gaps", "low", "high", index)
        _line(figure, table, "gaps", "idi", name, index, mode="lines+markers")
    _one(figure)
    return _drawn(figure, several=len(tables) > 1)


def gap_windows(tables: Tables) -> go.Figure | None:
    """Draw the CV of the gaps, window by window."""
    word, size = _time(tables)
    figure = canvas(f"{word} since the trace's zero", "CV of the gaps")
    for index, (name, table) in enumerate(tables.items()):
        at = table.with_columns(pl.col("t_s") / size)
        _line(figure, at, "t_s", "cv", name, index, mode="markers")
    figure.update_yaxes(**LOG)
    _one(figure)
    return _drawn(figure, several=len(tables) > 1)


def gap_distribution(tables: Tables) -> go.Figure | None:
    """Draw the share of gaps longer than a length, as stamped and de-ticked."""
    figure = canvas("gap (s)", "share longer", log_x=True)
    figure.update_yaxes(**LOG, tickformat="~%", dtick=1)
    for index, (name, table) in enumerate(tables.items()):
        above = table.with_columns(share=1 - pl.col("share_below"))
        own = f"{name}, " if len(tables) > 1 else ""
        stamped = above.filter(pl.col("gap_s") > 0)
        _line(figure, stamped, "gap_s", "share", f"{own}as stamped", index)
        drawn = above.filter(pl.col("deticked_s") > 0)
        _line(figure, drawn, "deticked_s", "share", f"{own}spread over the tick", index,
              line={"dash": "dot"})  # fmt: skip
    return _drawn(figure, several=True)


def autocorrelation(tables: Tables) -> go.Figure | None:
    """Draw the correlation of counts against the time between them."""
    figure = canvas("apart (s)", "correlation of counts", log_x=True)
    for index, (name, table) in enumerate(tables.items()):
        _band(figure, table, "lag_s", "low", "high", index)
        _line(figure, table, "lag_s", "r", name, index, mode="lines+markers")
    _one(figure, 0.0)
    return _drawn(figure, several=len(tables) > 1)


def hours(tables: Tables) -> go.Figure | None:
    """Draw the rate by hour of the day."""
    figure = canvas("hour of the day, on the source's clock", "calls /s")
    for index, (name, table) in enumerate(tables.items()):
        _band(figure, table, "hour", "low", "high", index)
        _line(figure, table, "hour", "rate_rps", name, index, mode="lines+markers")
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(dtick=3)
    return _drawn(figure, several=len(tables) > 1)


def components(tables: Tables) -> go.Figure | None:
    """Draw the hourly calls and their trend."""
    figure = canvas("days since the first whole one", "calls an hour")
    for index, (name, table) in enumerate(tables.items()):
        at = table.with_columns(pl.col("hour") / 24)
        own = f"{name}, " if len(tables) > 1 else ""
        _line(figure, at, "hour", "observed", f"{own}observed", index, line={"width": 1})
        fitted = at.with_columns(fit=pl.col("trend") + pl.col("day") + pl.col("week").fill_null(0))
        _line(figure, fitted, "hour", "fit", f"{own}trend and seasons", index + 1,
              line={"width": 1.5})  # fmt: skip
        _line(figure, at, "hour", "trend", f"{own}trend", index + 2)
    return _drawn(figure, several=True)


def lengths(column: str, axis: str) -> Callable[[Tables], go.Figure | None]:
    """Return what draws the share of calls longer than so many tokens, by model and class."""

    def draw(tables: Tables) -> go.Figure | None:
        figure = canvas(axis, "share of calls longer", log_x=True)
        figure.update_yaxes(**LOG, tickformat="~%", dtick=1)
        index = 0
        for name, table in tables.items():
            groups = table.filter(pl.col("column") == column)
            for (of,), group in groups.group_by("of", maintain_order=True):
                if len(tables) > 1 and of:
                    continue
                said = name if len(tables) > 1 else str(of) or "all"
                shown = group.filter((pl.col("share_above") > 0) & (pl.col("tokens") > 0))
                _line(figure, shown, "tokens", "share_above", said, index)
                index += 1
        return _drawn(figure, several=index > 1)

    return draw


def length_drift(tables: Tables) -> go.Figure | None:
    """Draw median and p90 of prompts and answers over time."""
    word, size = _time(tables)
    figure = canvas(f"{word} since the trace's zero", "tokens")
    figure.update_yaxes(**LOG)
    index = 0
    for name, table in tables.items():
        for column, label in (("input_tokens", "prompt"), ("output_tokens", "answer")):
            at = table.filter(pl.col("column") == column).with_columns(pl.col("t_s") / size)
            own = f"{name}, " if len(tables) > 1 else ""
            for q, dash in (("p50", "solid"), ("p90", "dot")):
                _line(figure, at.filter(pl.col(q) > 0), "t_s", q, f"{own}{label} {q}", index,
                      line={"dash": dash})  # fmt: skip
            index += 1
    return _drawn(figure, several=True)


def densities(at: list[float], density: np.ndarray, said: str = "") -> go.Figure:
    """Draw how often ranks of prompt and answer, at `at`, fall together, over independence.

    `density` has a row an answer's rank; `said` is what a mark begins with.
    """
    figure = canvas("rank of the prompt", "rank of the answer")
    figure.add_heatmap(
        x=at,
        y=at,
        z=[short(row) for row in np.log2(np.maximum(density, 0.0625))],
        customdata=[short(row) for row in density],
        zmin=-3,
        zmax=3,
        colorscale="RdBu_r",
        colorbar={
            "title": "times",
            "tickvals": [-3, -1, 0, 1, 3],
            "ticktext": ["1/8", "1/2", "1", "2", "8"],
            "thickness": 12,
        },
        hovertemplate=f"{said}%{{customdata:.2f}} times independence<extra></extra>",
    )
    return figure


def copula(tables: Tables) -> go.Figure | None:
    """Draw how often ranks of prompt and answer fall together, over independence."""
    name, table = next(iter(tables.items()))
    side = table["input_rank"].n_unique()
    density = table["density"].to_numpy().reshape(side, side).T
    figure = densities([round(x, 4) for x in table["input_rank"].unique().sort()], density)
    if len(tables) > 1:
        figure.update_layout(title={"text": literal(name), "font": {"size": 13}})
    return _drawn(figure, several=False)


def conditional(tables: Tables) -> go.Figure | None:
    """Draw the quantiles of answers over the length of the prompt."""
    figure = canvas("prompt (tokens)", "answer (tokens)", log_x=True)
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(tables.items()):
        at = table.with_columns(
            x=(pl.col("input_from").clip(1) * pl.col("input_to").clip(1)).sqrt()
        )
        own = f"{name}, " if len(tables) > 1 else ""
        for q, dash in (("p10", "dot"), ("p50", "solid"), ("p90", "dash")):
            _line(figure, at.filter(pl.col(q) > 0), "x", q, f"{own}{q}", index,
                  mode="lines+markers", line={"dash": dash})  # fmt: skip
    return _drawn(figure, several=True)


def turns(tables: Tables) -> go.Figure | None:
    """Draw the share of programs of more than so many calls."""
    figure = canvas("calls of a program", "programs with as many or more", log_x=True)
    figure.update_yaxes(**LOG, tickformat="~%", dtick=1)
    for index, (name, table) in enumerate(tables.items()):
        at = table.with_columns(above=pl.col("share").reverse().cum_sum().reverse())
        _line(figure, at, "turns", "above", name, index, mode="lines+markers")
    return _drawn(figure, several=len(tables) > 1)


def growth(tables: Tables) -> go.Figure | None:
    """Draw the median prompt by its place in the program."""
    figure = canvas("place in the program", "median prompt (tokens)")
    for index, (name, table) in enumerate(tables.items()):
        _line(figure, table, "turn", "input_p50", name, index)
    figure.update_yaxes(rangemode="tozero")
    return _drawn(figure, several=len(tables) > 1)


def live(tables: Tables) -> go.Figure | None:
    """Draw programs at once over time."""
    return _over_time(tables, "programs at once", [("programs", "")])


def concentration(x: str, y: str, axis: str, title: str) -> Callable[[Tables], go.Figure | None]:
    """Return what draws the share held by the largest."""

    def draw(tables: Tables) -> go.Figure | None:
        figure = canvas(axis, title, log_x=True)
        for index, (name, table) in enumerate(tables.items()):
            _line(figure, table, x, y, name, index)
        figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
        if x.endswith("share"):
            figure.update_xaxes(tickformat="~%", dtick=1)
        return _drawn(figure, several=len(tables) > 1)

    return draw


def hit_curve(tables: Tables) -> go.Figure | None:
    """Draw the hit rate over the size of an LRU cache."""
    in_tokens = all(t["cache_tokens"].count() for t in tables.values())
    x = "cache_tokens" if in_tokens else "cache_blocks"
    figure = canvas(f"cache ({'tokens' if in_tokens else 'blocks'})", "hit rate", log_x=True)
    for index, (name, table) in enumerate(tables.items()):
        _line(figure, table, x, "hit_rate", name, index, hover="%{y:.1%} at %{x:,.0f}")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return _drawn(figure, several=len(tables) > 1)


def clients(tables: Tables) -> go.Figure | None:
    """Draw each client's CV against its share of the calls."""
    figure = canvas("share of the calls", "CV of the client's gaps", log_x=True)
    figure.update_yaxes(**LOG)
    for index, (name, table) in enumerate(tables.items()):
        known = table.filter((pl.col("share") > 0) & (pl.col("cv") > 0))
        if known.is_empty():
            continue
        figure.add_scatter(
            x=short(known["share"].to_numpy()),
            y=short(known["cv"].to_numpy()),
            text=[literal(client) for client in known["client"]],
            name=literal(name),
            mode="markers",
            marker={"color": PALETTE[index % len(PALETTE)], "size": 7, "symbol": index},
            hovertemplate="%{text}: %{x:.2%} of the calls, CV %{y:.2f}",
        )
    figure.update_xaxes(tickformat="~%", dtick=1)
    _one(figure)
    return _drawn(figure, several=len(tables) > 1)


def total_rate(tables: Tables) -> go.Figure | None:
    """Draw the rate of all clients and of the largest."""
    lines = [("rate_rps", "all clients"), ("top_rps", "those with 90 % of the calls")]
    return _over_time(tables, "calls /s", lines)


def failures_over_time(tables: Tables) -> go.Figure | None:
    """Draw the share of failures over time."""
    figure = _over_time(tables, "calls that failed", [("share", "")])
    if figure:
        figure.update_yaxes(tickformat="~%")
    return figure


def failures_by(low: str, high: str, axis: str) -> Callable[[Tables], go.Figure | None]:
    """Return what draws the share of failures over a length or a load, in tenths of the calls."""

    def draw(tables: Tables) -> go.Figure | None:
        figure = canvas(axis, "calls that failed", log_x=True)
        for index, (name, table) in enumerate(tables.items()):
            middle = (pl.col(low).cast(pl.Float64).clip(1e-3) * pl.col(high).clip(1e-3)).sqrt()
            _line(figure, table.with_columns(x=middle), "x", "share", name, index,
                  mode="lines+markers")  # fmt: skip
        figure.update_yaxes(tickformat="~%", rangemode="tozero")
        return _drawn(figure, several=len(tables) > 1)

    return draw


def tokens(tables: Tables) -> go.Figure | None:
    """Draw tokens asked for a second, over time."""
    lines = [("input_tps", "prompts"), ("output_tps", "answers")]
    figure = _over_time(tables, "tokens /s", lines)
    if figure:
        figure.update_yaxes(type="log", rangemode="normal", minor={"ticks": "outside"}, nticks=8)
    return figure


def token_dispersion(tables: Tables) -> go.Figure | None:
    """Draw how much more tokens vary than Poisson arrivals would make them, over the time scale."""
    figure = canvas("width of the window (s)", "times Poisson", log_x=True)
    figure.update_yaxes(**LOG)
    index = 0
    for name, table in tables.items():
        own = f"{name}, " if len(tables) > 1 else ""
        for column, label in (("input", "prompts"), ("output", "answers")):
            shown = table.filter(pl.col(column) > 0)
            _band(figure, shown, "scale_s", f"{column}_low", f"{column}_high", index)
            _line(figure, shown, "scale_s", column, f"{own}{label}", index, mode="lines+markers")
            index += 1
    _one(figure)
    return _drawn(figure, several=True)


def mix(tables: Tables) -> go.Figure | None:
    """Draw the share of each class over time, stacked."""
    table = next(iter(tables.values()))
    word, size = _time({"": table})
    figure = canvas(f"{word} since the trace's zero", "share of the calls")
    for index, ((of,), part) in enumerate(table.group_by("of", maintain_order=True)):
        figure.add_scatter(
            x=short((part["t_s"] / size).to_numpy()),
            y=short(part["share"].to_numpy()),
            name=literal(str(of)),
            mode="lines",
            stackgroup="one",
            line={"width": 0.5, "color": PALETTE[index % len(PALETTE)],
                  "dash": DASHES[index % len(DASHES)]},
            hovertemplate="%{y:.1%}",
        )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return _drawn(figure, several=True)


def in_flight(column: str, title: str) -> Callable[[Tables], go.Figure | None]:
    """Return what draws calls or keys and values in flight over time."""

    def draw(tables: Tables) -> go.Figure | None:
        known = {name: t for name, t in tables.items() if t[column].count()}
        return _over_time(known, title, [(column, "")]) if known else None

    return draw


def clock_phase(tables: Tables) -> go.Figure | None:
    """Draw how many stamps fall into each part of a tick."""
    figure = canvas("part of the tick, or of a second without one", "calls")
    for index, (name, table) in enumerate(tables.items()):
        figure.add_bar(
            x=table["phase"].to_list(),
            y=table["stamps"].to_list(),
            name=literal(name),
            marker={"color": PALETTE[index % len(PALETTE)]},
            hovertemplate="%{y:,} calls",
        )
    return _drawn(figure, several=len(tables) > 1)
