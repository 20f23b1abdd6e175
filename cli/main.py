"""The door: `servescope` and its verbs. A verb imports the heavy libraries that it needs."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from servescope.cli import (
    analyze,
    calibrate,
    capacity,
    compare,
    dashboard,
    demo,
    engine,
    evaluate,
    experiment,
    fit,
    replay,
    report,
    results,
    serve,
    simulate,
    sweep,
    synthesize,
    traces,
    verify,
    workload,
)

app = typer.Typer(
    name="servescope",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a real LLM workload trace to a verdict: which scheduler served it better,"
    " by how much, and how sure.\n\nStart with:  [bold]servescope demo[/bold]",
    epilog="Exit codes: 0 done, 1 an invalid run, 2 your input, 3 the endpoint, 130 interrupted.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"servescope {version('servescope')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = debug


_debug = False

app.command("demo")(demo.demo)
app.add_typer(traces.app, name="traces")
app.command("workload")(workload.workload)
app.command("analyze")(analyze.analyze)
app.command("fit")(fit.fit)
app.command("synthesize")(synthesize.synthesize)
app.command("verify")(verify.verify)
app.command("replay")(replay.replay)
app.command("calibrate")(calibrate.calibrate)
app.command("simulate")(simulate.simulate)
app.command("evaluate")(evaluate.evaluate)
app.command("serve")(serve.serve)
app.command("sweep")(sweep.sweep)
app.command("capacity")(capacity.capacity)
app.add_typer(engine.app, name="engine")
app.add_typer(experiment.app, name="experiment")
app.add_typer(results.app, name="results")
app.add_typer(dashboard.app, name="dashboard")
app.command("report")(report.report)
app.command("compare")(compare.compare)


def _with_goodput(words: list[str]) -> list[str]:
    """Make one value of what follows --goodput as vLLM's benchmark takes it: ttft:500 tpot:50."""
    joined: list[str] = []
    for word in words:
        if len(joined) > 1 and joined[-2] == "--goodput" and _GOODPUT.fullmatch(word):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


_GOODPUT = re.compile(r"[a-z0-9]+:[0-9.]+")


def main() -> None:
    """Run the command line; every error ends in one clear sentence, its mend, and an exit code."""
    try:
        app(args=_with_goodput(sys.argv[1:]))
    except Exception as error:
        if _debug:
            raise
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    from servescope.cli import console
    from servescope.traces.errors import OutputFailed, ServescopeError

    if isinstance(error, OSError) and error.strerror:
        error = OutputFailed.of(error.filename or "The output", error)
    if isinstance(error, ServescopeError):
        console.error(str(error))
        return error.exit_code
    console.error(
        f"{type(error).__name__}: {error}. This is a fault of servescope;"
        " run `servescope --debug ...` and report what it prints."
    )
    return 70  # EX_SOFTWARE of sysexits.h


if __name__ == "__main__":
    main()
