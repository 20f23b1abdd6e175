import gzip
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.errors import BadRow
from servescope.traces.formats import jsonl, source
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import File, Source

Write = Callable[..., Path]


class Inner(msgspec.Struct):
    b: int


class Record(msgspec.Struct):
    a: int
    n: Inner | None = None
    many: list[int] = []
    x: object = None


def of(*paths: Path, rejects: Path | None = None) -> Source:
    files = tuple(File(path, path.name) for path in paths)
    return Source(files, "t", rejects=Rejects(rejects))


def rows(*paths: Path) -> list[tuple[int, int]]:
    return [(row, record.a) for row, record in jsonl.records(of(*paths), Record)]


@pytest.mark.parametrize(
    "text", ['{"a":1}\n\n{"a":2}\n', '{"a":1}\r\n \r\n{"a":2}', '\ufeff{"a":1}\n\n\n{"a":2}\n\n']
)
def test_rows_are_lines_and_blank_ones_are_none(a_file: Write, text: str) -> None:
    assert rows(a_file(text)) == [(1, 1), (text.count("\n", 0, text.rindex("{")) + 1, 2)]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_rows_count_through_all_files_and_places_do_not(a_file: Write, end: str) -> None:
    first = a_file('{"a":1}\n{"a":2}' + end, "first")
    second = a_file('{"a":3}\n{"a":"x"}', "second")
    read = of(first, second)
    records = jsonl.records(read, Record)
    third = 4 if end == "\n\n" else 3
    assert [next(records)[0] for _ in range(3)] == [1, 2, third]
    assert (read.where(2), read.where(third)) == ("first, line 2", "second, line 1")
    with pytest.raises(BadRow, match=r"^second, line 2: Expected `int`, got `str` - at `\$\.a`"):
        next(records)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.none() | st.integers(0, 10**6), min_size=1), min_size=1, max_size=3),
    st.integers(1, 60),
    st.booleans(),
)
def test_records_are_those_of_a_reading_line_by_line(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[int | None]],
    chunk: int,
    ended: bool,
) -> None:
    """For any size of the pieces in which the files are read, packed or not."""
    folder = tmp_path_factory.mktemp("jsonl")
    expected, paths, row = [], [], 0
    for number, values in enumerate(files):
        lines = ["" if v is None else f'{{"a":{v}}}' for v in values]
        text = "\n".join(lines) + "\n" * (ended or not lines[-1])
        paths.append(folder / f"{number}")
        paths[-1].write_bytes(gzip.compress(text.encode()) if number else text.encode())
        for value in values:
            row += 1
            if value is not None:
                expected.append((row, value))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source, "CHUNK_BYTES", chunk)
        if expected:
            assert rows(*paths) == expected
        else:
            with pytest.raises(BadRow, match="t has no lines"):
                rows(*paths)


@pytest.mark.parametrize(
    ("line", "message", "reason"),
    [
        (b'{"a":"x"}', r"Expected `int`, got `str` - at `\$\.a`", "field a"),
        (b"{}", "missing required field `a`", "no field a"),
        (b'{"a":1,"n":{}}', r"missing required field `b` - at `\$\.n`", "no field n.b"),
        (b'{"a":1,"many":[1,"x"]}', r"at `\$\.many\[1\]`", "field many[]"),
        (b"[]", "Expected `object`, got `array`", "no such record"),
        (b'{"a":1', "Input data was truncated", "not JSON"),
        (b"rubbish", "JSON is malformed", "not JSON"),
        (b'{"a":1} {"a":2}', "trailing characters", "not JSON"),
        (b'{"a":NaN}', "JSON is malformed", "not JSON"),
        (b'{"a":1,"x":"\xff"}', "can't decode byte 0xff", "not JSON"),
        (b'\xff{"a":1}', "JSON is malformed", "not JSON"),
        (b'{"a":1e999}', r"Number out of range - at `\$\.a`", "field a"),
        (b'{"a":' + b"9" * 5000 + b"}", r"Integer value out of range - at `\$\.a`", "field a"),
        (b'{"a":1,"x":' + b"[" * 200_000, "maximum recursion depth", "not JSON"),
        (b'{"a":1,"other":' + b'{"y":' * 200_000, "maximum recursion depth", "not JSON"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_a_line_that_does_not_decode_is_named_by_line_and_field(
    a_file: Write, tmp_path: Path, line: bytes, message: str, reason: str
) -> None:
    path = a_file(b'{"a":1}\n\n' + line + b'\n{"a":2}\n')
    with pytest.raises(BadRow, match=rf"^trace\.csv, line 3: .*{message}"):
        rows(path)
    skipping = of(path, rejects=tmp_path / "r.jsonl")
    assert [row for row, _ in jsonl.records(skipping, Record)] == [1, 4]
    assert skipping.rejects.counts == {reason: 1}
    assert json.loads((tmp_path / "r.jsonl").read_text())["where"] == "trace.csv, line 3"


def test_a_whole_number_that_a_column_cannot_hold_is_still_a_record(a_file: Write) -> None:
    """It is for whoever knows the column to refuse it."""
    assert rows(a_file(f'{{"a":{10**30}}}')) == [(1, 10**30)]


@pytest.mark.parametrize("text", ["\n\n", " \r\n"])
def test_a_file_of_blank_lines_is_no_trace(a_file: Write, text: str) -> None:
    with pytest.raises(BadRow, match="t has no lines"):
        rows(a_file(text))


def test_every_file_is_a_document(a_file: Write) -> None:
    paths = [a_file('\ufeff{\n "a": 1\n}\n', "one"), a_file(gzip.compress(b'{"a": 2}'), "two")]
    found = [(file.name, it.a) for file, it in jsonl.documents(of(*paths), Record)]
    assert found == [("one", 1), ("two", 2)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": "x"}', "field a"),
        (b'{"a": 1', "not JSON"),
        (b"[" * 200_000, "no such record"),
        (b'{"x": ' + b"[" * 200_000, "not JSON"),
        (b'{"a": 1, "x": "\xff"}', "not JSON"),
        (b"", "not JSON"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_a_document_that_does_not_decode_is_named_by_its_file(
    a_file: Write, tmp_path: Path, content: bytes, reason: str
) -> None:
    good, bad = a_file(b'{"a": 1}', "good"), a_file(content, "bad")
    with pytest.raises(BadRow, match=r"^bad: .*\. Export the file again"):
        list(jsonl.documents(of(good, bad), Record))
    skipping = of(bad, good, rejects=tmp_path / "r.jsonl")
    assert [file.name for file, _ in jsonl.documents(skipping, Record)] == ["good"]
    assert skipping.rejects.counts == {reason: 1}


def test_a_document_may_be_too_large(a_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LARGEST_DOCUMENT", 9)
    with pytest.raises(BadRow, match=r"trace\.csv is one document of more than .* MiB"):
        list(jsonl.documents(of(a_file('{"a": 123}')), Record))
