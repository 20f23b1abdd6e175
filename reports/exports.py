"""The same report for other readers: Markdown for a pull request, CSV, pictures for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from servescope.reports.blocks import Column, Figure, Note, Section, Table
from servescope.reports.render import written
from servescope.traces.errors import InputError, OutputExists

ImageFormat = Literal["svg", "png", "pdf"]
_WIDTH, _HEIGHT, _SCALE = 700, 420, 3  # a column of a paper, at some 300 dots an inch
_MARKUP = "\\|<*_`["


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the notes and tables as GitHub's Markdown, tables of definitions left out."""
    lines = [f"# {_escaped(title)}", ""]
    for section in sections:
        told = [line for block in section.blocks for line in _lines(block)]
        if told:
            lines += [f"## {section.title}", "", *told]
    return "\n".join(lines).rstrip() + "\n"


def _lines(block: Note | Table | Figure) -> Iterator[str]:
    if isinstance(block, Note) and block.kind == "plain":
        yield from ("```text", block.text.replace("```", "` ` `"), "```", "")
    elif isinstance(block, Note):
        mark = f"**{block.mark}:** " if block.mark else ""
        yield from (f"> {mark}{_escaped(block.text)}", "")
    elif isinstance(block, Table) and block.rows and not block.defines:
        yield "| " + " | ".join(_escaped(column.heading) for column in block.columns) + " |"
        yield "|" + "|".join(map(_edge, block.columns)) + "|"
        for row in block.rows:
            cells = (_escaped(written(column, row[column.key])) for column in block.columns)
            yield "| " + " | ".join(cells) + " |"
        yield ""
        if block.says:
            yield from (_escaped(block.says), "")


def _edge(column: Column) -> str:
    return "---" if column.form == "text" else "--:"


def _escaped(text: str) -> str:
    """Keep what a name holds from becoming markup."""
    return "".join(f"\\{sign}" if sign in _MARKUP else sign for sign in text).replace("\n", " ")


def write_markdown(
    title: str, sections: Sequence[Section], path: Path, *, overwrite: bool = False
) -> None:
    """Write the Markdown of a report; raises OutputExists, unless `overwrite`."""
    free(path, overwrite).write_text(markdown(title, sections), encoding="utf-8")


def write_csv(sections: Sequence[Section], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write every table as a CSV of raw values (seconds, shares); returns the paths.

    They are named by section and number. Text that a spreadsheet would take for a formula has a
    quote before it. Raises OutputExists for a file that is there, unless `overwrite`.
    """
    made = []
    for section in sections:
        tables = [block for block in section.blocks if isinstance(block, Table)]
        for number, table in enumerate(tables, 1):
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(column.key for column in table.columns)
            for row in table.rows:
                writer.writerow(_harmless(row[column.key]) for column in table.columns)
            path = free(folder / f"{section.name}-{number}.csv", overwrite)
            path.write_text(text.getvalue(), encoding="utf-8")
            made.append(path)
    return made


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def write_figures(
    sections: Sequence[Section],
    folder: Path,
    kind: ImageFormat = "svg",
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write every figure as a picture for print; returns the paths.

    Raises InputError without kaleido, or if no Chromium or Chrome is found.
    """
    try:
        import kaleido  # noqa: F401
    except ImportError:
        raise InputError(
            "Pictures are drawn by kaleido, which is not installed.",
            "Run: pip install 'servescope[images]'.",
        ) from None
    made = []
    for section in sections:
        figures = [block for block in section.blocks if isinstance(block, Figure)]
        for number, block in enumerate(figures, 1):
            path = free(folder / f"{section.name}-{number}.{kind}", overwrite)
            path.write_bytes(_drawn(block, kind))
            made.append(path)
    return made


def _drawn(block: Figure, kind: ImageFormat) -> bytes:
    height = max(_HEIGHT, block.figure.layout.height or 0)
    try:
        return bytes(block.figure.to_image(kind, width=_WIDTH, height=height, scale=_SCALE))
    except (RuntimeError, OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"The pictures cannot be drawn: {said}.",
            "Install Chromium or Chrome, or name it in BROWSER_PATH.",
        ) from None


def beside(out: Path, *, overwrite: bool = False) -> Path:
    """Return where the JSON of a page goes, if both may be written.

    Raises InputError for a name that does not end in .html, and OutputExists, unless `overwrite`.
    """
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"{out} is no name for a page.", "End it in .html; JSON goes beside it.")
    for path in (out, out.with_suffix(".json")):
        if path.exists() and not overwrite:
            raise OutputExists(
                f"{path} exists already.", "Choose another --out or add --overwrite."
            )
    return out.with_suffix(".json")


def free(path: Path, overwrite: bool) -> Path:
    """Make the folder of a path that may be written; raises OutputExists, unless `overwrite`."""
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already.", "Choose another place or add --overwrite.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
