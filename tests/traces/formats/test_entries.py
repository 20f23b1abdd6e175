from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servescope.traces.errors import BadRow
from servescope.traces.formats.entries import entries, is_lines
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import File, Options, Source

Write = Callable[..., Path]


class Thing(msgspec.Struct):
    n: int


def a_source(*paths: Path, rejects: Rejects | None = None) -> Source:
    files = tuple(File(path, path.name) for path in paths)
    return Source(files, "things", Options(), rejects or Rejects())


def found(source: Source, **how: Any) -> list[tuple[int, int]]:
    return [(row, thing.n) for row, thing in entries(source, Thing, **how)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"n": 1}\n\n{"n": 2}\n', [(1, 1), (3, 2)]),
        ('[{"n": 1}, {"n": 2}]', [(1, 1), (2, 2)]),
        ('{\n "n": 1\n}\n', [(1, 1)]),
        ('{"n": 1}', [(1, 1)]),
    ],
)
def test_records_are_found_in_lines_lists_and_alone(
    a_file: Write, text: str, expected: list[tuple[int, int]]
) -> None:
    assert found(a_source(a_file(text, "x.json"))) == expected


def test_a_document_is_split_and_rows_count_on_through_files(a_file: Write) -> None:
    files = [a_file('{"all":\n [{"n": 1}, {"n": 2}]}', "a.json"), a_file('{"all": []}', "b.json")]
    files.append(a_file('{"all": [{"n": 3}]}', "c.json"))
    source = a_source(*files)
    assert found(source, unit="thing", split=lambda d: d["all"]) == [(1, 1), (2, 2), (3, 3)]
    assert source.where(2) == "a.json, thing 2"
    assert source.where(3) == "c.json, thing 1"


def test_a_record_that_does_not_fit_is_named_and_the_others_stay(
    a_file: Write, tmp_path: Path
) -> None:
    path = a_file('[{"n": 1}, {"n": "two"}, {"n": 3}]', "x.json")
    with pytest.raises(BadRow, match=r"x\.json, record 2: Expected `int`, got `str` - at `\$\.n`"):
        found(a_source(path))
    rejects = Rejects(tmp_path / "r.jsonl")
    assert found(a_source(path, rejects=rejects)) == [(1, 1), (3, 3)]
    assert rejects.counts == {"field .n": 1}


def test_lines_are_told_from_documents(a_file: Write) -> None:
    def lines(text: str) -> bool:
        return is_lines(File(a_file(text, "x"), "x"))

    assert lines('{"n": 1}\n{"n": 2}')
    assert lines('\n{"n": 1}\nrubbish')
    assert not lines('{"n": 1}\n\n')
    assert not lines('{\n"n": 1}\n')
    assert not lines("")
