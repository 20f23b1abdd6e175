"""Other tools' numbers on a page: every field, for every run, with ours beside it."""

import json
from pathlib import Path

import polars as pl
import pytest

from servescope.analysis import SLO
from servescope.analysis.profiles import PROFILES
from servescope.reports import Story, exports, sections_of, story_of, write
from servescope.reports.blocks import Note, Section, Table
from servescope.traces import Run


@pytest.fixture(scope="module")
def story(runs: list[Run]) -> Story:
    asked = [PROFILES["vllm"], PROFILES["mlperf"]]
    return story_of(runs, SLO.parse("ttft<2s"), asked)


@pytest.fixture(scope="module")
def section(story: Story) -> Section:
    return next(section for section in sections_of(story) if section.name == "profiles")


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def test_every_field_has_a_row_for_each_run_and_a_definition(
    story: Story, section: Section
) -> None:
    values, meaning, mlperf, _ = tables(section)
    fields = [field.name for field in PROFILES["vllm"].fields]
    assert [row["field"] for row in values.rows] == [name for name in fields for _ in story.runs]
    assert {row["run"] for row in values.rows} == set(story.named)
    assert [row["field"] for row in meaning.rows] == fields
    assert meaning.defines
    assert not values.defines
    assert values.columns[0].heading == "field of vllm"
    assert "0.1.0 of the repository" in mlperf.says


def test_ours_stands_beside_by_our_own_definition_in_the_tools_unit(
    story: Story, section: Section
) -> None:
    name = story.title.split(" against ")[0]
    rows = {row["field"]: row for row in tables(section)[0].rows if row["run"] == name}
    summary = story.summaries[name].row(by_predicate=pl.col("metric") == "ttft", named=True)
    assert rows["mean_ttft_ms"]["our_name"] == "TTFT mean"
    assert rows["mean_ttft_ms"]["ours"] == pytest.approx(summary["mean"] * 1000)
    assert rows["median_ttft_ms"]["ours"] == pytest.approx(summary["p50"] * 1000)
    assert rows["request_goodput"]["ours"] == pytest.approx(rows["request_goodput"]["value"])
    assert rows["std_ttft_ms"]["ours"] is None
    assert rows["std_ttft_ms"]["our_name"] is None
    in_ns = {row["field"]: row for row in tables(section)[2].rows if row["run"] == name}
    assert in_ns["ttft.avg"]["ours"] == pytest.approx(summary["mean"] * 1e9)


def test_what_the_tool_would_have_done_otherwise_is_said_once(section: Section) -> None:
    notes = [block.text for block in section.blocks if isinstance(block, Note)]
    assert len(notes) == len(set(notes))
    assert set(PROFILES["vllm"].doubts) <= set(notes)


def test_it_is_on_the_page_in_the_json_in_markdown_and_in_csv(story: Story, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    made = write(story, page)
    assert "mean_ttft_ms" in page.read_text()
    told = json.loads(page.with_suffix(".json").read_text())["sections"]["profiles"]
    rows = [row for block in told if block["kind"] == "table" for row in block["rows"]]
    assert {"completed", "n_samples_completed"} <= {row["field"] for row in rows}
    assert r"mean\_ttft\_ms" in exports.markdown(story.title, made)
    written = {path.name for path in exports.write_csv(made, tmp_path / "csv")}
    assert {"profiles-1.csv", "profiles-2.csv"} <= written
    assert "field,run,value,unit" in (tmp_path / "csv" / "profiles-1.csv").read_text()


def test_without_a_profile_there_is_no_such_section(single: Story) -> None:
    assert "profiles" not in [section.name for section in sections_of(single)]
