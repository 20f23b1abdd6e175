"""The sections of a trace's page: what matters in words, then every aspect, figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import plotly.graph_objects as go
import polars as pl

from servescope.analysis.aspects import ASPECTS
from servescope.analysis.binned import sampled
from servescope.analysis.characterization import Characterization
from servescope.analysis.literature import layout_of
from servescope.analysis.summary import sentences
from servescope.analysis.trace_comparison import differences, names_of, side_by_side
from servescope.reports import trace_figures as figures
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table, told

Draw = Callable[[Mapping[str, pl.DataFrame]], go.Figure | None]
ROWS = 100  # of a table on the page; the whole is in the CSV files

FIGURES: Final[dict[str, tuple[tuple[str, Draw, str], ...]]] = {
    "clock": (
        ("clock_phase", figures.clock_phase,
         "Even for a fine clock; a peak is a phase that stamps favour."),
    ),
    "arrivals": (
        ("rate", figures.rate, "Calls a second; the band is how sure each count is."),
        ("gap_windows", figures.gap_windows, "Each dot a window; 1 is Poisson."),
        ("gap_distribution", figures.gap_distribution,
         "Share of gaps longer than a length; nothing is drawn below twice the tick."),
    ),
    "burstiness": (
        ("dispersion", figures.dispersion,
         "Variance over mean of calls a window; 1 is Poisson at every width."),
        ("dispersion", figures.peak_to_mean, "What the busiest window holds, over the mean one."),
        ("poisson_test", figures.poisson_test,
         "How calls split between halves of a window, whatever the rate does; grey is Poisson."),
        ("interval_dispersion", figures.interval_dispersion,
         "Level for renewal processes; it rises where gaps remember."),
    ),
    "rhythm": (
        ("hours", figures.hours, "Mean over whole days, with its interval from three on."),
        ("components", figures.components, "What is left of the calls is noise and bursts."),
        ("count_autocorrelation", figures.autocorrelation,
         "Counts without trend; a slow fall is long memory."),
    ),
    "lengths": (
        ("length_ccdf", figures.lengths("input_tokens", "prompt (tokens)"),
         "Share of calls with a longer prompt; a straight tail is a power law."),
        ("length_ccdf", figures.lengths("output_tokens", "answer (tokens)"),
         "Share of calls with a longer answer."),
        ("length_drift", figures.length_drift, "Medians and p90 in equal stretches of time."),
    ),
    "dependence": (
        ("conditional_output", figures.conditional,
         "Answers in tenths of the prompts; level if they do not depend."),
        ("copula_density", figures.copula,
         "Red: ranks that fall together more often than by chance."),
    ),
    "sessions": (
        ("turns", figures.turns, "Share of programs with as many calls or more."),
        ("growth", figures.growth, "How the context grows from call to call."),
        ("live_programs", figures.live, "Programs that have begun and not yet had their last."),
        ("concentration", figures.concentration(
            "programs_share", "tokens_share", "programs, largest first", "tokens they hold"),
         "How few programs hold most of the tokens."),
    ),
    "prefixes": (
        ("hit_curve", figures.hit_curve, "What an LRU cache of a size would find; exact."),
    ),
    "clients": (
        ("client_concentration", figures.concentration(
            "clients", "calls_share", "clients, largest first", "calls they make"),
         "How few clients make most of the calls."),
        ("clients", figures.clients, "Each dot a client; 1 is Poisson."),
        ("total_rate", figures.total_rate, "Whose rate the swings of the whole are."),
    ),
    "failures": (
        ("failures_over_time", figures.failures_over_time, "When calls failed."),
        ("failures_by_length", figures.failures_by("input_from", "input_to", "prompt (tokens)"),
         "Whether long prompts fail more."),
        ("failures_by_load", figures.failures_by("from_rps", "to_rps", "calls /s in the window"),
         "Whether calls fail more under load."),
    ),
    "load": (
        ("tokens_over_time", figures.tokens, "Tokens asked for, by arrival."),
        ("token_dispersion", figures.token_dispersion,
         "1: Poisson arrivals whose lengths know nothing of each other."),
        ("mix_over_time", figures.mix, "How the mix of calls drifts."),
        ("in_flight", figures.in_flight("calls", "calls in flight"), "Without any queue."),
        ("in_flight", figures.in_flight("kv_gb", "keys and values (GB)"), "Without any queue."),
    ),
}  # fmt: skip

_STATISTICS = (
    Column("says", "statistic", "prose"),
    Column("subject", "of", "text"),
    Column("value", "value", "number"),
    Column("low", "from", "number"),
    Column("high", "to (95 %)", "number"),
    Column("p_value", "p", "p"),
    Column("unit", "unit", "text"),
    Column("n", "n", "count"),
)
_DEFINITIONS = (
    Column("name", "name", "text"),
    Column("says", "what it is", "prose"),
    Column("unit", "unit", "text"),
    Column("estimator", "how it is estimated", "prose"),
    Column("uncertainty", "its interval or p-value", "prose"),
    Column("source", "source", "prose"),
)
_LEFT_OUT = (Column("what", "left out", "text"), Column("why", "because", "prose"))


def sections_of(
    found: Sequence[Characterization],
    layouts: Mapping[str, Mapping[str, pl.DataFrame]] | None = None,
) -> list[Section]:
    """Return the sections of a page of one trace, or of several side by side.

    `layouts` are what `analysis.literature.recreate` filled, by the paper's name; of one trace.
    """
    made = [_summary(found)]
    for name, tables in (layouts or {}).items():
        made.append(_layout(name, tables, found[0]))
    if len(found) > 1:
        made += [_differences(found), _side_by_side(found)]
    made += [section for key in ASPECTS if (section := _aspect(key, found))]
    return made


def _summary(found: Sequence[Characterization]) -> Section:
    notes = []
    for each, name in zip(found, names_of(found), strict=True):
        own = f"{name}: " if len(found) > 1 else ""
        notes += [
            Note("verdict", f"{own}{sentence.text}", link=f"#{sentence.aspect}", linked="more")
            for sentence in sentences(each)
        ]
        notes += [Note("doubt", f"{own}{doubt}", "Doubt") for doubt in each.about.doubts]
    return Section("summary", "In short", tuple(notes))


def _layout(name: str, tables: Mapping[str, pl.DataFrame], found: Characterization) -> Section:
    layout = layout_of(name)
    blocks: list[Note | Table | Figure] = [Note("why", f"{layout.source}. {layout.note}")]
    for title, table in tables.items():
        columns = (
            Column("quantity", title, "text"),
            Column("published", "published", "number"),
            Column("ours", "this trace", "number"),
            Column("unit", "unit", "text"),
        )
        blocks.append(Table(columns, table.to_dicts()))
    everything = [each for group in FIGURES.values() for each in group]
    for key, title in layout.figures.items():
        for kind, draw, _ in everything:
            if kind != key or key not in found.tables:
                continue
            figure = draw({found.name: found.tables[key]})
            if figure:
                blocks.append(Figure(figure, f"{title}.", table=key))
    return Section(f"as-{name}", f"As {layout.title} shows it", tuple(blocks))


def _differences(found: Sequence[Characterization]) -> Section:
    table = differences(found)
    baseline = names_of(found)[0]
    columns = (
        Column("trace", "trace", "text"),
        Column("quantity", "quantity", "text"),
        Column("subject", "of", "text"),
        Column("baseline", baseline, "number"),
        Column("value", "value", "number"),
        Column("change", "change", "number"),
        Column("low", "from", "number"),
        Column("high", "to (95 %)", "number"),
        Column("p_value", "p", "p"),
        Column("p_adjusted", "p, Holm", "p"),
        Column("how", "change is", "text"),
    )
    sure = table.filter(pl.col("p_adjusted") < 0.05)
    notes = [
        Note(
            "verdict",
            f"Of {table.height} quantities that can be compared {sure.height} differ (Holm-adjusted"
            " p below 0.05).",
        ),
        Note(
            "why",
            "Numbers are compared by Welch's t from their intervals, distributions by the KS"
            " distance with sections of time permuted, so that bursts are no evidence.",
        ),
    ]
    rows = [*sure.sort("p_adjusted").to_dicts(),
            *table.filter(pl.col("p_adjusted") >= 0.05).to_dicts()]  # fmt: skip
    return Section("differences", "What differs", (*notes, Table(columns, rows)))


def _side_by_side(found: Sequence[Characterization]) -> Section:
    table = side_by_side(found)
    names = names_of(found)
    columns = (
        Column("says", "statistic", "prose"),
        Column("subject", "of", "text"),
        Column("unit", "unit", "text"),
        *(Column(name, name, "number") for name in names),
    )
    rows = [
        row | {"says": ASPECTS[row["aspect"]].statistics[row["statistic"]].says}
        for row in table.to_dicts()
    ]
    return Section("side-by-side", "Side by side", (Table(columns, rows, folded="Every number"),))


def _aspect(key: str, found: Sequence[Characterization]) -> Section | None:
    aspect = ASPECTS[key]
    names = names_of(found)
    blocks: list[Note | Table | Figure] = []
    for table, draw, says in FIGURES[key]:
        there = {
            name: each.tables[table]
            for name, each in zip(names, found, strict=True)
            if table in each.tables
        }
        figure = draw(there) if there else None
        if figure:
            blocks.append(Figure(figure, says, table=table))
    several = len(found) > 1
    if key == "clock":
        blocks += _units(found, names)
    if key == "lengths" and not several and "length_quantiles" in found[0].tables:
        blocks.append(_quantiles(found[0].tables["length_quantiles"]))
    for number, (each, name) in enumerate(zip(found, names, strict=True)):
        own = f", {name}" if several else ""
        statistics = each.statistics.filter(pl.col("aspect") == key)
        if statistics.height and not several:
            rows = [
                row
                | {
                    "says": aspect.statistics[row["statistic"]].says,
                    "subject": row["subject"] or None,
                }
                for row in statistics.to_dicts()
            ]
            # what is of a model or a class stands folded, for there may be many
            parts = [row for row in rows if key == "lengths" and ", " in str(row["subject"])]
            whole = [row for row in rows if row not in parts]
            blocks.append(Table(told(_STATISTICS, whole), whole))
            if parts:
                columns = told(_STATISTICS, parts)
                blocks.append(Table(columns, parts, folded="The same by model and class"))
        for kind in aspect.tables:
            if kind in each.tables:
                blocks.append(_table(kind, each.tables[kind], key, own, linked=not number))
        left = each.left_out.filter(pl.col("aspect") == key)
        if left.height:
            blocks.append(
                Table(_LEFT_OUT, left.to_dicts(), folded=f"What is left out, and why{own}")
            )
    if not blocks:
        return None
    if all(isinstance(block, Table) and block.columns == _LEFT_OUT for block in blocks):
        why = dict.fromkeys(row["why"] for each in found for row in each.left_out.filter(
            pl.col("aspect") == key).to_dicts())  # fmt: skip
        return Section(key, aspect.title, (Note("why", f"Left out: {'; '.join(why)}."),))
    blocks.append(_definitions(key, found))
    return Section(key, aspect.title, tuple(blocks))


def _units(found: Sequence[Characterization], names: Sequence[str]) -> list[Note]:
    """Say in what unit each source writes its times, and in which all stamps are whole."""
    notes = []
    for each, name in zip(found, names, strict=True):
        if not each.audit.stamps:
            continue
        own = f"{name}: " if len(found) > 1 else ""
        said = f"{own}The source writes times as {each.audit.unit or 'it does not say what'}"
        whole = each.audit.stamp_unit
        notes.append(Note("why", f"{said}; all stamps are whole {whole}." if whole else f"{said}."))
    return notes


def _quantiles(table: pl.DataFrame) -> Table:
    """Return lengths with a row a group and a column a quantile."""
    named = table.with_columns(
        name=pl.format("p{}", (pl.col("quantile") * 100).cast(pl.String).str.strip_suffix(".0"))
    )
    wide = named.pivot("name", index=["column", "of", "calls"], values="tokens")
    columns = (
        Column("column", "lengths", "text"),
        Column("of", "of", "text"),
        Column("calls", "calls", "count"),
        *(Column(name, name, "number") for name in wide.columns[3:]),
    )
    rows: list[dict[str, Cell]] = wide.with_columns(pl.col("of").replace("", "all")).to_dicts()
    return Table(columns, rows)


def _table(name: str, frame: pl.DataFrame, key: str, own: str, *, linked: bool) -> Table:
    about = ASPECTS[key].tables[name]
    shown = sampled(frame, ROWS)
    columns = tuple(
        Column(
            column,
            column if unit in ("name", "1", "yes or no") else f"{column} ({unit})",
            "text" if frame[column].dtype in (pl.String, pl.Boolean)
            else "p" if column.startswith("p_value") or column == "serial_p"
            else "number",
        )
        for column, unit in about.units.items()
    )  # fmt: skip
    rows = [
        {k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()}
        for row in shown.to_dicts()
    ]
    more = f" {shown.height} of {frame.height} rows." if shown.height < frame.height else ""
    says = f"{about.estimator[0].upper()}{about.estimator[1:]}.{more}"
    return Table(
        columns, rows, says, folded=f"{name}: {about.says}{own}", name=name if linked else ""
    )


def _definitions(key: str, found: Sequence[Characterization]) -> Table:
    aspect = ASPECTS[key]
    said = {
        name
        for each in found
        for name in each.statistics.filter(pl.col("aspect") == key)["statistic"]
    }
    rows: list[dict[str, Cell]] = [
        {
            "name": name,
            "says": about.says,
            "unit": about.unit,
            "estimator": about.estimator,
            "uncertainty": about.uncertainty,
            "source": about.source or None,
        }
        for name, about in aspect.statistics.items()
        if name in said
    ]
    there = {table for each in found for table in each.tables}
    rows += [
        {
            "name": name,
            "says": about.says,
            "unit": None,
            "estimator": about.estimator,
            "uncertainty": about.uncertainty,
            "source": about.source or None,
        }
        for name, about in aspect.tables.items()
        if name in there
    ]
    return Table(_DEFINITIONS, rows, folded="Definitions and sources")
