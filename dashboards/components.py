"""From the blocks of a report to the components of a page; all text stays text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from servescope.dashboards.library import sentence_of
from servescope.dashboards.plots import Plots
from servescope.dashboards.rows import Heading, Rows
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table
from servescope.reports.render import written


def aria(**said: str) -> dict[str, Any]:
    """Return what a component says to those who do not see it: `label`, `labelledby`, ..."""
    return {f"aria-{name}": text for name, text in said.items()}


def sections(made: Iterable[Section]) -> list[Component]:
    """Return sections one under the other, each as the report has it."""
    return [
        html.Section(
            [*_told(each), Plots(figures_of([each])), *_folded(each)],
            id=each.name,
            **aria(labelledby=f"{each.name}-title"),
        )
        for each in made
    ]


def words(made: Iterable[Section]) -> list[Component]:
    """Return sections without their figures, which stand elsewhere to be changed in place."""
    return [part for each in made for part in (*_told(each), *_folded(each))]


def figures_of(made: Iterable[Section]) -> list[Figure]:
    """Return the figures of sections."""
    return [block for each in made for block in each.blocks if isinstance(block, Figure)]


def _told(made: Section) -> Iterator[Component]:
    yield html.H2(made.title, id=f"{made.name}-title")
    yield from (note(block) for block in made.blocks if isinstance(block, Note))
    yield from (
        table(block) for block in made.blocks if isinstance(block, Table) and not _word(block)
    )


def _folded(made: Section) -> Iterator[Component]:
    for block in made.blocks:
        if isinstance(block, Table) and (word := _word(block)):
            yield html.Details([html.Summary(word), table(block)])


def _word(made: Table) -> str:
    """Return under which word a table is folded away; those that explain words always are."""
    return made.folded or ("What the words mean" if made.defines else "")


def note(made: Note) -> Component:
    """Return a sentence that stands out, or text as it is."""
    if made.kind == "plain":
        return html.Pre(made.text)
    mark: list[Any] = [html.B(f"{made.mark}:"), " "] if made.mark else []
    return html.P([*mark, made.text], className=made.kind)


def doubt(text: str, mark: str = "") -> Component:
    """Return why something is not shown, or may mislead."""
    return note(Note("doubt", text, mark))


def wrong(error: Exception) -> Component:
    """Return the sentence of an error in the place of what could not be shown."""
    return doubt(sentence_of(error))


def table(made: Table) -> Component:
    """Return a table whose numbers are written as in the report."""
    rows = [[written(c, row.get(c.key)) for c in made.columns] for row in made.rows]
    says = [html.P(made.says, className="says")] if made.says else []
    return html.Div([Rows([heading(c) for c in made.columns], rows), *says])


def heading(column: Column, *, sorts: bool = False) -> Heading:
    """Return a column's heading as rows have it; one that `sorts` can be clicked."""
    made: Heading = {"heading": column.heading, "form": column.form}
    return {**made, "key": column.key} if sorts else made


def cards(told: Iterable[tuple[str, Column, Cell]]) -> Component:
    """Return the numbers that people look at first: label, how it is written, and value of each."""
    return html.Div(
        [html.Div([html.B(written(c, value)), html.Span(label)]) for label, c, value in told],
        className="cards",
    )


def field(label: str, name: str, grow: str = "", **more: Any) -> Component:
    """Return a labelled field to write in; `more` is for the field, `grow` a class of the style."""
    return html.Div(
        [html.Label(label, htmlFor=name), dcc.Input(id=name, **more)],
        className=f"field {grow}".rstrip(),
    )


def choice(
    label: str, name: str | dict[str, str], options: Sequence[Any], value: Any, **more: Any
) -> Component:
    """Return a labelled drop-down; a value that is no option is shown, so that it can be said."""
    chosen = value if isinstance(value, list) else [value] if value else []
    options = [*options, *(each for each in chosen if each not in options)]
    return html.Div(
        [html.Label(label), dcc.Dropdown(options, value, id=name, **more)],
        className="choice",
        role="group",
        **aria(label=label),
    )
