"""Reading CSV by column name, with the row and the cell of whatever cannot be read."""

import io

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats.source import Source


def header(head: bytes) -> list[str]:
    """Return the column names on the first line, or nothing if it is not text."""
    try:
        line = head.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    return [name.strip() for name in line.strip("\r").split(",")]


def read_text(source: Source) -> pl.DataFrame:
    """Read every cell as text; raises BadRow for a file without rows or with ragged ones."""
    try:
        frame = pl.read_csv(io.BytesIO(source.content), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise BadRow(
            f"{source.name} is not a well-formed CSV file: {str(error).splitlines()[0]}.",
            "Mend the row, or export the file again.",
        ) from None
    if frame.is_empty():
        raise BadRow(
            f"{source.name} has a header and no rows.", "Give a file with at least one call."
        )
    return frame.rename(str.strip)


def numbers(text: pl.DataFrame, column: str, dtype: type[pl.DataType], source: Source) -> pl.Series:
    """Turn a column of text into numbers, empty cells into null; raises BadRow naming the first bad cell."""
    cells = text[column].str.strip_chars()
    cells = cells.set(cells == "", None)
    values = (
        cells.cast(pl.Float64, strict=False)
        if dtype is pl.Float64
        else cells.cast(dtype, strict=False)
    )
    bad = values.is_null() & cells.is_not_null()
    if bad.any():
        row = bad.arg_max() or 0
        kind = "a number" if dtype is pl.Float64 else "a whole number"
        raise BadRow(
            f"{source.name}, row {row + 1}: {column!r} is {cells[row]!r}, not {kind}.",
            "Mend the row, or leave the cell empty if the value is unknown.",
        )
    return values
