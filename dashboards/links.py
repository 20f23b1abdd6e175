"""Deep links: what is selected on a page stands in its address, and a page opens as it says.

The browser keeps the address up to date by itself (assets/servescope.js); here it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, quote, urlencode

from dash import ClientsideFunction, Dash, Input, Output, State, dcc
from dash.development.base_component import Component

from servescope.analysis.cut import Cut
from servescope.traces.errors import InputError


class Query(dict[str, list[str]]):
    """The values of an address by name, each of which may stand there several times."""

    @classmethod
    def of(cls, search: str | None) -> Query:
        """Read what follows the question mark; a name that is not there has no values."""
        return cls(parse_qs((search or "").removeprefix("?")))

    def one(self, name: str, default: str = "") -> str:
        """Return the first value of a name."""
        return self.get(name, [default])[0]

    def number(self, name: str) -> float | None:
        """Return the first value of a name as a number; None if it is none."""
        try:
            value = float(self.one(name))
        except ValueError:
            return None
        return value if value == value and abs(value) != float("inf") else None


def href(page: str, **values: str | float | Sequence[str] | None) -> str:
    """Return the address of a page with a selection; what is empty is left out."""
    kept = {name: value for name, value in values.items() if value not in (None, "", (), [])}
    search = urlencode(kept, doseq=True, quote_via=quote)
    return f"/{page}?{search}" if search else f"/{page}"


def cut_of(window: Sequence[float | None] | None, where: Mapping[str, str | None]) -> Cut:
    """Return the part of a run that a page asks for; raises InputError for an empty window."""
    from_s, until_s = window or (None, None)
    if from_s is not None and until_s is not None and until_s <= from_s:
        raise InputError("The window of time is empty.", "Let it end after it begins.")
    chosen = tuple((key, value) for key, value in where.items() if value)
    return Cut(from_s, until_s, chosen)


def remembered(page: str, *told: tuple[str | Sequence[str], object]) -> list[Component]:
    """Return what a page needs for its address to follow its selection; see `remember`.

    Each name comes with the value that goes without saying; of a value that is a list, each item
    may have a name of its own.
    """
    data = [{"name": name, "usual": usual} for name, usual in told]
    return [dcc.Store(id=f"{page}-told", data=data), dcc.Store(id=f"{page}-address")]


def remember(app: Dash, page: str, *inputs: Input) -> None:
    """Let the address of a page follow its inputs, in the order of what is `remembered`."""
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("servescope", "remember"),
        Output(f"{page}-address", "data"),
        *inputs,
        State(f"{page}-told", "data"),
        prevent_initial_call=True,
    )
