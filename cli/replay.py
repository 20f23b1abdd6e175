"""`servescope replay`: send a trace to an endpoint, on time, and write down what came back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.conclude import conclude
from servescope.cli.options import (
    Duration,
    Format,
    Json,
    NumPrompts,
    Out,
    Seed,
    Sessions,
    Slo,
    Start,
    TimeScale,
    TraceOrExperiment,
    checked,
    from_file,
    run_directory,
    workload,
)
from servescope.cli.options import slo as read_slo


def replay(
    context: typer.Context,
    trace: TraceOrExperiment,
    base_url: Annotated[
        str, typer.Option("--base-url", help="Where the OpenAI-compatible server is.")
    ] = "http://127.0.0.1:8000",
    backend: Annotated[
        str, typer.Option(help="openai or vllm: completions with token ids; openai-chat: chat.")
    ] = "openai",
    endpoint: Annotated[
        str | None, typer.Option(help="Path of the endpoint, if it is not the backend's usual one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to ask for; the server's first one by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run in reports.")] = None,
    out: Out = None,
    format: Format = None,
    start: Start = 0.0,
    duration: Duration = None,
    num_prompts: NumPrompts = None,
    time_scale: TimeScale = 1.0,
    sessions: Sessions = "auto",
    seed: Seed = 0,
    slo: Slo = None,
    timeout: Annotated[float, typer.Option(help="Give a call up after this many seconds.")] = 600.0,
    ignore_eos: Annotated[
        bool,
        typer.Option("--ignore-eos/--no-ignore-eos", help="Ask for answers of planned length."),
    ] = True,
    extra_body: Annotated[
        str | None, typer.Option("--extra-body", help="JSON object added to every request.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="Environment variable that holds the API key.")
    ] = "OPENAI_API_KEY",
    as_json: Json = False,
) -> None:
    """Replay a trace against any OpenAI-compatible endpoint, in real time.

    Example:  servescope replay mooncake:sample --base-url http://127.0.0.1:8000 --slo 'ttft<2s'
    """
    from servescope.loadgen import runner
    from servescope.loadgen.experiment import EndpointSpec, Experiment

    if trace.endswith(".toml"):
        experiment = from_file(context, Path(trace), name)
    else:
        experiment = checked(
            Experiment,
            name=name or backend,
            workload=workload(trace, format, start, duration, num_prompts, time_scale, sessions),
            endpoint=checked(
                EndpointSpec,
                base_url=base_url,
                backend=backend,
                path=endpoint,
                model=model,
                api_key_env=api_key_env,
                timeout_s=timeout,
                ignore_eos=ignore_eos,
                extra_body=_object(extra_body),
            ),
            seed=seed,
            slo=slo,
        )
    read_slo(experiment.slo)  # a mistake in it should not wait for the end of the replay
    with console.progress(f"replaying {trace}") as show:
        run = runner.replay(experiment, run_directory(out, experiment.name), show)
    conclude(run, as_json)


def _object(text: str | None) -> dict[str, object]:
    import msgspec

    from servescope.traces.errors import InputError

    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise InputError(
            f"--extra-body is not a JSON object: {error}.", "Quote it for the shell."
        ) from None
