"""`servescope evaluate`: what a scheduling policy is worth, as JSON for a search."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.options import Params
from servescope.cli.options import params as read_params

BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def evaluate(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY.py",
            help="The file of the policy, or FILE.py:Name; a known system, too.",
        ),
    ],
    suite: Annotated[
        str, typer.Option(help="The loads: `default`, or a TOML file of one's own.")
    ] = "default",
    param: Params = None,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds for the whole suite; more is a failure.")
    ] = 60.0,
    memory_limit: Annotated[
        str, typer.Option(help="Memory beside what the evaluation takes itself, e.g. 500MB.")
    ] = "2GB",
    seed: Annotated[
        int, typer.Option(min=0, help="Draw other loads of the same kind, to hold a policy back.")
    ] = 0,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Let a policy see answer lengths if it asks for them.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the run directories here.")
    ] = None,
) -> None:
    """Run a policy over a fixed suite of loads, and print its score and what it is made of as JSON.

    The policy runs in a process of its own with limits on time and memory, and its engine is
    checked. Exit code 0: it has a score; 1: it failed, and the JSON says how; 2: your input.

    Example:  servescope evaluate examples/shortest_prompt_chunked.py
    """
    from servescope.loadgen import suite as suites
    from servescope.loadgen.evaluation import evaluate as run

    chosen = suites.read(suite)
    began_s = time.monotonic()
    with console.working(f"Evaluating {policy}"):
        found = run(
            policy,
            chosen,
            read_params(param),
            time_limit_s=time_limit,
            memory_bytes=_bytes(memory_limit),
            seed=seed,
            oracle=oracle,
            out=out,
        )
    console.json(found.told())
    console.say(f"Took {time.monotonic() - began_s:.1f} s.")
    if found.failure is not None:
        raise typer.Exit(1)


def _bytes(text: str) -> int:
    from servescope.traces.errors import InputError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text, re.I)
    size = float(found[1]) * BYTES[(found[2] or "").lower()] if found else 0
    if size < 1:
        raise InputError(f"--memory-limit cannot be {text}.", "Write it like 2GB, 500MB or 1GiB.")
    return int(size)
