import re
import shutil
from pathlib import Path

import pytest

from servescope.analysis import Measured, totals_of
from servescope.analysis.timeline import STAGES
from servescope.analysis.totals import Whole
from servescope.reports import Story, sections_of, story_of
from servescope.reports.blocks import Figure, Note, Table
from servescope.reports.sections import SECTIONS
from servescope.traces import Run, plugins


def tables(story: Story, name: str) -> list[Table]:
    section = SECTIONS[name](story)
    assert section is not None
    return [block for block in section.blocks if isinstance(block, Table)]


def test_a_comparison_has_every_section_and_a_single_run_all_but_the_differences(
    pair: Story, single: Story
) -> None:
    # a simulation has no server, and no other tool's definitions were asked for
    expected = [name for name in SECTIONS if name not in ("server", "profiles")]
    assert [section.name for section in sections_of(pair)] == expected
    expected.remove("differences")
    expected.remove("objectives")  # no SLO was asked
    assert [section.name for section in sections_of(single)] == expected


def test_the_verdict_comes_first_and_doubts_of_both_runs_are_said_once(pair: Story) -> None:
    section = sections_of(pair)[0]
    notes = [block for block in section.blocks if isinstance(block, Note)]
    assert notes[0].kind == "verdict"
    assert pair.comparison is not None
    assert notes[0].text == pair.comparison.verdict
    inferred = [note for note in notes if "Sessions are inferred" in note.text]
    assert len(inferred) == 1
    assert inferred[0].text.startswith("Sessions")


def test_tables_hold_the_numbers_of_the_analysis(pair: Story) -> None:
    service = tables(pair, "service")[0]
    told = totals_of(Whole(Measured.of(pair.runs[0])))
    assert service.rows[0]["calls"] == told["calls"]
    assert service.rows[0]["output_tps"] == told["output_tps"]
    latencies = tables(pair, "latencies")[0]
    ttft = Measured.of(pair.runs[1]).values("ttft")["value"]
    row = next(r for r in latencies.rows if r["metric"] == "TTFT" and r["run"] != "plain")
    assert row["max"] == ttft.max()
    assert row["n"] == len(ttft)


def test_every_metric_in_the_table_is_defined_on_the_same_page(pair: Story) -> None:
    latencies, definitions = tables(pair, "latencies")
    assert {row["metric"] for row in latencies.rows} == {row["metric"] for row in definitions.rows}


def test_virtual_time_claims_no_client_lag(pair: Story) -> None:
    latencies = tables(pair, "latencies")[0]
    assert all(row["metric"] != "Schedule lag" for row in latencies.rows)


def test_chunk_gaps_are_drawn_only_where_token_gaps_are_not_known(pair: Story) -> None:
    section = SECTIONS["pictures"](pair)
    assert section is not None
    says = [block.says for block in section.blocks if isinstance(block, Figure)]
    assert any("gaps between tokens" in text for text in says)
    assert not any("gaps between chunks" in text for text in says)


def test_a_stranger_adds_a_section_by_an_entry_point(
    single: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    from servescope.reports.blocks import Section

    class Point:
        name = "mine"

        @staticmethod
        def load() -> object:
            return lambda story: Section("mine", "Mine", (Note("plain", story.title),))

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point])
    assert sections_of(single)[-1].name == "mine"


def test_two_runs_of_one_name_are_told_apart_by_their_folders(
    runs: list[Run], tmp_path: Path
) -> None:
    """A copy of a run compared with itself: an A/A comparison finds nothing, and loses neither."""
    twin = Run.open(Path(shutil.copytree(runs[0].path, tmp_path / "twin")))
    story = story_of([runs[0], twin])
    assert story.comparison is not None
    assert "are equivalent within 5%" in story.comparison.verdict
    service = tables(story, "service")[0]
    assert [row["run"] for row in service.rows] == [str(runs[0].path), str(twin.path)]


def test_the_page_of_the_report_names_every_section_and_stage_in_its_order() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/report.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(SECTIONS)
    assert re.findall(r"^\| ([a-z][a-z +]+) \|", page, re.MULTILINE)[1:] == [
        "stage",
        *STAGES.values(),
    ]
