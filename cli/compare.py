"""`servescope compare`: which run of one plan was served better, and how sure is that?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.conclude import refuse_invalid
from servescope.cli.options import Json, Slo, Trim, trimmed
from servescope.cli.options import slo as read_slo


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories: the baseline first, then its challengers."),
    ],
    slo: Slo = None,
    trim: Trim = "none",
    margin: Annotated[
        float,
        typer.Option(help="Differences below this share do not matter: 0.05 is 5 %.", min=0.001),
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Compare runs of the same plan, paired, with 95 % intervals and a verdict in words.

    Example:  servescope compare runs/vllm runs/sglang --slo 'ttft<2s,stall<100ms'

    Example:  servescope compare runs/vllm runs/sglang runs/tgi --margin 0.1
    """
    from servescope.analysis import compare as compared
    from servescope.reports import Story, sections_of
    from servescope.traces import Run
    from servescope.traces.errors import InputError

    opened = trimmed([Run.open(path) for path in runs], trim)
    if len(opened) < 2:
        raise InputError("There is nothing to compare a single run with.", "Name two or more.")
    asked = read_slo(slo or opened[0].info.slo)
    comparison = compared(opened, asked, margin=margin)
    if as_json:
        console.json(comparison)
    else:
        sections = sections_of(Story(tuple(opened), asked, comparison))
        console.sections(s for s in sections if s.name in ("service", "objectives", "differences"))
        console.doubts(sections)
        for challenge in comparison.challenges:
            for text in challenge.explanations:
                console.say(text)
            console.verdict(challenge.verdict)
    refuse_invalid(opened)
