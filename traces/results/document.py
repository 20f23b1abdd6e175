"""The JSON of a result file: a document, or one a line, as Python's own writer leaves it.

That writer puts NaN and Infinity where JSON has no word for a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.formats.source import File

T = TypeVar("T")
# What fits into a column of whole numbers.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

MEND = "Copy the file again, or run the benchmark again."
_MEND_LINE = "Copy the file again, or take the line out."


def decode(text: bytes, kind: type[T], where: str, mend: str = MEND) -> T:
    """Return a document as `kind`; raises BadRow that names the field, or where JSON breaks off."""
    try:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.convert(_with_constants(text), kind)
    except msgspec.ValidationError as error:
        raise BadRow(f"{where} is not what it seems: {error}.", mend) from None
    except (ValueError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        raise BadRow(f"{where} is not whole JSON: {said}.", mend) from None


def lines(file: File, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Yield the number and the document of every line that is not blank."""
    for number, text in enumerate(file.content.split(b"\n"), start=1):
        if text and not text.isspace():
            yield number, decode(text, kind, f"{file.name}, line {number},", _MEND_LINE)


def refuse_empty(found: object, file: File) -> None:
    """Raise NotAResult if a file has no calls."""
    if not found:
        raise NotAResult(
            f"{file.name} holds no call.", "Give the result of a benchmark that sent some."
        )


def _with_constants(text: bytes) -> Any:
    """Read JSON with NaN and Infinity; raises ValueError, for half a character too."""
    read = json.loads(text, parse_constant=_constant)
    json.dumps(read, ensure_ascii=False).encode()
    return read


def _constant(word: str) -> float | str:
    """Return what NaN and Infinity stand for: a word in place of the latter, as vLLM has it."""
    return math.nan if word == "NaN" else word.replace("Infinity", "inf")
