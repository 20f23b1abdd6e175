"""What a page is made of: sections of notes, tables and figures, with no word of HTML in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence that stands out, or `plain` text as it is; `mark` is the word before it.

    `link` is a page or a section that says more, by its place from this one, and `linked` its name.
    """

    kind: Literal["verdict", "doubt", "why", "plain"]
    text: str
    mark: str = ""
    link: str = ""
    linked: str = "Report"


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: key in the data, heading, and how its numbers are written.

    `form` is text, prose, count, share, ms (milliseconds of a value in seconds), rate, ratio,
    number (whole ones in full, others to three digits) or p (a p-value).
    """

    key: str
    heading: str
    form: Literal["text", "prose", "count", "share", "ms", "rate", "ratio", "number", "p"] = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of raw values in SI units; only the page turns them into text.

    One with a word in `folded` stands behind the figures under that word, to be opened. `name` is
    what a figure links to.
    """

    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Cell]]
    says: str = ""
    folded: str = ""
    name: str = ""

    @property
    def defines(self) -> bool:
        """Whether it explains words rather than shows numbers."""
        return any(column.form == "prose" for column in self.columns)


@dataclass(frozen=True, slots=True)
class Figure:
    """A Plotly figure and the sentence that says how to read it; a `wide` one has its own row.

    `table` names the folded table of the page that holds its numbers.
    """

    figure: go.Figure
    says: str
    wide: bool = False
    table: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it. `name` is its anchor and its key in the JSON."""

    name: str
    title: str
    blocks: tuple[Note | Table | Figure, ...]


def told(columns: Sequence[Column], rows: Sequence[dict[str, Cell]]) -> tuple[Column, ...]:
    """Return the columns in which any row has something to say."""
    return tuple(c for c in columns if any(row.get(c.key) is not None for row in rows))


def doubts_of(sections: Iterable[Section]) -> list[str]:
    """Return every doubt that stands in sections, in their order."""
    return [
        block.text
        for section in sections
        for block in section.blocks
        if isinstance(block, Note) and block.kind == "doubt"
    ]
