"""Every statistic of each system beside the baseline's, how sure their ratio is, and why."""

from __future__ import annotations

from collections.abc import Iterator

from servescope.analysis import pairing
from servescope.analysis.comparison import Challenge, Comparison, Difference
from servescope.analysis.intervals import fewest
from servescope.analysis.metrics import METRICS
from servescope.reports import figures, paired_figures
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table, told
from servescope.reports.story import Story


def differences(story: Story) -> Section | None:
    """Show what explains each challenger, every statistic and the interval of its ratio.

    Then how the same calls differ over time and over the length of their prompts.
    """
    comparison = story.comparison
    if comparison is None:
        return None
    blocks: list[Note | Table | Figure] = []
    for challenge in comparison.challenges:
        several = len(comparison.challenges) > 1
        blocks += [
            Note("why", text, challenge.name if several else "") for text in challenge.explanations
        ]
        blocks.append(_table(comparison, challenge))
    if comparison.sections:
        blocks.append(
            Figure(
                figures.forest(comparison),
                "An interval that crosses 1 tells nothing apart; inside the grey band a difference"
                f" is less than {comparison.margin:.0%}.",
                wide=True,
            )
        )
    blocks += _of_the_same_calls(story, comparison)
    return Section("differences", "By how much, how sure, and why", tuple(blocks))


def _of_the_same_calls(story: Story, comparison: Comparison) -> Iterator[Figure]:
    """Draw where in the run, and at which lengths, the challengers differ from the baseline."""
    baseline = comparison.baseline
    rules = (
        f" Median, and where a stretch holds {fewest(0.9)} calls the middle 80 %. Below 0 the"
        " challenger was faster. Calls that failed in either are left out."
    )
    for metric in ("ttft", "e2e"):
        found = {
            each.name: pairing.differences(
                story.measured[baseline], story.measured[each.name], metric
            )
            for each in comparison.challenges
        }
        for draw, over in (
            (paired_figures.over_time, "when it was due"),
            (paired_figures.over_length, "the length of its prompt"),
        ):
            picture = draw(found, metric, baseline)
            if picture is not None:
                label = METRICS[metric].label
                says = f"{label} of each call less that of the same call in {baseline}, by {over}."
                yield Figure(picture, says + rules)
                rules = ""


def _table(comparison: Comparison, challenge: Challenge) -> Table:
    a, b = comparison.baseline, challenge.name
    rows: list[dict[str, Cell]] = [
        {
            "statistic": row.label,
            "verdict": row.verdict,
            **_beside(row),
            "ratio": row.b / row.a if row.a else None,
            "low": row.ratio.low if row.ratio else None,
            "high": row.ratio.high if row.ratio else None,
            "p": row.p_value,
            "holm": row.holm,
            "bh": row.bh,
            "wilcoxon": row.wilcoxon,
            "equivalence": row.equivalence,
            "delta": row.cliffs_delta,
        }
        for row in challenge.differences
    ]
    columns = (
        Column("statistic", "statistic"),
        Column("verdict", f"{b} is"),
        Column("a", f"{a} (ms)", "ms"),
        Column("b", f"{b} (ms)", "ms"),
        Column("ratio", f"{b} / {a}", "ratio"),
        Column("low", "95 % from", "ratio"),
        Column("high", "to", "ratio"),
        Column("p", "p", "p"),
        Column("holm", "p, Holm", "p"),
        Column("bh", "p, BH", "p"),
        Column("wilcoxon", "Wilcoxon", "p"),
        Column("equivalence", "TOST", "p"),
        Column("delta", "Cliff's delta", "ratio"),
        Column("a_ratio", f"{a} (ratio)", "ratio"),
        Column("b_ratio", f"{b} (ratio)", "ratio"),
    )
    says = f"{comparison.pairs} groups of the same call, of the programs that all runs hold whole."
    if comparison.repeats > 1:
        says += f" All {comparison.repeats} repeats count here; other sections show the first."
    if comparison.sections:
        says += (
            f" The intervals are of {comparison.sections} paired sections of time. p is the larger"
            " of a t-test and a sign-flip permutation test; a row is better or worse where p, after"
            " Holm's correction for all rows, is below 0.05, and equivalent where two one-sided"
            f" tests (TOST) find it within {comparison.margin:.0%}. BH bounds the share of false"
            " findings, for exploring. Cliff's delta is 1 where the challenger was lower in every"
            " section, -1 where it was higher in every one."
        )
    else:
        says += " There are too few for intervals."
    return Table(told(columns, rows), rows, says)


def _beside(row: Difference) -> dict[str, Cell]:
    """Return the values of both systems; a ratio is no time, and has columns of its own."""
    if METRICS[row.metric].unit == "ratio":
        return {"a": None, "b": None, "a_ratio": row.a, "b_ratio": row.b}
    return {"a": row.a, "b": row.b, "a_ratio": None, "b_ratio": None}
