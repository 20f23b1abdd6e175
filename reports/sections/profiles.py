"""The same runs by the definitions of other tools, with ours beside them where we have the like."""

from __future__ import annotations

from collections.abc import Iterator

from servescope.analysis.profiles import Profile, Reading
from servescope.analysis.profiles.ours import label_of, value_of
from servescope.reports.blocks import Cell, Column, Note, Section, Table, told
from servescope.reports.story import Story


def profiles(story: Story) -> Section | None:
    """Show every field of the profiles that were asked for, and what each one means."""
    if not story.profiles:
        return None
    blocks = [block for profile in story.profiles for block in _blocks(story, profile)]
    return Section("profiles", "As other tools count", tuple(blocks))


def _blocks(story: Story, profile: Profile) -> Iterator[Note | Table]:
    readings = {name: Reading(profile, seen) for name, seen in story.seen.items()}
    doubts = {doubt: None for reading in readings.values() for doubt in reading.doubts}
    yield from (Note("doubt", doubt, profile.name) for doubt in doubts)
    rows: list[dict[str, Cell]] = []
    for field in profile.fields:
        label = label_of(field)
        for name, reading in readings.items():
            found = reading.of(field)
            rows.append(
                {
                    "field": field.name,
                    "run": name,
                    "value": found.value,
                    "unit": field.unit,
                    "ours": value_of(field, story.wholes[name], story.slo),
                    "our_name": label,
                    "why": found.why,
                }
            )
    columns = (
        Column("field", f"field of {profile.name}"),
        Column("run", "run"),
        Column("value", "value", "rate"),
        Column("unit", "unit"),
        Column("ours", "ours", "rate"),
        Column("our_name", "our metric"),
        Column("why", "not known, or without"),
    )
    says = (
        f"By the definitions of {profile.version} ({profile.tool}). What a run does not tell is"
        " left out, with the reason. Our own number beside it is by our own definition."
    )
    yield Table(told(columns, rows), rows, says)
    meaning: list[dict[str, Cell]] = [
        {"field": field.name, "unit": field.unit, "says": field.definition}
        for field in profile.fields
    ]
    yield Table(
        (
            Column("field", f"field of {profile.name}"),
            Column("unit", "unit"),
            Column("says", "definition", "prose"),
        ),
        meaning,
    )
