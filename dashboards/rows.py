"""A table as one component: Dash takes seconds for a page on which every cell is one.

assets/rows.js draws it, and puts every cell there as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from dash.development.base_component import Component


class Heading(TypedDict, total=False):
    """A column's heading and form (a class of the style); with a `key` it can be sorted by."""

    heading: str
    form: str
    key: str


class Cell(TypedDict, total=False):
    """Text with something about it: a link, a value that a click hands back, tags, a class."""

    text: str
    href: str
    value: str
    tags: Sequence[str]
    form: str
    wide: int  # over so many columns


class Rows(Component):
    """Rows of text under headings.

    `clicked` becomes [value, count] of a cell that is clicked, `sort` the key of a heading (with -
    before it: largest first). With `names`, one a row, each has a box to tick; `picked` are the
    names that are ticked.
    """

    _children_props: list[str] = []  # noqa: RUF012  # as Dash has it in every component
    _base_nodes = ["children"]  # noqa: RUF012
    _namespace = "servescope"
    _type = "Rows"
    _prop_names = ["id", "headings", "rows", "names", "picked", "sort", "clicked"]  # noqa: RUF012
    _valid_wildcard_attributes: list[str] = []  # noqa: RUF012
    available_properties = _prop_names
    available_wildcard_properties: list[str] = []  # noqa: RUF012

    def __init__(
        self,
        headings: Sequence[Heading],
        rows: Sequence[Sequence[str | Cell]],
        id: str | dict[str, str] | None = None,
        names: Sequence[str] | None = None,
        picked: Sequence[str] | None = None,
        sort: str | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "id": id, "headings": headings, "rows": rows, "names": names, "picked": picked,
            "sort": sort,
        }  # fmt: skip
        super().__init__(  # type: ignore[no-untyped-call]
            **{name: value for name, value in given.items() if value is not None}
        )
