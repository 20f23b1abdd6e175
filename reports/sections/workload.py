"""What traffic it was."""

from __future__ import annotations

from servescope.analysis.binned import sampled
from servescope.analysis.sample import Sample
from servescope.reports import figures
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table
from servescope.reports.canvas import MOST_DOTS
from servescope.reports.story import Story


def workload(story: Story) -> Section:
    """Say what traffic it was."""
    run = story.runs[0]
    calls = next(iter(story.columns("input_tokens", "output_tokens").values()))
    asked = (run.path / "experiment.toml").read_text()
    rows: list[dict[str, Cell]] = [
        {"what": "calls planned", "value": run.info.planned_calls},
        {"what": "programs", "value": run.info.workload.get("programs")},
        {
            "what": "programs of several calls",
            "value": run.info.workload.get("multi_turn_programs"),
        },
    ]
    for what, column in (("input tokens", "input_tokens"), ("output tokens", "output_tokens")):
        lengths = Sample.of(calls[column].drop_nulls())
        for name, value in (("mean", lengths.mean()), ("p99", lengths.quantile(0.99))):
            if value is not None:
                rows.append({"what": f"{what}, {name}", "value": round(value)})
    table = Table((Column("what", ""), Column("value", "", "count")), rows)
    shown = sampled(calls.drop_nulls(), MOST_DOTS)
    says = "One point a call."
    if shown.height < calls.height:
        says = f"{shown.height} of the {calls.height} calls, evenly chosen."
    picture = Figure(figures.lengths(shown), says)
    return Section("workload", "The traffic", (table, picture, Note("plain", asked, "experiment")))
