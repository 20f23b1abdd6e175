"""Writes the boards, and what shows them: data source, scrape file, containers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from servescope.reports.exports import free
from servescope.traces.errors import OutputFailed


def write(folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the boards and the folder around them; returns the paths.

    Raises OutputExists before anything is written, unless `overwrite`, and OutputFailed if the disk
    does not take it.
    """
    shipped = list(_shipped(files("servescope.dashboards.grafana"), Path()))
    try:
        places = [free(folder / place, overwrite) for place, _ in shipped]
        for place, (_, source) in zip(places, shipped, strict=True):
            place.write_bytes(source.read_bytes())
    except OSError as error:
        raise OutputFailed.of(folder, error) from None
    return places


def _shipped(source: Traversable, place: Path) -> Iterator[tuple[Path, Traversable]]:
    """Yield all that lies beside the code, and where it goes."""
    for each in sorted(source.iterdir(), key=lambda each: each.name):
        if each.is_dir():
            yield from _shipped(each, place / each.name)
        elif not each.name.endswith((".py", ".pyc")):
            yield place / each.name, each
