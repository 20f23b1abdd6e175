"""`servescope replay`: send a trace to an endpoint, on time, and write down what came back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from servescope.cli import console
from servescope.cli.conclude import conclude
from servescope.cli.dashboard import watching
from servescope.cli.options import (
    Json,
    Out,
    Quiet,
    Seed,
    Slo,
    Warmup,
    alone,
    checked,
    from_file,
    grouped,
    pairs,
    params,
    run_directory,
)
from servescope.cli.options import slo as read_slo
from servescope.cli.workload_options import Asked

if TYPE_CHECKING:
    from servescope.loadgen.exporter import Exporter

WATCHING = ("metrics_port", "metrics_host", "dashboard")  # what may stand beside an experiment file
WHERE, HOW, PACE, ROUTE, WATCH = "Endpoint", "Requests", "Pacing", "Replicas", "Watching"


@grouped(workload=Asked)
def replay(
    context: typer.Context,
    workload: Asked,
    base_url: Annotated[
        list[str] | None,
        typer.Option(
            "--base-url",
            "--url",
            help="Where the server is; give it again for every replica.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="The dialect: openai or vllm (completions with token ids), openai-chat, sglang,"
            " tgi, llamacpp, ...",
            rich_help_panel=WHERE,
        ),
    ] = "openai",
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Path of the endpoint, if it is not the backend's usual one.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--served-model-name",
            help="Model to ask for; the server's first one by default.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    api_key_env: Annotated[
        str,
        typer.Option(
            "--api-key-env",
            help="Environment variable that holds the API key.",
            rich_help_panel=WHERE,
        ),
    ] = "OPENAI_API_KEY",
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            help="NAME=VALUE sent with every request. A secret is given as NAME=$VARIABLE or"
            " NAME=@FILE, and is never written down.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run in reports.")] = None,
    out: Out = None,
    seed: Seed = 0,
    slo: Slo = None,
    warmup: Warmup = 0.0,
    max_concurrency: Annotated[
        int | None,
        typer.Option(
            "--max-concurrency",
            min=1,
            help="Calls in flight at most; what waits for a slot is measured and shown.",
            rich_help_panel=PACE,
        ),
    ] = None,
    users: Annotated[
        int | None,
        typer.Option(
            "--users",
            "--concurrency",
            min=1,
            help="Closed loop: so many users, each running one program after the other.",
            rich_help_panel=PACE,
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            help="Client processes, or auto. What is sent does not depend on it.",
            rich_help_panel=PACE,
        ),
    ] = "auto",
    timeout: Annotated[
        float,
        typer.Option(help="Give a call up after this many seconds.", rich_help_panel=HOW),
    ] = 600.0,
    idle_timeout: Annotated[
        float,
        typer.Option(
            help="Give a stream up that is silent for so many seconds.", rich_help_panel=HOW
        ),
    ] = 300.0,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            help="Send a call again that failed before its answer began, so many times.",
            rich_help_panel=HOW,
        ),
    ] = 0,
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            help="Ask for answers of planned length.",
            rich_help_panel=HOW,
        ),
    ] = True,
    min_tokens: Annotated[
        bool,
        typer.Option(
            "--min-tokens", help="Also ask for no fewer than planned.", rich_help_panel=HOW
        ),
    ] = False,
    usage_each: Annotated[
        bool,
        typer.Option(
            "--continuous-usage-stats",
            help="Ask for the token count with every chunk.",
            rich_help_panel=HOW,
        ),
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="The model's tokenizer.json, or its folder: chat prompts are exact to the token.",
            rich_help_panel=HOW,
        ),
    ] = None,
    history: Annotated[
        Literal["planned", "generated"],
        typer.Option(
            help="Earlier answers in chats: made by the plan, or what the server really said.",
            rich_help_panel=HOW,
        ),
    ] = "planned",
    scrape: Annotated[
        float,
        typer.Option(
            "--scrape",
            min=0,
            help="Read the servers' /metrics every so many seconds; 0 does not.",
            rich_help_panel=WHERE,
        ),
    ] = 1.0,
    extra_body: Annotated[
        str | None,
        typer.Option(
            "--extra-body", help="JSON object added to every request.", rich_help_panel=HOW
        ),
    ] = None,
    dispatch: Annotated[
        str,
        typer.Option(help="Which replica a call goes to.", rich_help_panel=ROUTE),
    ] = "round-robin",
    dispatch_param: Annotated[
        list[str] | None,
        typer.Option(
            "--dispatch-param", help="A parameter of it, key=value.", rich_help_panel=ROUTE
        ),
    ] = None,
    priority: Annotated[
        str,
        typer.Option(help="The priority that requests carry.", rich_help_panel=ROUTE),
    ] = "none",
    priority_param: Annotated[
        list[str] | None,
        typer.Option(
            "--priority-param", help="A parameter of it, key=value.", rich_help_panel=ROUTE
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65535,
            help="Show Prometheus what the client sees, on this port; 0 takes any free one.",
            rich_help_panel=WATCH,
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            "--metrics-host",
            help="Address of that port; nobody is asked who they are.",
            rich_help_panel=WATCH,
        ),
    ] = "127.0.0.1",
    dashboard: Annotated[
        bool,
        typer.Option("--dashboard", help="Watch the run in the browser.", rich_help_panel=WATCH),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="TRACE is the folder of a run that was stopped or killed: send what it has not.",
        ),
    ] = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="As always.", hidden=True)
    ] = True,  # this and the next are AIPerf's words for what is always done here
    server_counts: Annotated[
        bool, typer.Option("--use-server-token-count", help="As always.", hidden=True)
    ] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Replay a trace, or made-up calls, against any serving endpoint, in real time.

    Example:  servescope replay mooncake:sample --base-url http://127.0.0.1:8000 --slo 'ttft<2s'

    Example:  servescope replay --random-input-len 512 --request-rate 8 --duration 60 --backend vllm
    """
    from servescope.loadgen.crew import Crew
    from servescope.loadgen.experiment import EndpointSpec, Experiment
    from servescope.traces.errors import InputError

    if resume:
        from servescope.loadgen import runner

        alone(context, "resume", "quiet", *WATCHING)
        if workload.trace is None:
            raise InputError("It is not said which run goes on.", "Name its folder.")
        folder = Path(workload.trace)
        with watching(folder, dashboard) as opening:
            with (
                _exporter(metrics_host, metrics_port) as exporter,
                console.progress(f"resuming {folder}", quiet=quiet) as show,
            ):
                run = runner.resume(folder, opening(show), step_back=True, exporter=exporter)
            conclude(run, as_json, quiet=quiet)
        return
    urls = base_url or ["http://127.0.0.1:8000"]
    if workload.experiment_file:
        experiment = from_file(context, Path(workload.experiment_file), name, *WATCHING)
    else:
        experiment = checked(
            Experiment,
            name=name or backend,
            workload=workload.spec(),
            endpoint=checked(
                EndpointSpec,
                base_url=urls[0] if len(urls) == 1 else urls,
                backend=backend,
                path=endpoint,
                model=model,
                api_key_env=api_key_env,
                headers=pairs(header, "header"),
                timeout_s=timeout,
                idle_s=idle_timeout,
                retries=retries,
                ignore_eos=ignore_eos,
                min_tokens=min_tokens,
                usage_each=usage_each,
                scrape_s=scrape,
                extra_body=_object(extra_body),
                tokenizer=tokenizer,
                history=history,
                max_concurrency=max_concurrency,
                users=users,
                dispatch=dispatch,
                dispatch_params=params(dispatch_param),
                priority=priority,
                priority_params=params(priority_param),
                workers=_count(workers),
            ),
            seed=seed,
            slo=slo,
            warmup_s=warmup,
        )
    endpoint_asked = experiment.endpoint
    folder = run_directory(out, experiment.name)
    with watching(folder, dashboard) as opening:
        with (
            _exporter(metrics_host, metrics_port) as exporter,
            Crew((endpoint_asked and endpoint_asked.workers) or 1) as crew,  # loads while we do
        ):
            from servescope.loadgen import runner

            read_slo(experiment.slo)  # a mistake in it should not wait for the end of the replay
            with console.progress(f"replaying {workload.name}", quiet=quiet) as show:
                run = runner.replay(
                    experiment, folder, opening(show), crew, step_back=True, exporter=exporter
                )
        conclude(run, as_json, quiet=quiet)


@contextmanager
def _exporter(host: str, port: int | None) -> Iterator[Exporter | None]:
    """Take the place where metrics are shown, before anything is sent; None if nobody asked."""
    if port is None:
        yield None
        return
    from servescope.loadgen.exporter import Exporter

    with Exporter.listening(host, port) as exporter:
        console.say(f"Prometheus finds the client's metrics at {exporter.url}")
        yield exporter


def _count(workers: str) -> int:
    from servescope.traces.errors import InputError

    if workers == "auto":
        return 0
    if not workers.isdigit() or int(workers) < 1:
        raise InputError(f"--workers cannot be {workers}.", "Give a number from 1, or auto.")
    return int(workers)


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
