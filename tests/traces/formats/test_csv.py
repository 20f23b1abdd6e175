import csv as reference
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.errors import BadRow, MissingColumns
from servescope.traces.formats import csv
from servescope.traces.formats import source as module
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import File, Source

Write = Callable[..., Path]
TEXTS = {"a": pl.String, "b": pl.String}


def of(*paths: Path, aside: Path | None = None) -> Source:
    return Source(tuple(File(path, path.name) for path in paths), "t", rejects=Rejects(aside))


def read(*paths: Path, types: csv.Types = TEXTS, aside: Path | None = None) -> pl.DataFrame:
    return pl.concat(csv.batches(of(*paths, aside=aside), types))


@pytest.mark.parametrize(
    "head",
    [b"a,b\n1,2", b"a,b\r\n1,2", b"\xef\xbb\xbfa,b", b' a , "b" \n', b"a,b", b"a;b\n", b"a\tb\n"],
)
def test_a_header_is_its_names(head: bytes) -> None:
    assert csv.header(head) == ["a", "b"]


@pytest.mark.parametrize("head", [b"\xff\xfe\x00", b"a\rb,c\n"])
def test_bytes_that_are_no_text_have_no_header(head: bytes) -> None:
    assert csv.header(head) == []


def test_a_megabyte_without_a_separator_has_a_header_too() -> None:
    """Python's csv gives up at 128 KiB; sniffing a large JSON document must not fail."""
    assert csv.header(b"x" * (1 << 20)) == ["x" * (1 << 20)]


def test_rows_are_counted_as_they_stand_and_blank_ones_left_out(a_file: Write) -> None:
    table = read(a_file("a,b\n1,2\n\n,\n3,4\n  \n , \n5,6\n\n"))
    assert table["source_row"].to_list() == [1, 4, 7]
    assert table["a"].to_list() == ["1", "3", "5"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_rows_are_counted_through_all_files_and_places_are_not(a_file: Write, end: str) -> None:
    first, second = a_file("a,b\n1,x\n2,x" + end, "first"), a_file("b,a\nx,3\nx,4\n", "second")
    source = of(first, second)
    table = pl.concat(csv.batches(source, TEXTS))
    third = 4 if end == "\n\n" else 3
    assert table["source_row"].to_list() == [1, 2, third, third + 1]
    assert table["a"].to_list() == ["1", "2", "3", "4"]
    assert (source.where(2), source.where(third)) == ("first, line 3", "second, line 2")


def test_names_and_words_lose_their_blanks(a_file: Write) -> None:
    table = read(a_file("a , b\n x ,  \n y, z \n"))
    assert table.rows() == [(1, "x", None), (2, "y", "z")]


def test_columns_that_nobody_wants_are_left_out_and_optional_ones_may_lack(a_file: Write) -> None:
    (table,) = csv.batches(
        of(a_file("c,b,a\n1,2,3\n")), {"a": pl.Int64}, {"b": pl.Int64, "z": pl.String}
    )
    assert table.to_dicts() == [{"source_row": 1, "a": 3, "b": 2}]


def test_an_optional_column_that_only_some_files_have_is_null_in_the_others(a_file: Write) -> None:
    paths = [a_file("a\n1\n", "1"), a_file("b,a\nx,2\n", "2"), a_file("a,c\n3,y\n", "3")]
    optional = {"a": pl.Int64, "b": pl.String, "z": pl.Int64}
    table = pl.concat(csv.batches(of(*paths), {"a": pl.Int64}, optional))
    assert table.columns == ["source_row", "a", "b"]
    assert table.rows() == [(1, 1, None), (2, 2, "x"), (3, 3, None)]


@pytest.mark.parametrize(
    ("text", "line", "cells"),
    [
        ("a,b,c\n1,2,3\n1,2\n", 3, 2),
        ("a,b,c\n1,2,3\n\n1\n", 4, 1),
        ("a,b,c\n1,2,3,4\n", 2, 4),
        ("\ufeffa,b,c\r\n1,2,3\r\n4,", 3, 2),
        ('a,b,c\n"1\n1",2,3\n4,5\n', 4, 2),
    ],
)
def test_a_ragged_row_is_named(a_file: Write, text: str, line: int, cells: int) -> None:
    """polars fills a short row with nulls: half of a torn line would pass for unknown counts."""
    with pytest.raises(
        BadRow, match=rf"trace\.csv, line {line}: it has {cells} cells, the header has 3"
    ):
        read(a_file(text))


def test_an_empty_last_cell_is_not_ragged(a_file: Write) -> None:
    assert read(a_file('a,b\n1,\n"x,y",2\n'))["b"].to_list() == [None, "2"]


@pytest.mark.parametrize("text", [b"a,b\nx,1\n\xff,1\n", b'a,b\nx,1\n"\xffy",1\n'])
def test_text_that_is_no_utf8_is_refused(a_file: Write, text: bytes) -> None:
    with pytest.raises(BadRow, match=r"line 3: it is no line of a CSV file \(it is not UTF-8 text"):
        read(a_file(text))


@pytest.mark.parametrize("text", ['a,b\n1,2\n3,"4\n5,6\n', 'a,b\n1,2\n3,"4"5\n7,8\n'])
def test_a_quote_that_does_not_close_swallows_no_rows_unsaid(a_file: Write, text: str) -> None:
    with pytest.raises(BadRow, match="line 3: it is no line of a CSV file"):
        read(a_file(text))


def test_rows_that_make_no_sense_are_put_aside_and_the_others_read(
    a_file: Write, tmp_path: Path
) -> None:
    text = b'a,b\n1,2\nx,3\n4\n5,"6"7\n\xff,8\n9,10\n11,1_2\n'
    source = of(a_file(text), aside=tmp_path / "r.jsonl")
    table = pl.concat(csv.batches(source, {"a": pl.Int64, "b": pl.Int64}))
    assert table.rows() == [(1, 1, 2), (6, 9, 10)]
    assert source.rejects.counts == {
        "a is no number": 1,
        "ragged row": 1,
        "no CSV": 2,
        "b is no number": 1,
    }


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "a,b\n\n,\n"])
def test_a_header_alone_is_no_trace(a_file: Write, text: str) -> None:
    with pytest.raises(BadRow, match="t has a header and no rows"):
        read(a_file(text))


