import json
from pathlib import Path

import pytest

from servescope.traces.errors import BadRow, OutputExists, OutputFailed
from servescope.traces.formats.rejects import SHOWN_BYTES, Rejects


def refuse(rejects: Rejects, line: int = 1, reason: str = "odd", row: bytes = b"1,x") -> None:
    rejects.add(f"t.csv, line {line}", "it is odd.", "Mend it.", reason=reason, row=row)


def test_the_first_bad_row_ends_the_reading() -> None:
    rejects = Rejects()
    with pytest.raises(BadRow) as caught:
        refuse(rejects)
    assert (caught.value.wrong, caught.value.mend) == ("t.csv, line 1: it is odd.", "Mend it.")
    assert (rejects.counts, rejects.total) == ({}, 0)


def test_rows_are_put_aside_and_counted_by_reason(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "r.jsonl")
    for line, reason in enumerate(["odd", "late", "odd"], start=1):
        refuse(rejects, line, reason)
    assert (rejects.counts, rejects.total) == ({"odd": 2, "late": 1}, 3)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["where"] for line in lines] == [f"t.csv, line {n}" for n in (1, 2, 3)]
    assert lines[1] == {
        "where": "t.csv, line 2",
        "reason": "late",
        "problem": "it is odd.",
        "row": "1,x",
    }


def test_no_file_is_made_where_no_row_is_bad(tmp_path: Path) -> None:
    assert Rejects(tmp_path / "r.jsonl").total == 0
    assert not list(tmp_path.iterdir())


def test_a_row_is_shown_by_its_beginning_even_if_it_is_no_text(tmp_path: Path) -> None:
    refuse(Rejects(tmp_path / "r.jsonl"), row=b"\xff" + b"x" * 3 * SHOWN_BYTES)
    shown = json.loads((tmp_path / "r.jsonl").read_text())["row"]
    assert shown == "\N{REPLACEMENT CHARACTER}" + "x" * (SHOWN_BYTES - 1)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("mine")
    with pytest.raises(OutputExists, match=r"r\.jsonl exists already\. .*--rejected"):
        refuse(Rejects(tmp_path / "r.jsonl"))
    assert (tmp_path / "r.jsonl").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match=r"r\.jsonl cannot be written: No such file"):
        refuse(Rejects(tmp_path / "gone" / "r.jsonl"))
