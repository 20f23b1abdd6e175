import re
import shutil
from pathlib import Path

import pytest

from servescope.reports import Story, story_of, write
from servescope.traces import Run
from servescope.traces.errors import InputError, OutputExists


def test_a_report_is_written_once_and_replaced_only_when_asked(
    single: Story, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "report.html"
    assert next(section.name for section in write(single, out)) == "verdict"
    assert out.with_suffix(".json").exists()
    with pytest.raises(OutputExists, match="--overwrite"):
        write(single, out)
    write(single, out, overwrite=True)


def test_a_report_tells_of_as_many_runs_as_there_are(runs: list[Run], tmp_path: Path) -> None:
    third = Run.open(shutil.copytree(runs[0].path, tmp_path / "third"))
    story = story_of([runs[0], runs[1], third])
    assert story.comparison is not None
    assert len(story.comparison.challenges) == 2
    write(story, tmp_path / "three.html")
    page = (tmp_path / "three.html").read_text()
    assert page.count('class="verdict"') == 2
    with pytest.raises(InputError, match="no run to report"):
        story_of([])


def test_runs_of_different_plans_are_told_side_by_side_and_not_compared(
    runs: list[Run], other: Run, tmp_path: Path
) -> None:
    story = story_of([runs[0], other])
    assert story.comparison is None
    write(story, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "did not run the same plan, so their calls cannot be paired" in page
    assert "other: " in page


def test_a_killed_run_is_reported_from_its_journal(runs: list[Run], tmp_path: Path) -> None:
    """As after SIGKILL: no calls.parquet, the last segment torn, run.json from the start."""
    import shutil

    killed = tmp_path / "killed"
    shutil.copytree(runs[0].path, killed)
    calls = runs[0].trace.collect()
    (killed / "calls.parquet").unlink()
    Run.open(killed).append(calls.sort("end_s").head(50))
    (killed / "calls" / "000002.part").write_bytes(b"ARROW1 and then nothing")
    story = story_of([Run.open(killed)])
    page = tmp_path / "report.html"
    write(story, page)
    served, held = re.search(r"(\d+) of (\d+) calls served", page.read_text()).groups()  # type: ignore[union-attr]
    assert (int(served), int(held) > 50) == (50, True)  # the unsent rest of begun programs too
    assert "has not ended" not in page.read_text()  # this one was sealed before it was torn


def test_a_run_that_never_ended_says_so(runs: list[Run], tmp_path: Path) -> None:
    import shutil

    import msgspec

    killed = Run.open(Path(shutil.copytree(runs[0].path, tmp_path / "killed")))
    killed.write_info(msgspec.structs.replace(killed.info, ended=None, validity="unfinished"))
    write(story_of([killed]), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    planned = killed.info.planned_calls
    assert (
        f"plain has not ended, or was killed: {planned} of {planned} planned calls are in it."
        in page
    )


def test_a_run_without_a_single_ended_call_says_so(runs: list[Run], tmp_path: Path) -> None:
    import shutil

    empty = tmp_path / "empty"
    shutil.copytree(runs[0].path, empty)
    (empty / "calls.parquet").unlink()
    write(story_of([Run.open(empty)]), tmp_path / "empty.html")
    page = (tmp_path / "empty.html").read_text()
    assert "no call has ended, so there is nothing to measure" in page
