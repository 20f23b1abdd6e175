"""Programs: what JCT is made of, and how much slower than unloaded they were."""

from __future__ import annotations

from servescope.analysis.intervals import bounded
from servescope.analysis.metrics import JCT_PARTS, METRICS, QUANTILES
from servescope.analysis.survival import LOOKED_AT, STOPPED, of_programs
from servescope.reports import figures
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table
from servescope.reports.story import Story


def programs(story: Story) -> Section | None:
    """Show the parts of mean JCT along the critical path, and the slowdown; None without JCT."""
    rows: list[dict[str, Cell]] = []
    parts: dict[str, dict[str, float]] = {}
    notes: list[Note] = []
    for name, measured in story.measured.items():
        jct = measured.spread("jct")
        stopped = measured.columns("status", "due_s").select(STOPPED.any()).item()
        cut = of_programs(measured.columns(*LOOKED_AT)) if stopped else None
        if cut and cut.censored:
            median, mean = cut.quantile(0.5), cut.restricted_mean()
            told = [f"median {median:.3g} s" if median is not None else "a median beyond the run"]
            if mean:
                told.append(f"mean of at least {mean[0]:.3g} s (up to {cut.seen_s:.3g} s each)")
            text = (
                f"{name}: {cut.censored} programs had not ended when the run did. Counted for as"
                f" long as they were seen (Kaplan-Meier), JCT has a {' and a '.join(told)}; the"
                " table below is of those that ended, and too quick."
            )
            notes.append(Note("doubt", text, "Cut off"))
        if not len(jct):
            continue
        parts[name] = {
            part: measured.spread(part).mean() or 0.0
            for part in JCT_PARTS
            if len(measured.spread(part))
        }
        slowdown = measured.spread("slowdown")
        rows.append(
            {
                "run": name,
                "n": len(jct),
                "jct": jct.mean(),
                **parts[name],
                **{f"slowdown_{label}": bounded(slowdown, q) for label, q in QUANTILES.items()},
            }
        )
    if not rows:
        return None
    columns = (
        Column("run", "run"),
        Column("n", "programs done", "count"),
        Column("jct", "mean JCT (s)", "rate"),
        *(Column(part, f"{_short(part)} (s)", "rate") for part in JCT_PARTS),
        *(Column(f"slowdown_{label}", f"slowdown {label}", "ratio") for label in QUANTILES),
    )
    says = (
        "Of programs all of whose calls were answered. The parts are means along the critical path"
        " and add up to mean JCT. Slowdown is JCT over what the same path would take on an unloaded"
        " server, as far as this run shows one: a lower bound."
    )
    definitions: list[dict[str, Cell]] = [
        {"metric": METRICS[name].label, "says": METRICS[name].says}
        for name in ("jct", *JCT_PARTS, "slowdown")
    ]
    meaning = Table(
        (Column("metric", "metric"), Column("says", "definition", "prose")), definitions
    )
    picture = Figure(figures.parts_of_jct(parts), "Mean JCT and what it is made of.")
    return Section("programs", "Programs", (*notes, Table(columns, rows, says), picture, meaning))


def _short(part: str) -> str:
    return METRICS[part].label.removeprefix("JCT: ")
