"""`servescope results`: what other benchmark tools measured as runs, and runs as their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from servescope.cli import console
from servescope.cli.options import Json, Out, Slo, run_directory
from servescope.cli.options import slo as read_slo

if TYPE_CHECKING:
    from servescope.traces import Run
    from servescope.traces.results import Result

app = typer.Typer(
    no_args_is_help=True,
    help="Import what other benchmark tools measured, and write runs as their files.",
)

_UNTOLD = ("profile_export", "benchmarks")  # names that a tool gives to every file


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(help="Result of vllm bench serve, AIPerf (profile_export.jsonl), GuideLLM."),
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", help="vllm, aiperf or guidellm; by the file's content if absent."),
    ] = None,
    out: Out = None,
    name: Annotated[str | None, typer.Option(help="Name of the run in reports.")] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a result file, for report and compare; of several benchmarks one each.

    Example:  servescope results import openai-8qps.json --name sglang --out runs/sglang

    Example:  servescope results import artifacts/profile_export.jsonl
    """
    from servescope.traces import results
    from servescope.traces.run import refuse_taken

    with console.working(f"reading {file}"):
        found = results.read(file, format)
    called = name or _name_of(file)
    place = run_directory(out, called)
    refuse_taken(place)
    if len(found) == 1:
        runs = [found[0].write(place, called)]
    else:
        runs = [
            result.write(place / folder, f"{called}-{folder}")
            for result, folder in zip(found, _folders(found), strict=True)
        ]
    if as_json:
        console.json([_told(result, run) for result, run in zip(found, runs, strict=True)])
    else:
        _draw(found, runs)


def _draw(found: list[Result], runs: list[Run]) -> None:
    told = [_told(result, run) for result, run in zip(found, runs, strict=True)]
    columns = ("name", "tool", "version", "calls", "failed", "programs", "known_by")
    titles = ("run", "tool", "version", "calls", "failed", "programs", "requests known by")
    console.table(titles, ([each[column] for column in columns] for each in told))
    for doubt in dict.fromkeys(doubt for run in runs for doubt in run.info.doubts):
        console.doubt(doubt)
    for run in runs:
        console.say(f"Run: {run.path}")
    first, *others = runs
    alike = (run.path for run in others if run.info.plan_sha256 == first.info.plan_sha256)
    console.say(f"Next: servescope report {first.path}")
    console.say(f"      servescope compare {first.path} {next(alike, 'ANOTHER')}")


def _told(result: Result, run: Run) -> dict[str, object]:
    """Return what there is to say of a run that was made."""
    return {
        "run": str(run.path),
        "name": run.info.name,
        "tool": result.title,
        "version": result.version,
        "part": result.part,
        "calls": result.calls.height,
        "failed": int((result.calls["status"] != "ok").sum()),
        "programs": run.info.workload["programs"],
        "left_out": run.info.workload["left_out"],
        "known_by": result.known_by,
        "validity": run.info.validity,
        "doubts": run.info.doubts,
    }


def _name_of(file: Path) -> str:
    """Return the name of a file without its endings, or of its folder where the tool named it."""
    stem = file.name.partition(".")[0] if file.name.endswith((".gz", ".zst")) else file.stem
    return file.absolute().parent.name if stem in _UNTOLD else stem


def _folders(found: list[Result]) -> list[str]:
    """Name a folder after each benchmark, with a number where a name is none or another's too."""
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", each.part or "").strip("-.") for each in found]
    return [
        name if name and names.count(name) == 1 else f"{name}-{number}".lstrip("-")
        for number, name in enumerate(names, start=1)
    ]


@app.command("export")
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    to: Annotated[
        Literal["vllm"],
        typer.Option("--to", help="Whose file: what `vllm bench serve --save-detailed` writes."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    slo: Slo = None,
    percentile_metrics: Annotated[
        str,
        typer.Option(
            "--percentile-metrics",
            help="Whose statistics to tell: ttft, tpot, itl, e2el, client_queue_time,"
            " e2el_including_client_queue.",
        ),
    ] = "ttft,tpot,itl",
    metric_percentiles: Annotated[
        str, typer.Option("--metric-percentiles", help="Which percentiles, e.g. 50,90,99.")
    ] = "99",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a run as the result file of another tool, computed by that tool's definitions.

    Example:  servescope results export runs/a --to vllm -o result.json
    """
    from servescope.reports import vllm_result
    from servescope.traces import Run

    asked = vllm_result.Asked.parse(percentile_metrics, metric_percentiles)
    opened = Run.open(run)
    bounds = read_slo(slo or opened.info.slo)
    for doubt in vllm_result.write(opened, out, slo=bounds, asked=asked, overwrite=overwrite):
        console.doubt(doubt)
    console.say(f"Result: {out}")
