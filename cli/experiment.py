"""`servescope experiment`: many runs on several systems, interleaved, compared in the end."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servescope.cli import console, studies
from servescope.cli.options import Jobs, Json, Quiet, Trim, run_directory
from servescope.cli.options import slo as read_slo

if TYPE_CHECKING:
    import polars as pl

    from servescope.analysis.slo import SLO
    from servescope.loadgen.schedule import Cell
    from servescope.loadgen.study import Study
    from servescope.traces import Run

app = typer.Typer(
    no_args_is_help=True,
    help="Run workloads at several rates on several systems, and say which served them better.",
)
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="TOML file that names systems and workloads.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the experiment; the same one goes on with it."),
]


@app.command()
def run(
    file: File,
    out: Folder = None,
    trim: Trim = "none",
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every workload at every rate on every system, by turns, and compare them.

    Systems are launched, warmed up and idle before each run. One that dies is noted, and the rest
    goes on. Ctrl-C stops in good order; the same --out goes on with what is not done.

    Example:  servescope experiment run examples/two-schedulers.toml --out runs/two
    """
    from servescope.loadgen import study as studying
    from servescope.loadgen.schedule import doubts_of
    from servescope.traces.atomic import write_json

    study = studying.read(file)
    folder = run_directory(out, study.name)
    again = shlex.join(["servescope", "experiment", "run", str(file), "--out", str(folder)])
    for doubt in doubts_of(study):
        console.doubt(doubt)
    book = studies.make(study, folder, again, quiet=quiet, jobs=jobs)
    runs = studies.runs_of(study, book, folder, trim)
    slo = read_slo(study.slo)
    rows = studies.rows_of(runs, slo)
    failed = studies.failures(book)
    compared = [_compared(*each, folder, slo, failed) for each in _conditions(study, runs)]
    summary = {
        "study": study.name,
        "digest": book.digest,
        "slo": study.slo,
        "runs": rows.to_dicts(),
        "comparisons": compared,
        "failed": failed,
    }
    write_json(folder / "study-summary.json", summary)
    page = _overview(study.name, rows, compared, folder, failed)
    if as_json:
        console.json(summary)
    else:
        names = ["system", "workload", *(n for n in ("rate_rps", "speed_up") if rows[n].count())]
        studies.show_rows(rows, [*names, "repeat"] if study.repeats > 1 else names)
        for each in compared:
            console.verdict(f"{each['condition']}: {each['verdict'] or each['why']}")
            for doubt in each["doubts"]:
                console.doubt(doubt)
            if each["report"]:
                console.out.print(f"Report: {folder / str(each['report'])}", soft_wrap=True)
        console.out.print(f"Overview: {page}", soft_wrap=True)
    if not quiet:
        console.say(f"Summary: {folder / 'study-summary.json'}")
    studies.refuse_failed(book, (run for _, run in runs), again)


def _overview(
    title: str,
    rows: pl.DataFrame,
    compared: list[dict[str, Any]],
    folder: Path,
    failed: list[dict[str, str]],
) -> Path:
    from servescope.loadgen.study import OVERVIEW
    from servescope.reports.overview import Outcome, write_overview

    outcomes = [
        Outcome(each["condition"], each["verdict"], each["why"], each["report"], each["doubts"])
        for each in compared
    ]
    return write_overview(title, rows, outcomes, folder / OVERVIEW, failed)


