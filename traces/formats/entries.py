"""Records that come as JSON lines, as one list, alone, or many in a document: exports differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from servescope.traces.formats import jsonl
from servescope.traces.formats.source import File, Source

T = TypeVar("T")
Split = Callable[[Any], list[Any]]

_FIRST_LINE = 1 << 24
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def entries(
    source: Source, kind: type[T], *, unit: str = "record", split: Split | None = None
) -> Iterator[tuple[int, T]]:
    """Yield every record and its row: the line, or its place among the records of all documents.

    `split` takes a line or a document apart into the records that it holds. A record that does not
    fit `kind` is rejected with the path of the field that is wrong; `unit` is what its row counts.
    """
    if any(is_lines(file) for file in source.files):
        for row, line in jsonl.records(source, msgspec.Raw):
            for value in _values(source, row, line, split):
                yield from _fitting(source, row, value, kind)
        return
    last = 0
    for file, document in jsonl.documents(source, msgspec.Raw):
        source.begin(file, last + 1, unit=unit)
        for piece in _members(document):
            for value in _values(source, last + 1, piece, split):
                last += 1
                yield from _fitting(source, last, value, kind)


def is_lines(file: File) -> bool:
    """Say whether a file holds JSON lines: its first line is a whole value and not its last."""
    line, _, rest = file.head(_FIRST_LINE).lstrip().partition(b"\n")
    if not rest.strip():
        return False
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except _ERRORS:
        return False
    return True


def _members(document: msgspec.Raw) -> list[msgspec.Raw]:
    several = bytes(memoryview(document)[:1]) == b"["
    return msgspec.json.decode(document, type=list[msgspec.Raw]) if several else [document]


def _values(source: Source, row: int, text: msgspec.Raw, split: Split | None) -> list[Any]:
    try:
        value = msgspec.json.decode(text)
        return [value] if split is None else split(value)
    except _ERRORS as error:
        _refuse(source, row, error, bytes(text))
        return []


def _fitting(source: Source, row: int, value: Any, kind: type[T]) -> Iterator[tuple[int, T]]:
    try:
        yield row, msgspec.convert(value, kind)
    except _ERRORS as error:
        _refuse(source, row, error, msgspec.json.encode(value))


def _refuse(source: Source, row: int, error: Exception, shown: bytes) -> None:
    field = str(error).rpartition("`$")[2].rstrip("`") or "missing"
    source.reject(
        row,
        f"{error}.",
        "Mend the record, or export the file again.",
        reason=f"field {field}",
        shown=shown,
    )
