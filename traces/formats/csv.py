"""Reading CSV by column name, with the row and the cell of whatever cannot be read."""

import csv
import io

import polars as pl

from servescope.traces import schema
from servescope.traces.errors import BadRow
from servescope.traces.formats.source import Source


def header(head: bytes) -> list[str]:
    """Return the column names on the first line, or nothing if it is not text."""
    try:
        line = head.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    return [name.strip(' "\r') for name in line.split(",")]


def read_text(source: Source, *needed: str) -> pl.DataFrame:
    """Read every cell as text, after a column `source_row` that counts the rows from 1.

    Rows with nothing in them (blank lines) are left out. Raises BadRow for a file without rows or
    with ragged ones, and MissingColumns unless every column of `needed` is there.
    """
    try:
        frame = pl.read_csv(
            source.content, infer_schema=False, row_index_name="source_row", row_index_offset=1
        ).rename(str.strip)
    except pl.exceptions.PolarsError as error:
        _refuse_ragged(source)
        raise BadRow(
            f"{source.name} is not a well-formed CSV file: {str(error).split(chr(10))[0]}.",
            "Mend the row, or export the file again.",
        ) from None
    schema.require(frame.columns[1:], *needed)
    frame = frame.filter(~pl.all_horizontal(pl.exclude("source_row").is_null()))
    if frame.is_empty():
        raise BadRow(
            f"{source.name} has a header and no rows.", "Give a file with at least one call."
        )
    if frame[frame.columns[-1]].null_count():  # an empty cell, or a row that ends too early
        _refuse_ragged(source)
    return frame


def words(text: pl.DataFrame, column: str) -> pl.Series:
    """Return a column of text without the blanks around its words, empty cells as null."""
    cells = text[column].str.strip_chars()
    return cells.set(cells == "", None)


def numbers(
    text: pl.DataFrame, column: str, dtype: type[pl.Float64] | type[pl.Int64], source: Source
) -> pl.Series:
    """Turn a column of text into numbers, empty cells into null.

    Raises BadRow naming the first cell that is no number, or not finite.
    """
    cells = words(text, column)
    values = cells.cast(dtype, strict=False)
    bad = (values.is_null() | ~values.is_finite()) & cells.is_not_null()
    if bad.any():
        row = bad.arg_max() or 0
        kind = "a number" if dtype is pl.Float64 else "a whole number"
        raise BadRow(
            f"{source.name}, row {text['source_row'][row]}: {column!r} is {cells[row]!r},"
            f" not {kind}.",
            "Mend the row, or leave the cell empty if the value is unknown.",
        )
    return values


def _refuse_ragged(source: Source) -> None:
    """Raise BadRow for the first row that has more or fewer cells than the header."""
    rows = csv.reader(io.StringIO(source.content.decode("utf-8-sig", errors="replace")))
    width = len(next(rows, []))
    for number, row in enumerate(rows, start=1):
        if row and len(row) != width:
            raise BadRow(
                f"{source.name}, row {number}: it has {len(row)} cells, the header has {width}.",
                "Mend the row, or export the file again if it was cut.",
            )
