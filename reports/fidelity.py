"""The page of synthetic traces against the real one; as JSON too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import plotly.graph_objects as go
import polars as pl

from servescope.analysis.fidelity import ASPECTS, Fidelity
from servescope.analysis.fidelity.verdict import sentences
from servescope.reports import exports, render
from servescope.reports import fidelity_figures as figures
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table, told

SERVING: Final = "serving"
TITLES: Final = {SERVING: "What a server would notice"} | {
    key: aspect.title for key, aspect in ASPECTS.items()
}
METRICS: Final = {
    "ttft_p50": "TTFT p50",
    "ttft_p99": "TTFT p99",
    "tbt_p99": "TBT p99",
    "e2e_p50": "E2E p50",
    "e2e_p99": "E2E p99",
    "jct_p50": "JCT p50",
    "jct_p99": "JCT p99",
    "queue_mean": "queue",
}
_LONGER = {"log_x": True, "log_y": True, "above": True, "share": True}

FIGURES: Final[dict[str, tuple[tuple[str, figures.Draw, str], ...]]] = {
    "marginals": (
        ("gap_s cdf", figures.overlaid("gap (s)", "share longer", **_LONGER),
         "Share of gaps longer than a length."),
        ("input_tokens cdf", figures.overlaid("prompt (tokens)", "share longer", **_LONGER),
         "Share of calls with a longer prompt."),
        ("output_tokens cdf", figures.overlaid("answer (tokens)", "share longer", **_LONGER),
         "Share of calls with a longer answer."),
    ),
    "temporal": (
        ("rate", figures.over_time, "Calls a second; the mean of several traces is smoother."),
        ("idc", figures.overlaid("width of the window (s)", "variance / mean", log_x=True,
                                 log_y=True, level=1.0),
         "Variance over mean of calls a window; 1 is Poisson at every width."),
    ),
    "joint": (
        ("copula", figures.copula("real"), "Real: red where ranks fall together."),
        ("copula", figures.copula("synthetic"), "Synthetic: the same colours are the same shares."),
        ("token_idc", figures.overlaid("width of the window (s)", "variance / mean (tokens)",
                                       log_x=True, log_y=True),
         "Variance over mean of tokens a window."),
    ),
    "sessions": (
        ("turns", figures.overlaid("calls of a program", "programs with as many or more",
                                   log_x=True, log_y=True, share=True),
         "Share of programs with as many calls or more."),
        ("session pause cdf", figures.overlaid("pause (s)", "share longer", **_LONGER),
         "Pauses between the calls of a program, or gaps where no pause is known."),
    ),
    "prefixes": (
        ("hit_curve", figures.overlaid("cache (blocks)", "hit rate", log_x=True, share=True),
         "What an LRU cache of a size would find; exact."),
    ),
}  # fmt: skip

_SCORES = (
    Column("says", "measure", "prose"),
    Column("subject", "of", "text"),
    Column("value", "score", "number"),
    Column("low", "from", "number"),
    Column("high", "to", "number"),
    Column("floor", "real on real", "number"),
    Column("bar", "bar", "number"),
    Column("real", "real", "number"),
    Column("synthetic", "synthetic", "number"),
    Column("unit", "unit", "text"),
)
_DEFINITIONS = (
    Column("measure", "name", "text"),
    Column("says", "what it is", "prose"),
    Column("unit", "unit", "text"),
    Column("how", "how it is computed", "prose"),
)
_IN_SECONDS = "Real and synthetic times are seconds; of the queue they are calls."
_LEFT_OUT = (Column("what", "left out", "text"), Column("why", "because", "prose"))


def write(found: Fidelity, out: Path, *, overwrite: bool = False) -> list[Section]:
    """Write the page to `out` and all that was found beside it as JSON; return the sections.

    Raises OutputExists, unless `overwrite`, and InputError for a name that does not end in .html.
    """
    beside = exports.beside(out, overwrite=overwrite)
    sections = sections_of(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render.html(title_of(found), sections), encoding="utf-8")
    beside.write_bytes(json(found))
    return sections


def title_of(found: Fidelity) -> str:
    """Return the heading of the page."""
    made = found.synthetic
    return f"{made[0] if len(made) == 1 else f'{len(made)} synthetic traces'} against {found.real}"


def json(found: Fidelity) -> bytes:
    """Return everything that was found as JSON."""
    page: dict[str, Any] = {
        "real": found.real,
        "synthetic": list(found.synthetic),
        "calls": list(found.calls),
        "summary": [sentence.text for sentence in sentences(found)],
        "tick_s": found.tick.step_s if found.tick else None,
        "scores": found.table.to_dicts(),
        "inside": dict(zip(("within", "of"), found.inside, strict=True)),
        "curves": {name: curve.to_dicts() for name, curve in found.curves.items()},
        "left_out": found.left_out.to_dicts(),
        "doubts": list(found.doubts),
    }
    return msgspec.json.format(msgspec.json.encode(page), indent=2)


def sections_of(found: Fidelity) -> list[Section]:
    """Return the sections of the page: what matters in words, the scores, then every aspect."""
    made = [_summary(found), _bars(found)]
    made += [_aspect(found, key) for key in TITLES]
    return [section for section in made if section is not None]


def _summary(found: Fidelity) -> Section:
    notes = [
        Note("verdict", each.text, link=f"#{each.aspect}", linked="more")
        for each in sentences(found)
    ]
    counts = [f"{calls:,}" for calls in sorted(found.calls[1:])]
    several = counts[0] if len(set(counts)) == 1 else f"{counts[0]} to {counts[-1]}"
    notes.append(
        Note(
            "why",
            f"{found.calls[0]:,} real calls against {several} of {len(counts)} synthetic"
            f" {'traces' if len(counts) > 1 else 'trace'}. A score near that of the real trace"
            " against itself, part against part, is as good as it gets.",
        )
    )
    return Section("summary", "In short", (*notes, *(Note("doubt", d) for d in found.doubts)))


def _bars(found: Fidelity) -> Section | None:
    """Return the scores that a good model is held to."""
    held = found.table.drop_nulls("bar").filter(pl.col("measure") != "of_median")
    if held.is_empty():
        return None
    rows: list[dict[str, Cell]] = [
        row | {"subject": row["subject"] or None, "met": "yes" if row["met"] else "no"}
        for row in held.to_dicts()
    ]
    met = sum(row["met"] == "yes" for row in rows)
    says = (
        f"{met} of {len(rows)} are met. A bar that the real trace itself misses, part against part,"
        " asks for more than the traces can show."
    )
    # a column of prose would keep the table off the terminal
    measure = Column("says", "measure", "text")
    columns = (measure, *_SCORES[1:7], Column("met", "met", "text"), _SCORES[-1])
    return Section(
        "bars", "What a good model is held to", (Table(told(columns, rows), rows, says),)
    )


def _aspect(found: Fidelity, key: str) -> Section | None:
    rows: list[dict[str, Cell]] = [
        row | {"subject": row["subject"] or None}
        for row in found.table.filter(pl.col("aspect") == key).to_dicts()
    ]
    left = found.left_out.filter(pl.col("aspect") == key).unique(maintain_order=True)
    blocks: list[Note | Table | Figure] = list(_figures(found, key))
    if rows:
        folded = [row for row in rows if row["measure"] == "of_median"]
        shown = [row for row in rows if row not in folded]
        says = _IN_SECONDS if key == SERVING else ""
        blocks.append(Table(told(_SCORES, shown), shown, says))
        if folded:
            columns = told(_SCORES, folded)
            blocks.append(Table(columns, folded, folded="Errors of the median of all traces"))
    if left.height and rows:
        blocks.append(Table(_LEFT_OUT, left.to_dicts(), folded="What is left out, and why"))
    elif left.height:
        told_why = "; ".join(f"{row['what']}: {row['why']}" for row in left.to_dicts())
        blocks.append(Note("why", f"Left out: {told_why}."))
    if rows:
        one_each = list({str(row["measure"]): row for row in rows}.values())
        blocks.append(Table(_DEFINITIONS, one_each, folded="Definitions"))
    return Section(key, TITLES[key], tuple(blocks)) if blocks else None


def _figures(found: Fidelity, key: str) -> Iterator[Figure]:
    if key == SERVING:
        rows = found.table.filter(pl.col("aspect") == key).to_dicts()
        yield from _drawn(
            figures.errors(rows, METRICS),
            "How far each metric is off at each load; the line is how far two parts of the real"
            " trace are apart.",
            wide=True,
        )
        for name, curve in found.curves.items():
            if name.startswith("ttft, "):
                says = f"Time to first token at {name.removeprefix('ttft, ')}."
                yield from _drawn(figures.quantiles(curve), says)
    for name, draw, says in FIGURES.get(key, ()):
        if name in found.curves:
            yield from _drawn(draw(found.curves[name]), says)


def _drawn(figure: go.Figure | None, says: str, *, wide: bool = False) -> Iterator[Figure]:
    if figure is not None:
        yield Figure(figure, says, wide)
