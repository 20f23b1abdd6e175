"""`servescope serve`: the embedded engine as an OpenAI-compatible server in real time."""

from __future__ import annotations

from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.options import EndWithStdin, Model, System, end_with_stdin, grouped
from servescope.cli.system_options import Emulation


@grouped(engine=Emulation)
def serve(
    *,
    system: System = "sarathi",
    model: Model = "Llama-3.1-8B",
    engine: Emulation,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="What goes wrong how often: reset:0.01, stall:0.02:3s, error-503:0.01."),
    ] = None,
    fault_seed: Annotated[int, typer.Option(help="Seed of which requests that befalls.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
    end_with: EndWithStdin = False,
) -> None:
    """Serve an emulated engine over HTTP as vLLM does: completions, chat, models, health, metrics.

    Example:  servescope serve --system sarathi --model llama-3.1-8b --gpu h100 --replicas 2
    """
    from servescope.engine import http
    from servescope.engine.faults import Fault, Faults
    from servescope.loadgen.simulate import cluster_of

    faults = Faults(map(Fault.parse, fault or ()), fault_seed)
    cluster = cluster_of(engine.spec(system, model))

    if end_with:
        end_with_stdin()

    def listening(url: str) -> None:
        print(f"{system} serves {model} at {url}", flush=True)
        for each in faults.faults:
            console.say(f"On purpose: {each.kind} of {each.share:.1%} of the requests.")
        console.say("Ctrl-C ends it.")

    def died(error: Exception) -> None:
        console.error(f"{system} failed, every request is answered with 500: {error}")

    label = f"{system} {model} {engine.gpu}"
    http.serve(cluster, model, host, port, listening, label, faults, died)
