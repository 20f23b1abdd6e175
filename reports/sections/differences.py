"""Every statistic of two runs side by side, and how sure their ratio is."""

from __future__ import annotations

from servescope.reports import figures
from servescope.reports.blocks import Column, Figure, Section, Table
from servescope.reports.story import Story


def differences(story: Story) -> Section | None:
    """Show every statistic of both runs and the interval of their ratio."""
    comparison = story.comparison
    if comparison is None:
        return None
    a, b = comparison.a, comparison.b
    intervals = "There are too few for intervals."
    if comparison.blocks:
        intervals = f"The intervals are of {comparison.blocks} blocks of time, drawn again."
    table = Table(
        (
            Column("statistic", "statistic"),
            Column("verdict", f"{b} is"),
            Column("ratio", f"{b} / {a}", "ratio"),
            Column("low", "95 % from", "ratio"),
            Column("high", "to", "ratio"),
            Column("a", f"{a} (ms)", "ms"),
            Column("b", f"{b} (ms)", "ms"),
        ),
        [
            {
                "statistic": row.label,
                "a": row.a,
                "b": row.b,
                "ratio": row.b / row.a if row.a else None,
                "low": row.ratio.low if row.ratio else None,
                "high": row.ratio.high if row.ratio else None,
                "verdict": row.verdict,
            }
            for row in comparison.differences
        ],
        f"{comparison.pairs} pairs of calls, of the programs that both runs hold whole."
        f" {intervals} The verdict is the one question that was asked beforehand; these rows"
        " describe, and one in twenty may differ by chance.",
    )
    blocks: list[Table | Figure] = [table]
    if comparison.blocks:
        blocks.append(
            Figure(figures.forest(comparison), "An interval that crosses 1 tells nothing apart.")
        )
    return Section("differences", "By how much, and how sure", tuple(blocks))
