"""`servescope dashboard`: look at runs in a browser, or write boards for Grafana."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from servescope.cli import console
from servescope.cli.options import EndWithStdin, end_with_stdin

if TYPE_CHECKING:
    from servescope.loadgen.conductor import Progress, Tally

BEHIND = 19  # niceness: who watches waits for who measures
END_S = 5.0


class _OpenByDefault(TyperGroup):
    """What is no verb of the group is a folder to open."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["open", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_OpenByDefault,
    help="Look at runs in a browser: `dashboard RUNS` opens a folder of them, live ones too.\n\n"
    "Example:  servescope dashboard runs\n\n"
    "Example:  servescope dashboard grafana -o monitoring",
)


@app.command("open")
def open_(
    context: typer.Context,
    runs: Annotated[
        Path, typer.Argument(help="The folder that the runs are in, or one run.")
    ] = Path("runs"),
    trace: Annotated[
        list[str] | None,
        typer.Option("--trace", help="A trace to look at: a name, a file, ... May be given again."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others can reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8050,
    token_env: Annotated[
        str,
        typer.Option(
            "--token-env",
            help="Environment variable that holds the token; without it one is made up.",
        ),
    ] = "SERVESCOPE_TOKEN",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")
    ] = True,
    page: Annotated[str, typer.Option(help="Where to begin.", hidden=True)] = "",
    end_with: EndWithStdin = False,
) -> None:
    """Look at the runs under a folder, finished or in progress, in a browser.

    Example:  servescope dashboard runs

    Example:  servescope dashboard runs --trace real.jsonl --trace synthetic.jsonl

    Example:  servescope dashboard runs --host 0.0.0.0 --port 8050
    """
    import logging
    import webbrowser
    from threading import Thread

    refuse_without_dash()
    from servescope.dashboards import Library, Server, app_of

    if context.find_root().params.get("debug"):
        logging.basicConfig()
        logging.getLogger("servescope.dashboards").setLevel(logging.DEBUG)
    library = Library(runs, trace or ())
    server = Server(app_of(library), host, port, os.environ.get(token_env, ""))
    Thread(target=library.listed, daemon=True).start()  # the browser takes its time, too
    url = server.url_of(page)
    console.say(f"Dashboard: {url}")
    if server.token:
        console.say("Whoever has this address can look at the runs; Ctrl-C ends it.")
    else:
        console.say("Only this machine can open it; Ctrl-C ends it.")
    if end_with:
        end_with_stdin()
    if browser:
        webbrowser.open(url)
    with suppress(KeyboardInterrupt):
        server.run()


@contextmanager
def watching(run: Path, asked: bool) -> Iterator[Callable[[Progress], Progress]]:
    """Give what makes of something that shows progress one that opens the run in the browser first.

    The dashboard is a process of its own that lets others go first. On a terminal it stays until
    Ctrl-C, else it ends with the context. If it is not asked for, nothing is opened.
    """
    if asked:
        refuse_without_dash()
    opened: list[subprocess.Popen[bytes]] = []

    def opening(show: Progress) -> Progress:
        def showing(tally: Tally) -> None:
            if asked and not opened:  # the run has a folder now
                opened.append(_opened(run))
            show(tally)

        return showing

    try:
        yield opening
        if opened and console.err.is_terminal:
            console.say("The dashboard stays open; Ctrl-C ends it.")
            with suppress(KeyboardInterrupt):
                opened[0].wait()
    finally:
        for process in opened:
            _end(process)


def refuse_without_dash() -> None:
    """Raise InputError, with its mend, where the extra is not installed."""
    from importlib.util import find_spec

    from servescope.traces.errors import InputError

    if find_spec("dash") is None:
        raise InputError("Dash is not installed.", "Run: pip install 'servescope[dashboard]'.")


def _opened(run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "servescope.cli", "dashboard", "open", str(run)]
    command += ["--port", "0", "--page", "live?run=.", "--end-with-stdin"]
    # Ctrl-C stops the replay in good order, and must not reach who looks on
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
    )
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, BEHIND)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@app.command("grafana")
def grafana(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the boards into.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write boards for Grafana, with the files that have Prometheus and Grafana show them.

    Example:  servescope dashboard grafana -o monitoring
    """
    from servescope.dashboards.grafana import write

    made = write(out, overwrite=overwrite)
    for path in made:
        console.out.print(str(path), markup=False, soft_wrap=True)
    console.say(f"{len(made)} files; begin with {out / 'README.md'}")
