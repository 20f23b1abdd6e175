"""What is said of a pair of imported runs, whose plans are known in part."""

from pathlib import Path
from typing import Any

import pytest

from servescope.analysis import Measured, compare
from servescope.analysis.pairing import differences
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.results import Result


def a_run(path: Path, name: str, *, gap_s: float = 1.0, lost: int | None = None) -> Run:
    """An imported run of forty calls of forty lengths, one every `gap_s`; one may have failed."""
    rows: list[dict[str, Any]] = []
    for number in range(40):
        due = number * gap_s
        row: dict[str, Any] = {
            "call_id": str(number), "program_id": str(number), "turn": 0, "parents": [],
            "due_s": due, "sent_s": due, "input_tokens": 100 + number, "status": "error",
        }  # fmt: skip
        if number != lost:
            row |= {
                "status": "ok", "output_tokens": 2, "first_token_s": due + 0.1,
                "last_token_s": due + 0.2, "chunk_s": [due + 0.1, due + 0.2],
            }  # fmt: skip
        rows.append(row)
    result = Result.of(rows, name, tool="vllm", title="vLLM", file=name, sha256=name)
    return result.write(path / name, name)


def doubts(*runs: Run) -> str:
    return "\n".join(compare(runs).doubts)


def test_equal_lengths_at_equal_moments_leave_nothing_to_say(tmp_path: Path) -> None:
    said = doubts(a_run(tmp_path, "a"), a_run(tmp_path, "b"))
    assert "taken for the same" not in said
    assert "other moments" not in said


def test_calls_that_one_file_does_not_show_are_counted(tmp_path: Path) -> None:
    said = doubts(a_run(tmp_path, "a", lost=3), a_run(tmp_path, "b", lost=9))
    assert "What 2 calls were sent is not in the files of both a and b" in said


def test_another_timetable_is_said(tmp_path: Path) -> None:
    said = doubts(a_run(tmp_path, "a"), a_run(tmp_path, "b", gap_s=1.5))
    assert "half of them more than 9.75 s apart" in said  # the median of 0, 0.5, ..., 19.5


def test_imported_runs_that_differ_are_refused(tmp_path: Path, ours: Run) -> None:
    with pytest.raises(InputError, match="nothing shows that they were sent the same"):
        compare([a_run(tmp_path, "a"), ours])


@pytest.fixture
def ours(tmp_path: Path) -> Run:
    """A run that was not imported."""
    import msgspec

    run = a_run(tmp_path, "ours")
    run.write_info(msgspec.structs.replace(run.info, imported=None, plan_sha256="another"))
    return run


def test_the_same_call_is_compared_with_itself_whatever_the_order(
    call: Any, failed: Any, a_run: Any
) -> None:
    """The challenger's TTFT is 0.5 s longer for `a`, 0.25 s shorter for `b`; `c` failed there."""
    ours = [call("a", 0.0, 1.0), call("b", 1.0, 2.0, input_tokens=99), call("c", 2.0, 3.0)]
    theirs = [failed("c", 2.0), call("b", 1.5, 2.25), call("a", 0.0, 1.5), call("d", 3.0, 4.0)]
    table = differences(Measured.of(a_run(ours)), Measured.of(a_run(theirs)), "ttft")
    assert table.rows() == [("a", 0.0, 10, 0.5), ("b", 1.0, 99, -0.25)]
