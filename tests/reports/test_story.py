"""The story of a part of a run tells the same sections of what is in it."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from servescope.analysis.cut import EVERYTHING, Cut
from servescope.analysis.slo import SLO
from servescope.reports import Story, story_of
from servescope.reports.blocks import Figure, Section, Table
from servescope.reports.sections import SECTIONS
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.server import Journal, Sample, seal

SHOWN = ("pictures", "programs", "objectives", "groups", "latencies", "service", "workload")


@pytest.fixture(scope="module")
def story(runs: list[Run]) -> Story:
    return story_of(runs, SLO.parse("ttft<2s,stall<100ms"))


def tables(section: Section | None) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)] if section else []


def test_every_section_of_a_part_counts_its_calls_alone(story: Story) -> None:
    part = story.cut(Cut(10.0, 25.0))
    for name, calls in part.calls.items():
        inside = story.calls[name].filter(pl.col("due_s").is_between(10.0, 25.0, closed="left"))
        assert 0 < inside.height < story.calls[name].height
        assert calls["call_id"].to_list() == inside["call_id"].to_list()
    for name in SHOWN:
        assert SECTIONS[name](part) is not None
    (traffic, *_) = tables(SECTIONS["service"](part))
    assert [row["calls"] for row in traffic.rows] == [each.height for each in part.calls.values()]
    (asked, *_) = tables(SECTIONS["objectives"](part))
    assert [row["asked"] for row in asked.rows] == [each.height for each in part.calls.values()]


def test_all_of_it_draws_what_the_report_draws(story: Story) -> None:
    """A window that holds everything makes a part by other means, and the same figures."""
    everything = story.cut(Cut(-1.0, 1e9))
    for name in SHOWN:
        drawn, expected = SECTIONS[name](everything), SECTIONS[name](story)
        assert drawn is not None
        assert expected is not None
        for ours, theirs in zip(drawn.blocks, expected.blocks, strict=True):
            if isinstance(ours, Figure) and isinstance(theirs, Figure):
                assert ours.figure.to_json() == theirs.figure.to_json()
            else:
                assert ours == theirs


def test_a_part_of_a_part_is_of_the_whole(story: Story) -> None:
    part = story.cut(Cut(10.0, 25.0))
    again = part.cut(Cut(6.0, 9.0))
    assert again.whole is story
    assert again.calls.keys() == story.calls.keys()
    for calls in again.calls.values():
        assert calls.height
        assert calls["due_s"].is_between(6.0, 9.0, closed="left").all()
    whole = story.cut(EVERYTHING)
    assert whole.comparison is None
    assert [c.height for c in whole.calls.values()] == [c.height for c in story.calls.values()]


def test_a_part_without_a_call_has_sections_too(story: Story) -> None:
    part = story.cut(Cut(1e6))
    for name in SHOWN:
        section = SECTIONS[name](part)
        assert section is None or section.blocks


def test_what_no_run_knows_is_refused(story: Story) -> None:
    with pytest.raises(InputError):
        story.cut(Cut(where=(("colour", "red"),))).calls  # noqa: B018


def test_servers_are_told_of_in_the_window_and_tokens_of_the_calls_in_it(
    runs: list[Run], tmp_path: Path
) -> None:
    shutil.copytree(runs[0].path, tmp_path / "run")
    journal = Journal(tmp_path / "run")
    journal.append(
        Sample(float(t), replica, name, "", value)
        for t in range(6)
        for replica in "ab"
        for name, value in (("up", 1.0), ("vllm:num_requests_waiting", float(t)))
    )
    journal.flush()
    seal(tmp_path / "run")
    story = Story((Run.open(tmp_path / "run"),))
    part = story.cut(Cut(2.0, 4.0))
    (name,) = part.servers
    assert part.servers[name].select("t_s", "waiting").rows() == [(2.0, 2.0), (3.0, 3.0)] * 2
    (table, *_) = tables(SECTIONS["server"](part))
    assert [(row["replica"], row["waiting_peak"]) for row in table.rows] == [("a", 3), ("b", 3)]
    of_b = story.cut(Cut(where=(("replica", "b"),)))
    assert of_b.servers[name]["replica"].unique().to_list() == ["b"]
    told = {n: sum(of.received[name].values()) for n, of in (("part", part), ("all", story))}
    assert told == {
        n: of.calls[name].filter(pl.col("replica").is_not_null())["output_tokens"].sum()
        for n, of in (("part", part), ("all", story))
    }
