"""`servescope simulate`: give a trace to the embedded engine in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.conclude import conclude
from servescope.cli.options import (
    Json,
    Model,
    Out,
    Quiet,
    Seed,
    Slo,
    System,
    Warmup,
    checked,
    from_file,
    grouped,
    label,
    run_directory,
)
from servescope.cli.options import slo as read_slo
from servescope.cli.system_options import Emulation
from servescope.cli.workload_options import Asked


@grouped(workload=Asked, engine=Emulation)
def simulate(
    context: typer.Context,
    workload: Asked,
    *,
    system: System = "sarathi",
    model: Model = "Llama-3.1-8B",
    engine: Emulation,
    name: Annotated[str | None, typer.Option(help="Name of the run in reports.")] = None,
    out: Out = None,
    seed: Seed = 0,
    slo: Slo = None,
    warmup: Warmup = 0.0,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Assert the invariants of the engine at every event, and hide answer lengths from"
            " the system.",
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a trace on the embedded engine in virtual time: hundreds of times faster than real time.

    Example:  servescope simulate mooncake:sample --system sarathi -p chunk_tokens=2048 --tp 8
    """
    from servescope.loadgen import simulate as virtual
    from servescope.loadgen.experiment import Experiment

    if workload.experiment_file:
        experiment = from_file(context, Path(workload.experiment_file), name)
    else:
        experiment = checked(
            Experiment,
            name=name or label(system),
            workload=workload.spec(),
            engine=engine.spec(system, model),
            seed=seed,
            slo=slo,
            warmup_s=warmup,
        )
    read_slo(experiment.slo)
    with console.counting(f"Simulating {experiment.name}", quiet=quiet) as told:
        run = virtual.simulate(experiment, run_directory(out, experiment.name), told, check=check)
    info = run.info
    took_s = info.client["simulation_s"]
    if info.duration_s and took_s and not quiet:
        console.say(
            f"{info.duration_s:,.1f} s of service in {took_s:.2f} s:"
            f" {info.duration_s / took_s:,.0f} times real time."
        )
    if check and not run.info.interrupted and not quiet:
        console.say(
            f"Checked at {info.client['checked_events']:,} events: no call was lost or came twice,"
            " every block and every token computed is accounted for."
        )
    conclude(run, as_json, quiet=quiet)
