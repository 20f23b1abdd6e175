"""`servescope report`: a page that can be sent to anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.options import Slo
from servescope.cli.options import slo as read_slo


def report(
    runs: Annotated[list[Path], typer.Argument(help="One run directory, or two to compare.")],
    slo: Slo = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Page to write; JSON goes beside it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page.")] = False,
) -> None:
    """Write one self-contained HTML page of a run, or of two runs compared.

    Example:  servescope report runs/a runs/b --slo 'ttft<2s,stall<100ms' -o report.html
    """
    from servescope.reports import story_of, write
    from servescope.traces import Run

    opened = [Run.open(path) for path in runs]
    asked = slo or opened[0].info.slo
    story = story_of(opened, read_slo(asked))
    console.say(f"Report: {write(story, out or Path('report.html'), overwrite=overwrite)}")