def test_columns_that_are_needed_are_named(a_file: Write) -> None:
    with pytest.raises(MissingColumns, match=r"no c and no d\. It has a, b;"):
        read(a_file("a,b\n1,2\n"), types={**TEXTS, "c": pl.Int64, "d": pl.Int64})


@pytest.mark.parametrize(
    ("cell", "dtype", "kind"),
    [
        ("x", pl.Int64, "whole number"),
        ("1.5", pl.Int64, "whole number"),
        ("9223372036854775808", pl.Int64, "whole number"),
        ("1_000", pl.Int64, "whole number"),
        ("\u0661", pl.Int64, "whole number"),
        ("x", pl.Float64, "number"),
        ("nan", pl.Float64, "number"),
        ("inf", pl.Float64, "number"),
        ("1e999", pl.Float64, "number"),
    ],
)
def test_a_cell_that_is_no_number_is_named(
    a_file: Write, cell: str, dtype: type[pl.DataType], kind: str
) -> None:
    path = a_file(f"a,b\n1,2\n\n1,{cell}\n")
    with pytest.raises(BadRow, match=rf"^trace\.csv, line 4: 'b' is '{cell}', not a {kind}\."):
        read(path, types={"b": dtype})


@pytest.mark.parametrize("cell", [" 7", "7 ", '"7"', "+7", "007"])
def test_a_number_may_be_written_in_other_ways(a_file: Write, cell: str) -> None:
    path = a_file(f"a,b\n1,2\n1,{cell}\n")
    assert read(path, types={"b": pl.Int64})["b"].to_list() == [2, 7]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_numbers_come_back_exactly_and_empty_cells_as_null(
    tmp_path_factory: pytest.TempPathFactory, values: list[int | None]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text("a,b\n" + "".join(f"x,{'' if v is None else v}\n" for v in values))
    assert read(path, types={"b": pl.Int64})["b"].to_list() == values


def test_a_large_cell_is_a_cell(a_file: Write) -> None:
    """Python's csv gives up at 128 KiB, a prompt may be longer; the line end makes it slow."""
    prompt = "x\n" * 200_000 + "x"
    table = read(a_file(f'a,b\n1,"{prompt}"\n2,y\n'))
    assert table["b"].to_list() == [prompt, "y"]
    assert table["source_row"].to_list() == [1, 200_002]


cells = st.text('ab ,;"\n\u00e9', max_size=6) | st.integers(-5, 5).map(str)
tables = st.lists(
    st.tuples(cells, st.none() | st.integers(-5, 5), st.none() | st.floats(-9, 9), cells)
    | st.sampled_from(["", "  ", " , , ,"]),
    min_size=1,
    max_size=12,
)
KINDS: dict[str, Any] = {"text": pl.String, "whole": pl.Int64, "real": pl.Float64}


def by_hand(text: str) -> list[tuple[Any, ...]]:
    """Read a file of four columns by Python's csv, and count lines as an editor does."""
    reader = reference.reader(io.StringIO(text, newline=""))
    names = next(reader)
    rows, line = [], reader.line_num
    for cells in reader:
        row, line = line, reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        of = {name: cell.strip() or None for name, cell in zip(names, cells, strict=True)}
        rows.append(
            (
                row,
                of["text"],
                of["whole"] and int(of["whole"]),
                of["real"] and float(of["real"]),
            )
        )
    return rows


@settings(deadline=None, max_examples=200)
@given(tables, st.integers(1, 40), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_batches_are_those_of_a_reading_by_pythons_csv(
    tmp_path_factory: pytest.TempPathFactory,
    table: list[tuple[Any, ...] | str],
    chunk: int,
    end: str,
    ended: bool,
) -> None:
    """For any size of the pieces in which the file is read: quoted line ends and all."""
    out = io.StringIO(newline="")
    writer = reference.writer(out, lineterminator=end)
    writer.writerow(["other", "whole", "real", "text"])
    for row in table:
        if isinstance(row, str):
            out.write(row + end)
        else:
            writer.writerow(row)
    text = out.getvalue() if ended else out.getvalue().removesuffix(end)
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(text, newline="")
    expected = by_hand(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "CHUNK_BYTES", chunk)
        if expected:
            found = read(path, types=KINDS)
            assert found.rows() == expected
            assert found.schema == {"source_row": pl.Int64, **KINDS}
        else:
            with pytest.raises(BadRow, match="no rows"):
                read(path, types=KINDS)


def test_plain_rows_are_read_at_full_speed(a_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_salvaged", None)
    types = {"a": pl.Int64, "b": pl.String}
    quoted = a_file('a,b\r\n1,x y\r\n2,"x, ""y"" "\r\n', "quoted")
    assert read(quoted, types=types).rows() == [(1, 1, "x y"), (2, 2, 'x, "y"')]
    empty = a_file("a,b\r\n1,x\r\n,\r\n3,\r\n", "empty")
    assert read(empty, types=types).rows() == [(1, 1, "x"), (3, 3, None)]
