"""Figures as one component, which is told of new ones: a figure changes in its place.

As children of a page that is made anew, graphs would be thrown away and drawn from nothing.
assets/plots.js draws those that are in sight, with the Plotly that reports have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash.development.base_component import Component

from servescope.reports.blocks import Figure


class Plots(Component):
    """Figures and how to read them, each a dict of `drawn`.

    `clicked` becomes [number of the figure, text of the point, its custom data, count], and
    `dragged` the range of x that was dragged over.
    """

    _children_props: list[str] = []  # noqa: RUF012  # as Dash has it in every component
    _base_nodes = ["children"]  # noqa: RUF012
    _namespace = "servescope"
    _type = "Plots"
    _prop_names = ["id", "figures", "clicked", "dragged"]  # noqa: RUF012
    _valid_wildcard_attributes: list[str] = []  # noqa: RUF012
    available_properties = _prop_names
    available_wildcard_properties: list[str] = []  # noqa: RUF012

    def __init__(
        self, figures: Sequence[Figure] = (), id: str | dict[str, str] | None = None
    ) -> None:
        named = {} if id is None else {"id": id}
        super().__init__(figures=drawn(figures), **named)  # type: ignore[no-untyped-call]


def drawn(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures as the component takes them."""
    return [{"figure": each.figure, "says": each.says, "wide": each.wide} for each in figures]
