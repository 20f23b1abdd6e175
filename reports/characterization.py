"""The page of a trace, or of several side by side; as JSON and CSV too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from servescope.analysis.binned import sampled
from servescope.analysis.characterization import Characterization
from servescope.analysis.summary import sentences
from servescope.analysis.trace_comparison import differences, names_of
from servescope.reports import exports, render
from servescope.reports.blocks import Section
from servescope.reports.trace_sections import sections_of

_ROWS = 500  # of a table in the JSON; the whole is in the CSV files


def write(
    found: Sequence[Characterization],
    out: Path,
    layouts: Mapping[str, Mapping[str, pl.DataFrame]] | None = None,
    *,
    overwrite: bool = False,
) -> list[Section]:
    """Write the page to `out` and everything that was found beside it as JSON; return the sections.

    Raises OutputExists, unless `overwrite`, and InputError for a name that does not end in .html.
    """
    beside = exports.beside(out, overwrite=overwrite)
    sections = sections_of(found, layouts)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render.html(title_of(found), sections), encoding="utf-8")
    beside.write_bytes(json(found, layouts))
    return sections


def title_of(found: Sequence[Characterization]) -> str:
    """Return the heading of the page."""
    return " against ".join(names_of(found))


def json(
    found: Sequence[Characterization],
    layouts: Mapping[str, Mapping[str, pl.DataFrame]] | None = None,
) -> bytes:
    """Return all that was found as JSON; a long table has evenly spread rows and its height."""
    page: dict[str, Any] = {
        "traces": [_plain(each) for each in found],
        **(
            {"layouts": {k: {t: f.to_dicts() for t, f in v.items()} for k, v in layouts.items()}}
            if layouts
            else {}
        ),
        **({"differences": differences(found).to_dicts()} if len(found) > 1 else {}),
    }
    return msgspec.json.format(msgspec.json.encode(page), indent=2)


def _plain(each: Characterization) -> dict[str, Any]:
    return {
        "name": each.name,
        "calls": each.calls,
        "provenance": msgspec.to_builtins(each.about),
        "summary": [sentence.text for sentence in sentences(each)],
        "clock": msgspec.to_builtins(each.audit),
        "statistics": each.statistics.to_dicts(),
        "tables": {
            name: {"rows_in_all": table.height, "rows": sampled(table, _ROWS).to_dicts()}
            for name, table in each.tables.items()
        },
        "left_out": each.left_out.to_dicts(),
        "doubts": list(each.about.doubts),
    }


def write_csv(
    found: Sequence[Characterization], folder: Path, *, overwrite: bool = False
) -> list[Path]:
    """Write every table, whole, and the statistics as CSV; returns the paths.

    Of several traces each has a folder of its own, by number. Raises OutputExists for a file that
    is there, unless `overwrite`.
    """
    made = []
    for number, each in enumerate(found, 1):
        home = folder / str(number) if len(found) > 1 else folder
        tables = {"statistics": each.statistics, "left_out": each.left_out, **each.tables}
        for name, table in tables.items():
            path = exports.free(home / f"{name}.csv", overwrite)
            table.write_csv(path)
            made.append(path)
    if len(found) > 1:
        path = exports.free(folder / "differences.csv", overwrite)
        differences(found).write_csv(path)
        made.append(path)
    return made
