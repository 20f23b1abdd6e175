"""Blocks of a report become components with the same words, numbers and order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dash.development.base_component import Component

from servescope.dashboards import components
from servescope.dashboards.plots import Plots, drawn
from servescope.dashboards.rows import Rows
from servescope.reports.blocks import Column, Figure, Note, Section, Table
from servescope.reports.canvas import canvas
from servescope.traces.errors import InputError

NASTY = "<script>alert(1)</script>"
NUMBERS = Table(
    (Column("name", "name"), Column("ttft", "TTFT (ms)", "ms"), Column("n", "calls", "count")),
    [{"name": NASTY, "ttft": 0.0123, "n": 12345}, {"name": "b", "ttft": None, "n": 0}],
    "How to read it.",
)
WORDS = Table((Column("says", "definition", "prose"),), [{"says": "what it means"}])
FOLDED = Table((Column("x", "x"),), [{"x": "y"}], folded="The numbers")
PICTURE = Figure(canvas("x", "y"), "A caption.", wide=True)
SECTION = Section(
    "made", "A title", (PICTURE, WORDS, NUMBERS, FOLDED, Note("doubt", "Beware.", "Doubt"))
)


def parts(of: Any) -> Iterator[Component]:
    for each in of if isinstance(of, list | tuple) else [of]:
        if isinstance(each, Component):
            yield each
            yield from parts(getattr(each, "children", None))


def kinds(of: Any) -> list[str]:
    return [each._type for each in parts(of)]


def test_a_section_has_its_notes_tables_figures_and_what_is_folded_away_in_order() -> None:
    made = kinds(components.sections([SECTION]))
    assert [k for k in made if k in ("H2", "P", "Rows", "Plots", "Details")] == [
        "H2", "P", "Rows", "P", "Plots", "Details", "Rows", "Details", "Rows"
    ]  # fmt: skip
    assert "Plots" not in kinds(components.words([SECTION]))
    assert components.figures_of([SECTION, SECTION]) == [PICTURE, PICTURE]


def test_numbers_are_written_as_in_the_report_and_text_stays_as_it_is() -> None:
    (rows,) = (p for p in parts(components.table(NUMBERS)) if isinstance(p, Rows))
    told = rows.to_plotly_json()["props"]
    assert told["rows"] == [[NASTY, "12.3", "12\u202f345"], ["b", "-", "0"]]
    assert told["headings"][1] == {"heading": "TTFT (ms)", "form": "ms"}


def test_a_heading_that_sorts_says_by_what() -> None:
    column = Column("ttft", "TTFT", "ms")
    assert components.heading(column, sorts=True)["key"] == "ttft"
    assert "key" not in components.heading(column)


def test_figures_keep_their_captions() -> None:
    assert drawn([PICTURE]) == [{"figure": PICTURE.figure, "says": "A caption.", "wide": True}]
    assert Plots([], "here").to_plotly_json()["props"] == {"figures": [], "id": "here"}


def test_an_error_is_its_sentence_and_a_fault_tells_nothing_of_what_is_inside() -> None:
    (said,) = parts(components.wrong(InputError("Wrong.", "Mend.")))
    assert said.children == ["Wrong. Mend."]
    (said,) = parts(components.wrong(RuntimeError("/secret/path")))
    assert "/secret" not in str(said.children)
    assert "RuntimeError" in str(said.children)


def test_a_choice_shows_a_value_that_is_no_option() -> None:
    (made,) = (
        p for p in parts(components.choice("Run", "id", ["a"], "gone")) if p._type == "Dropdown"
    )
    assert made.options == ["a", "gone"]
