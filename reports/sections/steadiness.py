"""Whether a run was steady, and what it would look like without its warm-up."""

from __future__ import annotations

import polars as pl

from servescope.analysis.measured import Measured
from servescope.analysis.steady_state import Trim, stationarity_of, trim_of
from servescope.reports.blocks import Cell, Column, Note, Section, Table, told
from servescope.reports.story import Story

MATTERS = 0.05
_SHOWN = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("e2e", 0.99))
_COLUMNS = (
    Column("run", "run"),
    Column("left_out_s", "left out (s)", "rate"),
    Column("floor_s", "floor (s)", "rate"),
    Column("mser_s", "MSER-5 (s)", "rate"),
    Column("warmup_s", "warm-up, auto (s)", "rate"),
    Column("ttft_p50", "TTFT p50 without it", "ratio"),
    Column("ttft_p99", "TTFT p99", "ratio"),
    Column("tpot_p50", "TPOT p50", "ratio"),
    Column("e2e_p99", "E2E p99", "ratio"),
    Column("kpss", "stationary, KPSS", "p"),
    Column("trend", "no trend, Kendall", "p"),
    Column("drift", "drift of TTFT", "share"),
)


def steadiness(story: Story) -> Section | None:
    """Show what the warm-up is, what difference it makes, and whether the rest drifts."""
    rows: list[dict[str, Cell]] = []
    notes: list[Note] = []
    for name, measured in story.measured.items():
        calls = measured.calls
        trim = trim_of(calls)
        if trim is None:
            continue
        known = calls.select("due_s", "ttft").drop_nulls()
        steady = stationarity_of(known["due_s"].to_numpy(), known["ttft"].to_numpy())
        changes = _changes(measured, trim)
        rows.append(
            {
                "run": name,
                "left_out_s": story.named[name].info.warmup_s,
                "floor_s": trim.floor_s - trim.first_s,
                "mser_s": None if trim.mser_s is None else trim.mser_s - trim.first_s,
                "warmup_s": trim.warmup_s,
                **changes,
                "kpss": steady.kpss if steady else None,
                "trend": steady.trend if steady else None,
                "drift": steady.drift if steady else None,
            }
        )
        worst = max((abs(ratio - 1) for ratio in changes.values() if ratio), default=0.0)
        if worst > MATTERS:
            text = (
                f"{name}: without the first {trim.warmup_s:.3g} s its numbers change by up to"
                f" {worst:.0%}; --trim auto leaves them out everywhere."
            )
            notes.append(Note("doubt", text, "Warm-up"))
        if steady and not steady.stationary:
            text = (
                f"{name}: TTFT drifted ({steady.drift:+.0%} from the first third to the last): the"
                " load changed, or the server never reached a steady state. Numbers of the whole"
                " run depend on how long it was."
            )
            notes.append(Note("doubt", text, "Drift"))
    if not rows:
        return None
    says = (
        "The floor is twice the longest call (p99 of E2E from due); MSER-5 cuts where the mean of"
        " the rest is surest. Auto is the later of the two, and at most half of the run. The ratios"
        " compare the run without its warm-up to the whole. KPSS and Kendall test whether mean TTFT"
        " stays what it is over 20 sections of the run: below 0.05 it does not."
    )
    return Section(
        "steadiness", "Was it steady?", (*notes, Table(told(_COLUMNS, rows), rows, says))
    )


def _changes(measured: Measured, trim: Trim) -> dict[str, float | None]:
    """Return each headline statistic without the warm-up over that of all calls."""
    calls = measured.calls
    begun = calls.group_by("program_id").agg(pl.col("due_s").min())
    late = begun.filter(pl.col("due_s") >= trim.from_s)
    rest = calls.join(late, on="program_id", how="semi")
    changes: dict[str, float | None] = {}
    for name, q in _SHOWN:
        whole = calls[name].quantile(q, "equiprobable")
        part = rest[name].quantile(q, "equiprobable")
        known = whole is not None and part is not None and whole > 0
        changes[f"{name}_p{q * 100:g}"] = part / whole if known else None  # type: ignore[operator]
    return changes
