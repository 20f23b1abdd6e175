"""The figures: tails, latency and load over time, latency over length."""

from __future__ import annotations

from servescope.analysis.intervals import fewest
from servescope.reports import figures, timelines
from servescope.reports.blocks import Figure, Section
from servescope.reports.story import Story


def pictures(story: Story) -> Section:
    """Draw the tails, the calls over time with the load that met them, and TTFT over length."""
    blocks = []
    for metric, says in (
        ("ttft", "Share of calls whose first token took longer."),
        ("tbt", "Share of gaps between tokens that were longer."),
        ("icl", "Share of gaps between chunks that were longer (chunks hold several tokens here)."),
        ("jct", "Share of programs that took longer from first due call to last token."),
    ):
        samples = story.samples(metric)
        if samples and not (metric == "icl" and story.samples("tbt")):
            blocks.append(Figure(figures.ccdf(samples, metric), says))
    if story.samples("ttft"):
        said = " and what waited in the servers' queues" if story.servers else ""
        says = f"TTFT of calls at the moment they were due, above what arrived{said}."
        calls = story.columns("call_id", "due_s", "input_tokens", "ttft")
        picture = timelines.latency(calls, "ttft", story.servers)
        blocks.append(Figure(picture, says, wide=True))
        says = (
            "TTFT against the length of the prompt: p50, and p99 where a bin holds the"
            f" {fewest(0.99)} calls that it needs."
        )
        blocks.append(Figure(figures.over_length(calls, "ttft"), says))
    in_flight = {name: whole.in_flight for name, whole in story.wholes.items()}
    says = "Calls sent and not ended: the load that was there."
    if story.part:
        says = "Calls of this part, sent and not ended; others were in flight beside them."
    blocks.append(Figure(timelines.in_flight(in_flight), says))
    return Section("pictures", "Pictures", tuple(blocks))
