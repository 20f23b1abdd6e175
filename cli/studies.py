"""What the verbs of studies share: the runs as they are made, as rows, and as reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from servescope.cli import console
from servescope.cli.conclude import INTERRUPTED
from servescope.cli.options import trimmed

if TYPE_CHECKING:
    import polars as pl

    from servescope.analysis.slo import SLO
    from servescope.loadgen.conductor import Tally
    from servescope.loadgen.ledger import Book
    from servescope.loadgen.schedule import Cell
    from servescope.loadgen.study import Study
    from servescope.loadgen.study_runner import Step
    from servescope.traces import Run

# heading, column, how it is written
COLUMNS = (
    ("offered /s", "offered_rps", ".3g"),
    ("served /s", "served_rps", ".3g"),
    ("TTFT p50 ms", "ttft_p50_s", "ms"),
    ("p99", "ttft_p99_s", "ms"),
    ("TPOT p50 ms", "tpot_p50_s", "ms"),
    ("p99", "tpot_p99_s", "ms"),
    ("within SLO", "attainment", ".1%"),
    ("goodput /s", "goodput_rps", ".3g"),
    ("statistics within", "statistics_met", ""),
    ("failed", "failed", ""),
    ("validity", "validity", ""),
)


def make(
    study: Study, out: Path, again: str, *, quiet: bool = False, jobs: int | None = None
) -> Book:
    """Make the runs of a study and show how it goes; Ctrl-C ends the program with its exit code.

    So many simulations at a time as there are `jobs`, None: as there are cores.
    """
    from servescope.loadgen.simulators import cores
    from servescope.loadgen.study_runner import run_study

    with Shown(quiet) as shown:
        try:
            return run_study(study, out, shown.step, shown.progress, jobs=jobs or cores())
        except KeyboardInterrupt:
            shown.close()
            console.say(f"Interrupted; the runs that are done are kept. Go on with:\n{again}")
            raise typer.Exit(INTERRUPTED) from None


class Shown:
    """Shows on stderr which run is being made, and how its replay goes."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._drawn = ExitStack()
        self._draw: Callable[[Tally], None] = _nothing

    def step(self, step: Step) -> None:
        """Show what the study does now."""
        label = f"run {step.number} of {step.count}: {words(step.cell)}"
        self.labelled(label, step)
        if step.doing == "done" and not self._quiet:
            console.say(f"{label}: done")

    def labelled(self, label: str, step: Step) -> None:
        """Show what is done now under a name; who calls says what came of it."""
        self.close()
        if step.doing == "failed":
            console.doubt(f"{label} failed. {step.why}")
        elif self._quiet or step.doing == "done":
            return
        elif step.doing == "measuring":
            self._draw = self._drawn.enter_context(console.progress(label))
        else:
            why = f" {step.why}" if step.why else ""
            self._drawn.enter_context(console.working(f"{label}: {step.doing}{why}"))

    def progress(self, tally: Tally) -> None:
        """Show how the replay of a run goes."""
        self._draw(tally)

    def close(self) -> None:
        """Show nothing more of the step before."""
        self._draw = _nothing
        self._drawn.close()

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _nothing(tally: Tally) -> None:
    """Show nothing."""


def words(cell: Cell) -> str:
    """Name a run for a person."""
    repeat = f", repeat {cell.repeat}" if cell.repeat > 1 else ""
    return f"{cell.system}, {cell.workload}{f' at {load(cell)}' if load(cell) else ''}{repeat}"


def load(cell: Cell) -> str:
    """Say how fast a workload is sent; empty where it is sent as it is."""
    if cell.load.rate_rps is not None:
        return f"{cell.load.rate_rps:g} /s"
    return "" if cell.load.speed_up is None else f"x {cell.load.speed_up:g}"


def runs_of(study: Study, book: Book, out: Path, trim: str = "none") -> list[tuple[Cell, Run]]:
    """Return the runs that are done: by workload, load, repeat and system, as the study has them.

    That order is not the one in which they were made. The warm-up is left out as --trim says, alike
    in all runs of a workload at a load.
    """
    from servescope.traces import Run

    systems = [system.name for system in study.systems]
    workloads = [workload.name for workload in study.workloads]

    def place(cell: Cell) -> tuple[int, ...]:
        at = workloads.index(cell.workload), study.loads.index(cell.load)
        return *at, cell.repeat, systems.index(cell.system)

    done = sorted((entry.cell for entry in book.in_state("done")), key=place)
    runs: list[tuple[Cell, Run]] = []
    for _, cells in groupby(done, key=lambda cell: cell.condition):
        alike = list(cells)
        runs += zip(alike, trimmed([Run.open(out / c.path) for c in alike], trim), strict=True)
    return runs


def rows_of(runs: Sequence[tuple[Cell, Run]], slo: SLO | None) -> pl.DataFrame:
    """Return one row a run: which one it is, and what `analysis.sweep` says of it."""
    import polars as pl

    from servescope.analysis import sweep

    asked = pl.DataFrame(
        [
            {
                "run": cell.path,
                "system": cell.system,
                "workload": cell.workload,
                "rate_rps": cell.load.rate_rps,
                "speed_up": cell.load.speed_up,
                "repeat": cell.repeat,
            }
            for cell, _ in runs
        ],
        schema={
            "run": pl.String,
            "system": pl.String,
            "workload": pl.String,
            "rate_rps": pl.Float64,
            "speed_up": pl.Float64,
            "repeat": pl.Int64,
        },
    )
    measured = sweep.rows_of([run for _, run in runs], slo)
    return pl.concat([asked, measured.drop("run", "system")], how="horizontal")


def show_rows(rows: pl.DataFrame, names: Sequence[str]) -> None:
    """Print the rows of runs, with the columns `names` in front."""
    shown = [each for each in COLUMNS if rows[each[1]].null_count() < rows.height]
    columns = [*((name, "g") for name in names), *(each[1:] for each in shown)]
    written = (
        [_written(row[column], form) for column, form in columns]
        for row in rows.iter_rows(named=True)
    )
    headings = [name.replace("_rps", " /s").replace("_", "-") for name in names]
    console.table([*headings, *(heading for heading, *_ in shown)], written)


def _written(value: Any, form: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if form != "ms":
        return format(value, form)
    value *= 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def failures(book: Book) -> list[dict[str, str]]:
    """Return the runs that failed, and why."""
    return [
        {"run": entry.path, "condition": entry.cell.condition, "why": entry.why or ""}
        for entry in book.in_state("failed")
    ]


def refuse_failed(book: Book, runs: Iterable[Run], again: str) -> None:
    """Raise EndpointError if a run of a study failed, or GateFailed if one is invalid."""
    from servescope.cli.conclude import refuse_invalid
    from servescope.traces.errors import EndpointError

    failed = book.in_state("failed")
    if failed:
        raise EndpointError(
            f"{len(failed)} of {len(book.runs)} runs failed, the first of them"
            f" ({failed[0].path}) because: {failed[0].why}",
            f"What was measured is kept; try the others again with: {again}",
        )
    refuse_invalid(list(runs))
