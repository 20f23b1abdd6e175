"""`servescope compare`: which of two runs of one plan was served better, and how sure is that?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.conclude import refuse_invalid
from servescope.cli.options import Json, Slo
from servescope.cli.options import slo as read_slo


def compare(
    a: Annotated[Path, typer.Argument(help="Run directory of the baseline.")],
    b: Annotated[Path, typer.Argument(help="Run directory of the challenger.")],
    slo: Slo = None,
    as_json: Json = False,
) -> None:
    """Compare two runs of the same plan, paired, with 95 % intervals and a verdict in words.

    Example:  servescope compare runs/vllm runs/sglang --slo 'ttft<2s,stall<100ms'
    """
    from servescope.reports import sections_of, story_of
    from servescope.traces import Run

    opened = [Run.open(path) for path in (a, b)]
    story = story_of(opened, read_slo(slo or opened[0].info.slo))
    if story.refused:
        raise story.refused
    comparison = story.comparison
    assert comparison is not None
    if as_json:
        console.json(comparison)
    else:
        sections = sections_of(story)
        console.sections(s for s in sections if s.name in ("service", "differences"))
        console.doubts(sections)
        console.verdict(comparison.verdict)
    refuse_invalid(opened)
