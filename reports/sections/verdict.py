"""What came of it, and every reason to doubt it: the first thing on a page."""

from __future__ import annotations

from collections.abc import Sequence

from servescope.analysis.attainment import attained, requirements, unasked
from servescope.reports.blocks import Note, Section
from servescope.reports.sections.steadiness import unsteady
from servescope.reports.story import Story


def verdict(story: Story) -> Section:
    """Say what came of it first, then every reason to doubt it."""
    notes: list[Note] = []
    if story.refused:
        notes.append(Note("doubt", str(story.refused), "NOT COMPARED"))
    notes += [Note("doubt", text, "FAILED") for text in story.missing]
    if story.comparison:
        several = len(story.comparison.challenges) > 1
        notes += [
            Note("verdict", each.verdict, each.name if several else "")
            for each in story.comparison.challenges
        ]
    for name, run in story.named.items():
        validity = run.info.validity
        if validity == "unfinished":
            held = story.calls[name].height
            text = (
                f"{name} has not ended, or was killed: {held} of {run.info.planned_calls} planned"
                " calls are in it."
            )
            notes.append(Note("doubt", text, "UNFINISHED"))
        elif validity != "valid":
            text = f"{name}: the numbers are {validity}; the doubts below say why."
            notes.append(Note("doubt", text, validity.upper()))
    if not story.comparison:
        notes += [Note("verdict", served(story, name)) for name in story.named]
    said = [*(story.comparison.doubts if story.comparison else _doubts(story)), *unsteady(story)]
    if story.slo:
        said += [
            f"{name}: The SLO asks calls where {where}, and there is none."
            for name, measured in story.measured.items()
            for where in unasked(measured, story.slo)
        ]
    notes += [Note("doubt", doubt, "Doubt") for doubt in _merged(said, story)]
    return Section("verdict", "Verdict", tuple(notes))


def served(story: Story, name: str) -> str:
    """Say in a sentence what one run served, and how much of it within the SLO."""
    whole = story.wholes[name]
    if whole.measured.calls.is_empty():
        return f"{name}: no call has ended, so there is nothing to measure."
    text = f"{whole.served.height} of {whole.measured.calls.height} calls served"
    if story.slo and story.slo.of_each:
        met = attained(whole.measured, story.slo)
        text += f", {met.share:.1%} of {met.per} within {story.slo.each}"
    if story.slo:
        text += "".join(
            f"; {each}: {each.verdict}" for each in requirements(whole.measured, story.slo)
        )
    return f"{name}: {text}." if len(story.named) > 1 else f"{text}."


def _doubts(story: Story) -> tuple[str, ...]:
    return tuple(
        f"{name}: {doubt}" for name, run in story.named.items() for doubt in run.info.doubts
    )


def _merged(doubts: Sequence[str], story: Story) -> list[str]:
    """Say once what is doubted of every run."""
    names = list(story.named)
    merged: dict[str, list[str]] = {}
    for doubt in doubts:
        name = next((n for n in names if doubt.startswith(f"{n}: ")), "")
        merged.setdefault(doubt.removeprefix(f"{name}: ") if name else doubt, []).append(name)
    return [
        text if len(who) == len(names) or who == [""] else f"{', '.join(who)}: {text}"
        for text, who in merged.items()
    ]
