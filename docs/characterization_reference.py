"""Write docs/reference/characterization.md: `python docs/characterization_reference.py`."""

from __future__ import annotations

from pathlib import Path

from servescope.analysis.aspects import ASPECTS
from servescope.analysis.findings import Statistic, TableOf

PAGE = Path(__file__).parent / "reference" / "characterization.md"
HEAD = """\
# What `analyze` computes

Every number and table of [`servescope analyze`](../how-to/characterise-a-trace.md) and of `analysis.characterize`, with its unit, its estimator, how sure it is, and where it is from.
`docs/characterization_reference.py` writes this page from the code; a test fails when it is stale.
[How far off the estimators are](../explanation/characterization.md#how-far-off-the-estimators-are) was measured on laws whose truth is known.

A number stands in `Characterization.statistics` with its aspect, its name, what it is of (`subject`), its value, 95 % interval (`low`, `high`), p-value, n, unit, estimator and uncertainty.
A table stands in `Characterization.tables` by its name.
What a trace cannot say stands in `Characterization.left_out` with the reason.

"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    return HEAD + "\n".join(
        _aspect(aspect.title, aspect.statistics, aspect.tables) for aspect in ASPECTS.values()
    )


def _aspect(title: str, statistics: dict[str, Statistic], tables: dict[str, TableOf]) -> str:
    lines = [f"## {title}", ""]
    if statistics:
        lines += [
            "| number | what it is | unit | estimator | how sure | source |",
            "|" + "---|" * 6,
        ]
        lines += [
            f"| `{name}` | {_cell(s.says)} | {s.unit} | {_cell(s.estimator)} |"
            f" {_cell(s.uncertainty)} | {_cell(s.source)} |"
            for name, s in statistics.items()
        ]
        lines.append("")
    if tables:
        lines += [
            "| table | a row is | columns | estimator | how sure | source |",
            "|" + "---|" * 6,
        ]
        lines += [
            f"| `{name}` | {_cell(t.says)} |"
            f" {', '.join(f'`{c}` ({u})' for c, u in t.units.items())} | {_cell(t.estimator)} |"
            f" {_cell(t.uncertainty)} | {_cell(t.source)} |"
            for name, t in tables.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*") or " "


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
