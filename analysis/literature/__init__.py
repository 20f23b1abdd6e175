"""The tables and figures of the literature, with any trace's numbers beside the published ones.

A published value stands here only where it is known, with where it is from; the rest are empty. A
paper is a file; a new one is added here.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from servescope.analysis.characterization import Characterization
from servescope.analysis.demand import Demand
from servescope.analysis.literature import azure, burstgpt, mooncake, servegen
from servescope.analysis.literature.layout import Layout, Row
from servescope.traces.errors import InputError

__all__ = ["LAYOUTS", "Layout", "Row", "layout_of", "recreate"]

LAYOUTS: Final[dict[str, Layout]] = {
    "burstgpt": burstgpt.LAYOUT,
    "servegen": servegen.LAYOUT,
    "mooncake": mooncake.LAYOUT,
    "azure": azure.LAYOUT,
}


def layout_of(name: str) -> Layout:
    """Return the layout of a paper; raises InputError for one that is not known."""
    if name not in LAYOUTS:
        raise InputError(f"There is no layout '{name}'.", f"Known: {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def recreate(name: str, found: Characterization, demand: Demand) -> dict[str, pl.DataFrame]:
    """Fill the tables of a paper by their titles: quantity, unit, published, ours.

    Raises InputError for a paper that is not known.
    """
    return layout_of(name).filled(found, demand)
