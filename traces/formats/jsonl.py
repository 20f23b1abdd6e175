"""Reading JSON: lines of records in bounded memory, or one document a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from servescope.traces.errors import BadRow
from servescope.traces.formats.source import File, Source, lines_in

T = TypeVar("T")

MEND_LINE = "Mend the line, or export the file again."


def records(source: Source, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Yield the row number and the record of every line; blank lines are none.

    Rows count lines from 1 through all files. A line that does not decode as `kind` is rejected,
    with the path of the field that is wrong. Raises BadRow for a source without records.
    """
    decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
    offset, found = 0, False
    for file in source.files:
        source.begin(file, offset + 1)
        ends = 0
        for first, block in file.blocks(source.rejects):
            for line, text in enumerate(block.split(b"\n"), start=first):
                if not text or text.isspace():
                    continue
                found = True
                try:
                    record = decoder.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    source.reject(
                        offset + line,
                        f"{error}.",
                        MEND_LINE,
                        reason=_reason(error),
                        shown=text,
                    )
                    continue
                yield offset + line, record
            ends = first - 1 + lines_in(block)
        offset += ends
    if not found and not source.rejects.total:
        raise BadRow(f"{source.name} has no lines.", "Give a file with at least one call.")


def documents(source: Source, kind: type[T]) -> Iterator[tuple[File, T]]:
    """Yield every file and the one JSON document in it; one that does not decode is rejected."""
    decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
    for file in source.files:
        content = file.content
        try:
            document = decoder.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            source.rejects.add(
                file.name,
                f"{error}.",
                "Export the file again; it must hold one whole JSON document.",
                reason=_reason(error),
                row=content,
            )
            continue
        del content  # kept no longer than needed
        yield file, document


def _reason(error: Exception) -> str:
    """Say in a word or two what is wrong: the path of the field, whatever its place in a list."""
    if not isinstance(error, msgspec.ValidationError):
        return "not JSON"
    said, _, path = str(error).partition(" - at `$")
    field = re.sub(r"\[\d+\]", "[]", path.strip(".`"))
    missing = said.partition("missing required field `")[2].strip("`")
    if missing:
        return f"no field {field}.{missing}" if field else f"no field {missing}"
    return f"field {field}" if field else "no such record"
