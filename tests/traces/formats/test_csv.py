from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.errors import BadRow, MissingColumns
from servescope.traces.formats import csv
from servescope.traces.formats.source import Source

Write = Callable[..., Path]


def read(path: Path, *needed: str) -> pl.DataFrame:
    return csv.read_text(Source(path, "t.csv"), *needed)


@pytest.mark.parametrize(
    "head",
    [b"a,b\n1,2", b"a,b\r\n1,2", b"\xef\xbb\xbfa,b", b' a , "b" \n', b"a,b"],
)
def test_a_header_is_its_names(head: bytes) -> None:
    assert csv.header(head) == ["a", "b"]


def test_bytes_that_are_no_text_have_no_header() -> None:
    assert csv.header(b"\xff\xfe\x00") == []


def test_rows_are_counted_as_they_stand_and_blank_ones_left_out(a_file: Write) -> None:
    table = read(a_file("a,b\n1,2\n\n,\n3,4\n\n"))
    assert table["source_row"].to_list() == [1, 4]
    assert table["a"].to_list() == ["1", "3"]


def test_names_and_words_lose_their_blanks(a_file: Write) -> None:
    table = read(a_file("a , b\n x ,  \n"))
    assert table.columns == ["source_row", "a", "b"]
    assert csv.words(table, "a").to_list() == ["x"]
    assert csv.words(table, "b").to_list() == [None]


@pytest.mark.parametrize(
    ("text", "row", "cells"),
    [
        ("a,b,c\n1,2,3\n1,2\n", 2, 2),
        ("a,b,c\n1,2,3\n\n1\n", 3, 1),
        ("a,b,c\n1,2,3,4\n", 1, 4),
        ("\ufeffa,b,c\r\n1,2,3\r\n4,", 2, 2),
    ],
)
def test_a_ragged_row_is_named(a_file: Write, text: str, row: int, cells: int) -> None:
    """polars fills a short row with nulls: half of a torn line would pass for unknown counts."""
    with pytest.raises(BadRow, match=rf"t\.csv, row {row}: it has {cells} cells, the header has 3"):
        read(a_file(text))


def test_an_empty_last_cell_is_not_ragged(a_file: Write) -> None:
    assert read(a_file('a,b\n1,\n"x,y",2\n'))["b"].to_list() == [None, "2"]


def test_text_that_is_no_utf8_is_refused(a_file: Write) -> None:
    with pytest.raises(BadRow, match="not a well-formed CSV file"):
        read(a_file(b"a,b\n\xff,1\n"))


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "a,b\n\n,\n"])
def test_a_header_alone_is_no_trace(a_file: Write, text: str) -> None:
    with pytest.raises(BadRow, match="a header and no rows"):
        read(a_file(text))


def test_columns_that_are_needed_are_named(a_file: Write) -> None:
    with pytest.raises(MissingColumns, match=r"no c and no d\. It has a, b;"):
        read(a_file("a,b\n1,2\n"), "a", "c", "d")


@pytest.mark.parametrize(
    ("cell", "dtype", "kind"),
    [
        ("x", pl.Int64, "whole number"),
        ("1.5", pl.Int64, "whole number"),
        ("9223372036854775808", pl.Int64, "whole number"),
        ("x", pl.Float64, "number"),
        ("nan", pl.Float64, "number"),
        ("inf", pl.Float64, "number"),
    ],
)
def test_a_cell_that_is_no_number_is_named(
    a_file: Write, cell: str, dtype: type[pl.Int64], kind: str
) -> None:
    path = a_file(f"a,b\n1,2\n\n1,{cell}\n")
    with pytest.raises(BadRow, match=rf"t\.csv, row 3: 'b' is '{cell}', not a {kind}\."):
        csv.numbers(read(path), "b", dtype, Source(path, "t.csv"))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_numbers_come_back_exactly_and_empty_cells_as_null(
    tmp_path_factory: pytest.TempPathFactory, values: list[int | None]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text("a,b\n" + "".join(f"x,{'' if v is None else v}\n" for v in values))
    source = Source(path, "t.csv")
    assert csv.numbers(csv.read_text(source), "b", pl.Int64, source).to_list() == values
