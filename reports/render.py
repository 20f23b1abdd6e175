"""From sections to bytes: one HTML page that needs no network, and the same numbers as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import msgspec
from plotly.offline import get_plotlyjs

from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table

MISSING = "-"


def html(title: str, sections: Sequence[Section]) -> str:
    """Return a self-contained page: Plotly and the style are inside it."""
    return _template().render(
        title=title, sections=sections, style=style(), plotlyjs=get_plotlyjs()
    )


@cache
def style() -> str:
    """Return the style of pages and figures, light and dark, as CSS that names nothing outside."""
    return resources.files("servescope.reports").joinpath("templates/style.css").read_text("utf-8")


def json(title: str, sections: Sequence[Section]) -> bytes:
    """Return the notes and tables of the page with raw values (seconds, shares) by section name."""
    page = {
        "title": title,
        "sections": {
            section.name: [
                _plain(block) for block in section.blocks if not isinstance(block, Figure)
            ]
            for section in sections
        },
    }
    return msgspec.json.format(msgspec.json.encode(page), indent=2)


def written(column: Column, value: Cell) -> str:
    """Return a cell as a person reads it; a missing value is a dash, never 0."""
    if value is None:
        return MISSING
    if isinstance(value, str):
        return value
    match column.form:
        case "count":
            whole = int(value) if float(value).is_integer() else value
            return f"{whole:,}".replace(",", "\u202f")
        case "share":
            return f"{value:.1%}"
        case "ms":
            return _significant(value * 1000)
        case "rate" | "ratio":
            return _significant(value)
        case "number":
            if float(value).is_integer() and abs(value) < 1e12:
                return f"{value:,.0f}".replace(",", "\u202f")
            return _significant(value)
        case "p":
            return "< 0.001" if value < 0.001 else f"{value:.3f}"
        case "text" | "prose":
            return str(value)


def _significant(value: float) -> str:
    """Write three significant digits, and whole numbers in full."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:#.3g}"


def _plain(block: Note | Table) -> dict[str, Any]:
    if isinstance(block, Note):
        return {"kind": block.kind, "mark": block.mark, "text": block.text}
    return {"kind": "table", "says": block.says, "rows": list(block.rows)}


def _figure_html(block: Figure, name: str) -> str:
    """Return a figure as a div and its script; names in it cannot end the script."""
    return str(
        block.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config={"displaylogo": False, "responsive": True, "displayModeBar": False},
        )
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("servescope.reports", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["written"] = lambda value, column: written(column, value)
    environment.globals["figure_html"] = _figure_html
    environment.tests["note"] = lambda block: isinstance(block, Note)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    return environment.get_template("page.html")
