"""The end of a run: what it measured, its report, and the exit code it deserves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from servescope.cli import console
from servescope.cli.options import slo as read_slo

if TYPE_CHECKING:
    from servescope.traces import Run

INTERRUPTED = 130
NOT_SERVED = "no call of it was served"


def conclude(run: Run, as_json: bool, *, quiet: bool = False) -> None:
    """Show what a run measured, write its report, and end with the exit code it deserves."""
    from servescope.reports import render, story_of, write

    if run.trace.collect().is_empty():
        console.say(f"Interrupted before any call had ended. Run: {run.path}")
        raise typer.Exit(INTERRUPTED)
    story = story_of([run], read_slo(run.info.slo))
    # a run that was taken up again has one of its first part
    page = run.path / "report.html"
    made = write(story, page, overwrite=True)
    if as_json:
        print(render.json(story.title, made).decode())
    elif not quiet:
        console.sections(s for s in made if s.name in ("service", "latencies"))
    if not quiet or run.info.validity == "invalid":
        console.doubts(made)
    if not quiet:
        console.say(f"Run: {run.path}\nReport: {page}")
    if run.info.interrupted:
        raise typer.Exit(INTERRUPTED)
    refuse_invalid([run])


def refuse_unmeasured(runs: Sequence[Run]) -> None:
    """Raise GateFailed if a run has not ended, or holds too little to measure anything."""
    from servescope.traces.errors import GateFailed
    from servescope.traces.status import OK

    for run in runs:
        statuses = run.rows.select("status").collect()["status"]
        if statuses.is_empty():
            raise GateFailed(
                f"{run.path} holds no call that has ended: there is nothing to measure.",
                "Replay again and let it run longer; what there is stands in the report.",
            )
        if not (statuses == OK).any():
            raise GateFailed(
                f"All {len(statuses)} calls of {run.path} failed: there is no latency to measure.",
                "The report counts the failures by kind; look into the server's log.",
            )
        if run.info.validity == "unfinished":
            raise GateFailed(
                f"{run.path} has not ended: it is still being written, or was killed.",
                "What there is stands in the report; wait for its end, or go on with it: servescope"
                f" replay {run.path} --resume.",
            )
        if len(statuses) == 1:
            raise GateFailed(
                f"{run.path} holds a single call: nothing can be said of others like it.",
                "What it took stands in the report; replay more of them.",
            )


def refuse_invalid(runs: Sequence[Run]) -> None:
    """Raise GateFailed if a run served no call, or says more of the client than of the server."""
    from servescope.traces.errors import GateFailed
    from servescope.traces.status import OK

    for run in runs:
        if run.info.validity == "invalid":
            served = (run.rows.select("status").collect()["status"] == OK).any()
            why = "its numbers say more of the client than of the server" if served else NOT_SERVED
            raise GateFailed(
                f"{run.path} is invalid: {why}.",
                "The doubts say how to mend it; what was measured is kept.",
            )