@app.command()
def plan(file: File, as_json: Json = False) -> None:
    """Print which runs an experiment makes, in their order, without making any.

    Example:  servescope experiment plan examples/two-schedulers.toml
    """
    from servescope.loadgen import study as studying
    from servescope.loadgen.schedule import doubts_of, schedule
    from servescope.loadgen.study_runner import check
    from servescope.loadgen.workload import workload_of

    study = studying.read(file)
    check(study)
    cells = schedule(study)
    sizes: dict[str, tuple[int, float]] = {}
    for cell in cells:
        if cell.condition not in sizes:
            wanted = cell.load.of(study.workload(cell.workload))
            planned = workload_of(wanted, cell.seed, closed=True).plan()
            due_s = planned["due_s"].drop_nulls().to_list()
            sizes[cell.condition] = len(planned), max(due_s, default=0.0)
    if as_json:
        runs = [
            {
                "run": cell.path,
                "cell": cell,
                "calls": sizes[cell.condition][0],
                "starts_over_s": sizes[cell.condition][1],
                "virtual": study.system(cell.system).virtual,
            }
            for cell in cells
        ]
        console.json({"study": study.name, "runs": runs, "doubts": doubts_of(study)})
        return
    real = [cell for cell in cells if not study.system(cell.system).virtual]
    console.table(
        ("", "run", "load", "repeat", "seed", "calls", "starts over s", "clock"),
        (
            (
                number, cell.path, studies.load(cell) or None, cell.repeat, cell.seed,
                sizes[cell.condition][0], f"{sizes[cell.condition][1]:,.1f}",
                "real" if cell in real else "virtual",
            )
            for number, cell in enumerate(cells, 1)
        ),
    )  # fmt: skip
    for doubt in doubts_of(study):
        console.doubt(doubt)
    sending_s = sum(sizes[cell.condition][1] for cell in real)
    console.say(f"{len(cells)} runs; those in real time send for {sending_s:,.0f} s together.")


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an experiment.")],
    as_json: Json = False,
) -> None:
    """Say which runs of an experiment are done, which failed and why, and how to go on.

    Example:  servescope experiment status runs/two
    """
    from servescope.loadgen import ledger

    book = ledger.read(folder)
    if as_json:
        console.json(book)
        return
    rows = [(entry.path, entry.state, entry.why or "") for entry in book.runs]
    console.table(("run", "state", "why"), rows, title=book.name, prose=True)
    done = len(book.in_state("done"))
    console.say(f"{done} of {len(book.runs)} runs are done.")
    if done < len(book.runs):
        file = folder / "study.toml"
        again = ["servescope", "experiment", "run", str(file), "--out", str(folder)]
        console.say(f"Go on with:  {shlex.join(again)}")


def _conditions(
    study: Study, runs: list[tuple[Cell, Run]]
) -> Iterator[tuple[Cell, dict[str, list[Run]]]]:
    """Yield each workload at each load that has a run, with the runs of each system.

    They are of the same repeats for all systems: of those that all have, or else of the repeat that
    most have. Of repeats that are all alike it is the first one.
    """
    from servescope.loadgen.schedule import repeats_alike

    by_condition: dict[str, list[tuple[Cell, Run]]] = {}
    for cell, run in runs:
        by_condition.setdefault(cell.condition, []).append((cell, run))
    for found in by_condition.values():
        cell = found[0][0]
        systems = Counter(each.system for each, _ in found)
        repeats = Counter(each.repeat for each, _ in found)
        shared = [repeat for repeat, count in repeats.items() if count == len(systems)]
        if not shared:
            shared = [max(repeats, key=lambda repeat: (repeats[repeat], -repeat))]
        if repeats_alike(study, cell.workload):
            shared = shared[:1]
        chosen: dict[str, list[Run]] = {}
        for each, run in found:
            if each.repeat in shared:
                chosen.setdefault(each.system, []).append(run)
        yield cell, chosen


def _compared(
    cell: Cell,
    systems: dict[str, list[Run]],
    folder: Path,
    slo: SLO | None,
    failed: list[dict[str, str]],
) -> dict[str, Any]:
    """Write the report of one workload at one load; returns its verdict, or why there is none."""
    from servescope.loadgen.study import REPORTS
    from servescope.reports import story_of, write
    from servescope.reports.blocks import doubts_of
    from servescope.traces.errors import ServescopeError

    said: dict[str, Any] = {
        "condition": cell.condition,
        "workload": cell.workload,
        "load": studies.load(cell) or None,
        "systems": list(systems),
        "repeats": len(next(iter(systems.values()))),
        "verdict": None,
        "why": None,
        "doubts": (),
        "report": f"{REPORTS}/{cell.condition}.html",
    }
    here = [each for each in failed if each["condition"] == cell.condition]
    whys = [f"{each['run']}: {each['why']}" for each in here]
    try:
        story = story_of(list(systems.values()), slo, missing=whys)
        made = write(story, folder / said["report"], overwrite=True)
    except ServescopeError as error:
        return said | {"report": None, "why": str(error)}
    said["doubts"] = tuple(doubt for doubt in doubts_of(made) if doubt not in whys)
    if story.comparison is not None:
        return said | {"verdict": story.comparison.verdict}
    why = story.refused or f"Only {next(iter(systems))} has a run that is done."
    return said | {"why": str(why)}
