"""Whether a run was steady, and what it would look like without its warm-up."""

from __future__ import annotations

from servescope.reports.blocks import Cell, Column, Section, Table, told
from servescope.reports.story import Story

MATTERS = 0.05
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
    for name, steady in story.steady.items():
        trim, whole = steady.trim, steady.whole
        rows.append(
            {
                "run": name,
                "left_out_s": story.named[name].info.warmup_s,
                "floor_s": trim.floor_s - trim.first_s,
                "mser_s": None if trim.mser_s is None else trim.mser_s - trim.first_s,
                "warmup_s": trim.warmup_s,
                **steady.changes,
                "kpss": whole.kpss if whole else None,
                "trend": whole.trend if whole else None,
                "drift": whole.drift if whole else None,
            }
        )
    if not rows:
        return None
    says = (
        "The floor is twice the longest call (p99 of E2E from due); MSER-5 cuts where the mean of"
        " the rest is surest. Auto is the later of the two, and at most half of the run. The ratios"
        " compare the run without its warm-up to the whole. KPSS and Kendall test whether mean TTFT"
        " stays what it is over 20 sections of the run: below 0.05 it does not."
    )
    return Section("steadiness", "Was it steady?", (Table(told(_COLUMNS, rows), rows, says),))


def unsteady(story: Story) -> list[str]:
    """Return the reasons to doubt numbers of a whole run: its warm-up counts, or it drifted."""
    doubts = []
    for name, steady in story.steady.items():
        left_out = story.named[name].info.warmup_s > 0
        if steady.most_changed > MATTERS and not left_out:
            doubts.append(
                f"{name}: Without the first {steady.trim.warmup_s:.3g} s numbers change by up to"
                f" {steady.most_changed:.0%}; --trim auto leaves it out everywhere."
            )
        if steady.whole and not steady.whole.stationary:
            doubts.append(
                f"{name}: TTFT drifted ({steady.whole.drift:+.0%} from the first third to the"
                " last): the load changed, or the server never reached a steady state. Numbers of"
                " the whole run depend on how long it was."
            )
    return doubts
