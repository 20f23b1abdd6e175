"""Reading CSV by column name in bounded memory, with the line and the cell that cannot be read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping

import polars as pl

from servescope.traces import schema
from servescope.traces.errors import BadRow
from servescope.traces.formats.source import File, Source, lines_in

csv.field_size_limit(2**31 - 1)  # a cell may hold a whole prompt

_SEPARATORS = ",;\t|"
_KINDS: dict[object, str] = {pl.Int64: "a whole number", pl.Float64: "a number"}

Types = Mapping[str, pl.DataType | type[pl.DataType]]


def header(head: bytes) -> list[str]:
    """Return the column names on the first line, or nothing if it is JSON or no text at all."""
    line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    if line.lstrip().startswith((b"{", b"[")):
        return []
    try:
        return _cells(line.decode())
    except (UnicodeDecodeError, csv.Error):  # csv.Error: a lone CR
        return []


def batches(source: Source, needed: Types, optional: Types | None = None) -> Iterator[pl.DataFrame]:
    """Yield the columns of `needed`, and those of `optional` that some file has, in pieces.

    Columns are Int64, Float64 or String; an empty cell is null, blanks around a word are no part of
    it, and blank lines are no rows. `source_row` counts lines after the header, from 1, through
    all files. A ragged row, or a cell that is no number of its kind or not finite, is rejected.
    Raises MissingColumns unless every needed column is there, BadRow for a file without rows.
    """
    headers = [header(file.head()) for file in source.files] if optional else []
    found = {name for names in headers for name in names} - needed.keys()
    there = {name: kind for name, kind in (optional or {}).items() if name in found}
    rows, ahead = 0, 0  # rows that were good, and lines of data ahead of a block
    for file in source.files:
        names: list[str] = []
        for first, block in file.blocks(source.rejects, quoted=True):
            body = block
            if not names:
                head, _, body = block.partition(b"\n")
                names, first = header(head), first + 1
                to_row = ahead - first
                schema.require(names, *needed)
                wanted = {n: t for n, t in {**needed, **there}.items() if n in names}
                lacking = [pl.lit(None, there[n]).alias(n) for n in there if n not in names]
                separator = _separator(head.decode())
                source.begin(file, ahead + 1, first=first)
            ahead = first + to_row
            lines = lines_in(body)
            if body and not body.isspace():
                frame = _parsed(body, lines, names, wanted, separator)
                if frame is None:
                    frame = _salvaged(body, names, wanted, separator, source, ahead)
                else:
                    frame = frame.with_columns(pl.col("source_row") + ahead)
                rows += frame.height
                if frame.height:
                    yield frame.with_columns(lacking).select("source_row", *needed, *there)
            ahead += lines
    if not rows and source.rejects.total:
        raise BadRow(
            f"{source.name} has no row that can be read.", f"See {source.rejects.aside} for why."
        )
    if not rows:
        raise BadRow(
            f"{source.name} has a header and no rows.", "Give a file with at least one call."
        )


def words(column: str) -> pl.Expr:
    """Return a column of text with empty words as null."""
    return pl.col(column).replace("", None)


def _cells(line: str) -> list[str]:
    rows = csv.reader([line.rstrip("\r\n")], delimiter=_separator(line), skipinitialspace=True)
    return [name.strip() for name in next(rows, [])]


def _separator(line: str) -> str:
    return max(_SEPARATORS, key=line.count)


def _parsed(
    body: bytes, lines: int, names: list[str], wanted: Types, separator: str
) -> pl.DataFrame | None:
    """Parse whole lines at full speed; None if anything in them is odd."""
    columns = [f"{number}" for number in range(len(names))]
    types = {columns[names.index(name)]: kind for name, kind in wanted.items()}
    try:
        frame = pl.read_csv(
            separator.join(columns).encode() + b"\n" + body,
            separator=separator,
            infer_schema=False,
            schema_overrides=types,
            row_index_name="source_row",
            row_index_offset=1,
        )
    # A quote that is never closed can make polars panic instead of saying so.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if frame.height != lines:  # cells with line ends in them
        return None
    last = frame[columns[-1]]
    if last.null_count() and _is_ragged(body, separator, len(names)):
        return None
    bare = [_bare(column, types.get(column, pl.String)) for column in columns]
    if frame.select(bare[0]).to_series().null_count():
        frame = frame.filter(~pl.all_horizontal(cell.is_null() for cell in bare))
    for column, kind in types.items():
        if kind == pl.Float64 and not frame[column].is_finite().all():
            return None
    return frame.select(
        pl.col("source_row").cast(pl.Int64),
        *(_bare(c, types[c]).alias(n) for n, c in zip(wanted, types, strict=True)),
    )


def _bare(column: str, kind: object) -> pl.Expr:
    """Return a column without the blanks around its words, empty ones as null."""
    cells = pl.col(column)
    return cells.str.strip_chars().replace("", None) if kind == pl.String else cells


def _is_ragged(body: bytes, separator: str, width: int) -> bool:
    """Say whether a line has fewer cells than the header; unsure (quotes) counts as ragged."""
    sign = separator.encode()
    return b'"' in body or any(
        line.count(sign) != width - 1 for line in body.split(b"\n") if line.strip(b"\r")
    )


def _salvaged(
    body: bytes, names: list[str], wanted: Types, separator: str, source: Source, ahead: int
) -> pl.DataFrame:
    """Parse line by line: what cannot be read is rejected, the rest is kept."""
    found: dict[str, list[object]] = {"source_row": [], **{name: [] for name in wanted}}
    text = io.StringIO(body.decode(errors="surrogateescape"), newline="")
    reader = csv.reader(text, delimiter=separator, strict=True)
    places = [(name, names.index(name), kind) for name, kind in wanted.items()]
    while True:
        row = ahead + reader.line_num + 1
        try:
            cells = next(reader)
            shown = separator.join(cells).encode()
        except StopIteration:
            break
        except (csv.Error, UnicodeEncodeError) as error:
            said = error if isinstance(error, csv.Error) else "it is not UTF-8 text"
            source.reject(
                row,
                f"it is no line of a CSV file ({said}).",
                "Mend the row, or export the file again.",
                reason="no CSV",
            )
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            source.reject(
                row,
                f"it has {len(cells)} cells, the header has {len(names)}.",
                "Mend the row, or export the file again if it was cut.",
                reason="ragged row",
                shown=shown,
            )
            continue
        values = [_value(cells[place].strip(), kind) for _, place, kind in places]
        bad = next((p for p, value in zip(places, values, strict=True) if value is _BAD), None)
        if bad is not None:
            source.reject(
                row,
                f"{bad[0]!r} is {cells[bad[1]].strip()!r}, not {_KINDS[bad[2]]}.",
                "Mend the row, or leave the cell empty if the value is unknown.",
                reason=f"{bad[0]} is no number",
                shown=shown,
            )
            continue
        found["source_row"].append(row)
        for (name, _, _), value in zip(places, values, strict=True):
            found[name].append(value)
    return pl.DataFrame(found, schema={"source_row": pl.Int64, **wanted})


_BAD = object()


def _value(cell: str, kind: object) -> object:
    """Return the value of a cell, null if it is empty, `_BAD` if it is not of its kind."""
    if not cell:
        return None
    if kind == pl.String:
        return cell
    if "_" in cell or not cell.isascii():  # Python reads these as numbers, nobody else does
        return _BAD
    try:
        if kind == pl.Int64:
            whole = int(cell)
            return whole if -(2**63) <= whole < 2**63 else _BAD
        real = float(cell)
    except ValueError:
        return _BAD
    return real if math.isfinite(real) else _BAD


__all__ = ["File", "Types", "batches", "header", "words"]
