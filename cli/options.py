"""Options that several verbs share, so that they read and behave alike."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    import msgspec

    from servescope.analysis import SLO
    from servescope.loadgen.experiment import Experiment
    from servescope.traces import Run

Format = Annotated[
    str | None, typer.Option("--format", help="Read the file as this format, not by its content.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the prompts; the same seed, the same bytes.")
]
Slo = Annotated[
    str | None,
    typer.Option(
        "--slo", "--goodput", help="What every call must meet, e.g. 'ttft<2s,stall<100ms'."
    ),
]
Warmup = Annotated[
    float,
    typer.Option(
        "--warmup",
        min=0,
        help="Leave the programs that begin in the first so many seconds out of every number.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run directory to make; never overwritten.")
]
Trim = Annotated[
    str,
    typer.Option(
        "--trim",
        help="What to leave out as warm-up: none, auto (twice the longest call, and MSER-5), or so"
        " many seconds.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Simulations at a time, each in a process of its own; as many as there are cores.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="A parameter of the system, e.g. chunk_tokens=2048."),
]
System = Annotated[
    str,
    typer.Option(
        help="Scheduling system of the embedded engine: a name, or a Python file as in policy.py or"
        " policy.py:Name."
    ),
]
Model = Annotated[str, typer.Option(help="Model shape that the engine emulates.")]
Gpu = Annotated[
    str,
    typer.Option(
        help="GPU that the engine emulates; several, as in A100-80G,A40: unlike replicas."
    ),
]
Replicas = Annotated[
    int | None, typer.Option(min=1, help="Replicas of the model, each on GPUs of its own.")
]
PrefixCache = Annotated[
    bool | None,
    typer.Option(
        "--prefix-cache/--no-prefix-cache",
        help="Keep what prompts begin with in the KV cache; else as the system does by itself.",
    ),
]
EndWithStdin = Annotated[
    bool, typer.Option("--end-with-stdin", help="End when stdin closes: with its parent.")
]
TP = Annotated[int, typer.Option(min=1, help="GPUs that every layer is spread over.")]
PP = Annotated[int, typer.Option(min=1, help="Stages of a pipeline, each on GPUs of its own.")]
Overhead = Annotated[
    str,
    typer.Option(help="What the engine's own software takes: `servescope engine overheads`."),
]
ContextTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Longest prompt and answer together; else the model's own."),
]


def end_with_stdin() -> None:
    """End this process when stdin closes."""
    import os
    import signal
    import sys
    import threading

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def grouped(**groups: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a verb all options of a group in the place of a parameter.

    A group is a dataclass whose fields are annotated as options, with defaults; the verb is given
    one of it.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        merged: list[inspect.Parameter] = []
        for parameter in inspect.signature(verb, eval_str=True).parameters.values():
            if parameter.name not in groups:
                merged.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            group = groups[parameter.name]
            hints = get_type_hints(group, include_extras=True)
            merged += [
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
                    annotation=hints[field.name],
                )
                for field in fields(group)
            ]  # fmt: skip

        @functools.wraps(verb)
        def asked(**given: Any) -> None:
            made = {
                name: group(**{field.name: given.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            verb(**made, **given)

        asked.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        asked.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return asked

    return decorate


OPTION_OF = {
    "start_s": "start",
    "duration_s": "duration",
    "calls": "num-prompts",
    "rate_rps": "rate",
    "input_tokens": "random-input-len",
    "output_tokens": "random-output-len",
    "range_ratio": "random-range-ratio",
    "prefix_tokens": "random-prefix-len",
    "think_s": "think",
    "timeout_s": "timeout",
    "idle_s": "idle-timeout",
    "scrape_s": "scrape",
    "path": "endpoint",
}
Struct = TypeVar("Struct", bound="msgspec.Struct")


def checked(struct: type[Struct], **fields: object) -> Struct:
    """Make a part of an experiment from options; raises InputError that names the option."""
    import msgspec

    from servescope.traces.errors import InputError

    try:
        return msgspec.convert(fields, struct)
    except msgspec.ValidationError as error:
        wrong, _, field = str(error).partition(" - at `$.")
        field = field.rstrip("`")
        option = OPTION_OF.get(field, field).replace("_", "-")
        wrong = wrong.replace("`", "")
        raise InputError(f"--{option} cannot be that: {wrong}.", "See --help.") from None


def from_file(context: typer.Context, path: Path, name: str | None, *allowed: str) -> Experiment:
    """Read an experiment file given in place of a trace; it says everything but --out and --name.

    Raises InputError for any other option beside it that is not `allowed`: one of the two would be
    ignored.
    """
    import msgspec

    from servescope.loadgen import experiment as experiments

    alone(context, "name", *allowed)
    experiment = experiments.read(path)
    return msgspec.structs.replace(experiment, name=name) if name else experiment


def alone(context: typer.Context, *allowed: str) -> None:
    """Raise InputError for any option beside what says everything already."""
    from servescope.traces.errors import InputError

    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name not in ("trace", "out", "as_json", *allowed):
            raise InputError(
                f"{parameter.opts[0]} stands beside an experiment file, which says it already.",
                "Edit the file, or leave the option out.",
            )


def trimmed(runs: list[Run], trim: str) -> list[Run]:
    """Leave the warm-up out of runs as --trim says: alike in all, as long as the longest needs."""
    from servescope.analysis.steady_state import warmup_of
    from servescope.traces.errors import InputError

    if trim == "none":
        return runs
    try:
        warmup_s = warmup_of(runs) if trim == "auto" else float(trim)
    except ValueError:
        warmup_s = -1.0
    if not 0 <= warmup_s < float("inf"):
        raise InputError(f"--trim cannot be {trim}.", "Give none, auto, or a number of seconds.")
    return [run.without_warmup(warmup_s) for run in runs]


def slo(text: str | None) -> SLO | None:
    """Read --slo before any work is done."""
    from servescope.analysis import SLO

    return SLO.parse(text) if text else None


def label(system: str) -> str:
    """Return what a run is called after its system: the name, or that of a file's class."""
    from servescope.traces.plugin_file import PluginFile

    file = PluginFile.of(system)
    return file.label if file else system


def params(given: list[str] | None) -> dict[str, str]:
    """Read `key=value` parameters."""
    return pairs(given, "parameter", "chunk_tokens=2048")


def gpus(text: str) -> str | list[str]:
    """Read --gpu: one name, or those of unlike replicas."""
    names = [name.strip() for name in text.split(",")]
    return names if len(names) > 1 else text


def pairs(given: list[str] | None, what: str, like: str = "NAME=VALUE") -> dict[str, str]:
    """Read `key=value` pairs; raises InputError for anything else."""
    from servescope.traces.errors import InputError

    found = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"'{pair}' is no {what}.", f"Write it like {like}.")
        found[key] = value
    return found


def run_directory(out: Path | None, name: str) -> Path:
    """Return --out, or a new folder below runs/ named by the moment."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return out or Path("runs") / f"{stamp}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:60]}"
