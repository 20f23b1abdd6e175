"""`servescope sweep`: latency, throughput and SLO attainment over the rate, of one system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console, studies
from servescope.cli.options import (
    Jobs,
    Json,
    Quiet,
    Seed,
    Slo,
    Trim,
    Warmup,
    checked,
    grouped,
    run_directory,
)
from servescope.cli.options import slo as read_slo
from servescope.cli.system_options import (
    AnyModel,
    Backend,
    BaseUrls,
    Emulated,
    Emulation,
    Headers,
    SystemName,
    named,
    system_of,
)
from servescope.cli.workload_options import Asked

LOADS = "Loads"


@grouped(workload=Asked, engine=Emulation)
def sweep(
    context: typer.Context,
    workload: Asked,
    *,
    rates: Annotated[
        str | None,
        typer.Option(
            "--rates",
            help="Rates in programs a second, with commas: the recorded starts are stretched to"
            " them, or starts are drawn at them with --arrivals.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    speed_ups: Annotated[
        str | None,
        typer.Option(
            "--speed-ups",
            help="How many times as fast as recorded, with commas; pauses are sped up, too.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Runs at each load.", rich_help_panel=LOADS)
    ] = 1,
    pause: Annotated[
        float,
        typer.Option(min=0, help="Seconds between two runs of an endpoint.", rich_help_panel=LOADS),
    ] = 0.0,
    base_url: BaseUrls = None,
    backend: Backend = "openai",
    header: Headers = None,
    system: Emulated = None,
    model: AnyModel = None,
    engine: Emulation,
    name: SystemName = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the sweep; the same one goes on with it."),
    ] = None,
    seed: Seed = 0,
    slo: Slo = None,
    warmup: Warmup = 0.0,
    trim: Trim = "none",
    jobs: Jobs = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run one workload at several rates or speed-ups and show what becomes of latency and SLO.

    What needs other keys, or several systems, is an experiment: `servescope experiment run`.

    Example:  servescope sweep azure:sample --rates 1,2,4 --system sarathi --slo 'ttft<2s'

    Example:  servescope sweep mooncake:sample --speed-ups 0.5,1,2 --base-url http://127.0.0.1:8000
    """
    from servescope.loadgen.study import OVERVIEW, Study
    from servescope.reports.overview import write_overview
    from servescope.traces.atomic import write_json
    from servescope.traces.errors import InputError

    if rates is None and speed_ups is None:
        raise InputError("It is not said at which loads.", "Add --rates 1,2,4 or --speed-ups 1,2.")
    read_slo(slo)
    study = checked(
        Study,
        name=f"sweep of {name or system or backend}",
        systems=[system_of(base_url, backend, header, system, engine, model, name)],
        workloads=[named(workload)],
        rates=_numbers("rates", rates),
        speed_ups=_numbers("speed-ups", speed_ups),
        repeats=repeats,
        pause_s=pause,
        slo=slo,
        seed=seed,
        warmup_s=warmup,
    )
    folder = run_directory(out, study.name)
    again = f"the same command with --out {folder}"
    book = studies.make(study, folder, again, quiet=quiet, jobs=jobs)
    runs = studies.runs_of(study, book, folder, trim)
    rows = studies.rows_of(runs, read_slo(slo))
    failed = studies.failures(book)
    told = {
        "system": study.systems[0].name,
        "workload": study.workloads[0].name,
        "slo": slo,
        "rows": rows.to_dicts(),
        "failed": failed,
    }
    write_json(folder / "sweep.json", told)
    rows.write_csv(folder / "sweep.csv")
    page = write_overview(study.name, rows, (), folder / OVERVIEW, failed)
    if as_json:
        console.json(told)
    else:
        asked = "rate_rps" if rates else "speed_up"
        studies.show_rows(rows, [asked, "repeat"] if repeats > 1 else [asked])
    if not quiet:
        console.say(f"Rows: {folder / 'sweep.json'}, {folder / 'sweep.csv'}\nCurves: {page}")
    studies.refuse_failed(book, (run for _, run in runs), again)


def _numbers(option: str, text: str | None) -> list[float]:
    from servescope.traces.errors import InputError

    try:
        numbers = [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        numbers = [0.0]
    if not all(0 < number < 1e6 for number in numbers):
        raise InputError(
            f"--{option} cannot be {text}.", "Write numbers above 0 with commas between: 1,2,4."
        )
    return numbers
