"""`servescope capacity`: the highest load at which a system still meets its SLO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from servescope.cli import console, studies
from servescope.cli.conclude import INTERRUPTED
from servescope.cli.options import Json, Quiet, Seed, grouped, run_directory
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

if TYPE_CHECKING:
    from servescope.analysis.capacity import Probe
    from servescope.loadgen.capacity_search import Found, Wanted

SEARCH = "Search"


@grouped(workload=Asked, engine=Emulation)
def capacity(
    context: typer.Context,
    workload: Asked,
    *,
    slo: Annotated[
        str,
        typer.Option(
            "--slo",
            "--goodput",
            help="What must be met, e.g. 'ttft<2s,stall<100ms' or 'p99(tbt)<100ms'.",
            rich_help_panel=SEARCH,
        ),
    ],
    attainment: Annotated[
        float,
        typer.Option(
            help="Share of calls that must meet what the SLO asks of each.", rich_help_panel=SEARCH
        ),
    ] = 0.9,
    over: Annotated[
        Literal["rate", "speed-up"],
        typer.Option(
            help="rate: of programs, with pauses as recorded; speed-up: of everything.",
            rich_help_panel=SEARCH,
        ),
    ] = "rate",
    budget: Annotated[
        float,
        typer.Option(
            help="Seconds of all probes together, of the server's time.",
            min=1,
            rich_help_panel=SEARCH,
        ),
    ] = 3600.0,
    begin: Annotated[
        float | None,
        typer.Option(
            help="The load to try first; as recorded, or one program a second, by default.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    most: Annotated[
        float | None, typer.Option(help="Never go beyond this load.", rich_help_panel=SEARCH)
    ] = None,
    pause: Annotated[
        float, typer.Option(min=0, help="Seconds between two probes.", rich_help_panel=SEARCH)
    ] = 0.0,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a sweep or experiment, whose runs of this system and workload count.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    base_url: BaseUrls = None,
    backend: Backend = "openai",
    header: Headers = None,
    system: Emulated = None,
    model: AnyModel = None,
    engine: Emulation,
    name: SystemName = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the search; the same one goes on with it."),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find the highest rate or trace speed-up that meets an SLO, with a lower bound (95 %).

    Probes are runs at loads of their own; all of them count, and the last one, a quarter of the
    budget, confirms the answer at its lower bound. Ctrl-C stops; the same --out goes on, also with
    a larger --budget.

    Example:  servescope capacity azure:sample --system sarathi --slo 'p99(ttft)<2s'

    Example:  servescope capacity mooncake:sample --over speed-up --slo 'ttft<5s,stall<100ms'
    --base-url http://127.0.0.1:8000
    """
    from servescope.analysis.capacity import bracket, in_words, torn
    from servescope.loadgen.capacity_search import Wanted, search
    from servescope.reports.capacity import write_page
    from servescope.traces.atomic import write_json
    from servescope.traces.errors import GateFailed, InputError

    read_slo(slo)
    if not 0 < attainment < 1:
        raise InputError(
            f"--attainment cannot be {attainment:g}: no run can show that nothing ever misses.",
            "Give a share between 0 and 1, such as 0.99.",
        )
    for option, value in (("begin", begin), ("most", most)):
        if value is not None and not value > 0:
            raise InputError(f"--{option} cannot be {value:g}.", "Give a load above 0.")
    wanted = Wanted(
        system=system_of(base_url, backend, header, system, engine, model, name),
        workload=named(workload),
        slo=slo,
        over=over,
        attainment=attainment,
        seed=seed,
        pause_s=pause,
    )
    folder = run_directory(out, f"capacity of {wanted.system.name}")
    with studies.Shown(quiet) as shown:
        try:
            found = search(
                wanted,
                folder,
                begin=begin,
                budget_s=budget,
                most=float("inf") if most is None else most,
                reuse=reuse or (),
                on_step=shown.labelled,
                on_progress=shown.progress,
                on_probe=lambda probe: None if quiet else console.say(_of_probe(probe)),
            )
        except KeyboardInterrupt:
            shown.close()
            console.say(
                f"Interrupted; the probes that are done are kept. Go on with:\n"
                f"the same command with --out {folder}"
            )
            raise typer.Exit(INTERRUPTED) from None
    told = _summary(wanted, found)
    unit = "times as recorded" if over == "speed-up" else "programs/s"
    text = in_words(
        wanted.system.name, found.probes, found.capacity,
        unit=unit, per_s=found.natural_rps if over == "speed-up" else None,
    )  # fmt: skip
    told["verdict"] = text
    write_json(folder / "summary.json", told)
    page = write_page(
        f"Capacity of {wanted.system.name}", text, slo, found.probes, found.capacity,
        [str(made.run.path) for made in found.made], found.doubts, unit,
        folder / "capacity.html",
    )  # fmt: skip
    if as_json:
        console.json(told)
    else:
        console.table(["load", "seconds", "for", "burn rate", "validity"], _rows(found))
    for doubt in found.doubts:
        console.doubt(doubt)
    if not quiet:
        console.say(f"Probes: {folder}\nPage: {page}")
    if not as_json:
        console.verdict(text)
    if found.capacity is None and bracket(found.probes)[0] is None:
        raise GateFailed(
            "Capacity is below every load that was tried.",
            "Give a lower --begin, a looser SLO, or more --budget.",
        )
    if torn(found.probes):
        raise GateFailed(
            "Probes contradict each other, so the answer is not sure.",
            f"Give a --budget well above {budget:g} and --out {folder}: the search goes on from"
            " there, with longer probes.",
        )


def _of_probe(probe: Probe) -> str:
    return f"load {probe.load:.4g}: burned {probe.rate:.3g} times what the SLO allows"


def _rows(found: Found) -> list[list[object]]:
    return [
        [
            f"{made.probe.load:.4g}",
            f"{made.probe.seconds:.0f}",
            made.probe.stage,
            f"{made.probe.rate:.3g}",
            made.run.info.validity,
        ]
        for made in found.made
    ]


def _summary(wanted: Wanted, found: Found) -> dict[str, Any]:
    """Return the result of a search as JSON has it.

    Probes that contradict each other bound nothing: then the bounds of capacity are null.
    """
    import msgspec

    from servescope.analysis.capacity import confirmed, rows_of, torn

    answer = msgspec.to_builtins(found.capacity)
    if answer and torn(found.probes):
        answer |= {"low": None, "high": None}

    return {
        "system": wanted.system.name,
        "workload": wanted.workload.name,
        "slo": wanted.slo,
        "attainment": wanted.attainment,
        "over": wanted.over,
        "natural_rps": found.natural_rps,
        "capacity": answer,
        "confirmed": confirmed(found.probes),
        "probes": rows_of(found.probes),
        "doubts": found.doubts,
    }
