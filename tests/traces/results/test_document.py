"""JSON as Python writes it, whole or not."""

import math
from pathlib import Path

import msgspec
import pytest

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.formats.source import File
from servescope.traces.results import document


class _Thing(msgspec.Struct):
    size: float | str
    name: str = ""


def test_numbers_that_json_has_no_word_for_are_read() -> None:
    assert document.decode(b'{"size": Infinity}', _Thing, "here").size == "inf"
    assert document.decode(b'{"size": -Infinity}', _Thing, "here").size == "-inf"
    size = document.decode(b'{"size": NaN}', _Thing, "here").size
    assert isinstance(size, float)
    assert math.isnan(size)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"size": 1', "here is not whole JSON"),
        (b"", "here is not whole JSON"),
        (b'{"size": 1, "name": "\xff"}', "here is not whole JSON"),
        (b'{"size": NaN, "name": "\\ud800"}', "here is not whole JSON"),
        (b'{"other": ' + b"[" * 100_000, "here is not whole JSON"),
        (b'{"size": []}', r"here is not what it seems: .*\$\.size"),
        (b'{"size": NaN, "name": 3}', r"here is not what it seems: .*\$\.name"),
    ],
    ids=["cut off", "empty", "no text", "half a character", "deep", "wrong type", "wrong too"],
)
def test_what_is_torn_or_wrong_is_said(text: bytes, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        document.decode(text, _Thing, "here")


def test_lines_are_numbered_and_blank_ones_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "things.jsonl"
    path.write_text('{"size": 1}\n\n{"size": 2}\n{"size": ')
    lines = document.lines(File(path, path.name), _Thing)
    assert [next(lines)[0], next(lines)[0]] == [1, 3]
    with pytest.raises(BadRow, match=r"things.jsonl, line 4, is not whole JSON.*take the line out"):
        next(lines)


def test_a_file_without_calls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAResult, match=r"a\.json holds no call"):
        document.refuse_empty([], File(tmp_path / "a.json", "a.json"))
