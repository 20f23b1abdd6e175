"""`servescope calibrate`: how right this machine's client is, at which rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servescope.cli import console
from servescope.cli.options import Json

if TYPE_CHECKING:
    from servescope.loadgen.calibration import Calibration


def calibrate(
    workers: Annotated[int, typer.Option(min=1, help="Client processes to measure.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds at each rate.")] = 6.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep it here, not in the user's cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine's client against a server that knows the truth, and keep the result.

    Replays on this machine then say if they ask for more than was measured to be right.

    Example:  servescope calibrate --workers 2
    """
    from servescope.loadgen import calibration
    from servescope.loadgen.calibrate import calibrate as measured

    with console.working("calibrating"):
        found = measured(
            workers,
            seconds,
            lambda step: console.say(
                f"{step.rate_rps:g} calls/s: tails within {step.error:.1%} of the truth"
            ),
        )
    path = out or calibration.place()
    calibration.keep(found, path)
    if as_json:
        console.json(found)
    else:
        _show(found)
    console.say(f"Kept in {path}")


def _show(found: Calibration) -> None:
    rows = [
        (
            f"{step.rate_rps:g}",
            f"{step.token_rate:,.0f}",
            f"{step.delivered - 1:+.2%}",
            f"{step.ttft_p50_error_s * 1000:.2f}",
            f"{step.ttft_p99_error:+.1%}",
            f"{step.gap_p99_error:+.1%}",
            f"{step.stamp_p99_s * 1000:.2f}",
            f"{step.lag_p99_s * 1000:.2f}",
            f"{step.cpu_share:.0%}",
            step.validity,
        )
        for step in found.steps
    ]
    headings = ["calls/s", "tokens/s", "rate off", "TTFT p50 off (ms)", "TTFT p99 off"]
    headings += ["gap p99 off", "stamp p99 (ms)", "lag p99 (ms)", "CPU", "the run says"]
    console.table(headings, rows)
    console.out.print(
        f"Unpaced: {found.unpaced_rps:,.0f} calls/s, {found.unpaced_token_rate:,.0f} tokens/s"
        " of one worker, answers coming whole."
    )
    good = found.sustained
    workers = "1 worker" if found.workers == 1 else f"{found.workers} workers"
    if good is None:
        console.doubt("Not even the lowest rate has tails within 10 % of the truth.")
    else:
        console.out.print(
            f"[bold]Sustained:[/] {good.token_rate:,.0f} tokens/s by {workers}, with tails within"
            " 10 % of the truth."
        )
