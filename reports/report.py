"""A report: one run, or several compared, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from servescope.analysis.comparison import compare
from servescope.analysis.profiles import Profile
from servescope.analysis.slo import SLO
from servescope.reports import exports, render
from servescope.reports.blocks import Section
from servescope.reports.sections import SECTIONS
from servescope.reports.story import Story
from servescope.traces.errors import InputError
from servescope.traces.plugins import installed
from servescope.traces.run import Run


def story_of(
    systems: Sequence[Run | Sequence[Run]],
    slo: SLO | None = None,
    profiles: Sequence[Profile] = (),
    missing: Sequence[str] = (),
) -> Story:
    """Make the story of one run, or of systems that ran one plan; the first is the baseline.

    A system is a run or its repeats. Those that cannot be compared are told side by side, and
    `refused` of the story says why. `profiles` are told beside our own numbers. `missing` says
    which runs there should have been, and why they failed.
    """
    if not systems:
        raise InputError("There is no run to report.", "Name one or more.")
    runs = tuple(system if isinstance(system, Run) else system[0] for system in systems)
    story = Story(runs, slo, profiles=tuple(profiles), missing=tuple(missing))
    if len(systems) == 1:
        return story
    try:
        return replace(story, comparison=compare(systems, slo))
    except InputError as error:
        return replace(story, refused=error)


def sections_of(story: Story) -> list[Section]:
    """Return the sections that have a say; strangers add theirs as `servescope.sections`."""
    sections = {**SECTIONS, **installed("servescope.sections", SECTIONS)}  # ours come first
    made = (section(story) for section in sections.values())
    return [section for section in made if section]


def write(story: Story, out: Path, *, overwrite: bool = False) -> list[Section]:
    """Write the page to `out` and its numbers beside it as JSON; returns the sections of both."""
    json = exports.beside(out, overwrite=overwrite)
    sections = sections_of(story)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render.html(story.title, sections), encoding="utf-8")
    json.write_bytes(render.json(story.title, sections))
    return sections
