"""`servescope workload`: the workloads of the literature, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servescope.cli import console
from servescope.cli.options import Json, checked, params

if TYPE_CHECKING:
    from servescope.loadgen.papers.generator import Generator
    from servescope.loadgen.workload import Workload


def workload(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A workload; without it, list them.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="A parameter of it, e.g. turns_scale=3."),
    ] = None,
    programs: Annotated[
        int | None, typer.Option(min=1, help="Make so many programs; 1000 by default.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Make the programs that start in so many seconds.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Programs a second, by the workload's own process.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same programs.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write them as a trace: .parquet, .csv or .jsonl."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: Json = False,
) -> None:
    """List the workloads that papers were evaluated on, or make one and hold it against its paper.

    Any verb that takes a TRACE to send takes workload:NAME in its place.

    Example:  servescope workload

    Example:  servescope workload continuum-swebench -p turns_scale=3 -o agents.parquet
    """
    from servescope.loadgen.experiment import WorkloadSpec
    from servescope.loadgen.generated import generator_of
    from servescope.loadgen.papers import installed_workloads
    from servescope.loadgen.workload import workload_of
    from servescope.traces.errors import InputError

    if name is None:
        if param or programs or duration or rate or out:
            raise InputError("It is not said which workload.", "Name one: `servescope workload`.")
        _list(installed_workloads(), as_json)
        return
    most = programs or (None if duration else PROGRAMS)
    spec = checked(
        WorkloadSpec,
        generator=name,
        params=params(param) or None,
        programs=(0, most) if most else None,
        duration_s=duration,
        rate_rps=rate,
    )
    with console.working(f"making {name}"):
        made, generator = workload_of(spec, seed), generator_of(spec)
    if out is not None:
        from servescope.loadgen.generated import trace_of

        with console.working(f"writing {out}"):
            trace_of(made.programs, made.provenance).write(out, overwrite=overwrite)
    _tell(name, generator, made, as_json)
    if out is not None:
        if any(call.tool for call in made.calls()):
            console.doubt(
                "The table has no column for the tool that an answer calls: send workload:"
                f"{name} itself to a system that goes by tools."
            )
        console.say(f"Wrote {out}.")


PROGRAMS = 1000


def _list(known: dict[str, Generator], as_json: bool) -> None:
    from servescope.loadgen.papers import parameters_of

    if as_json:
        console.json({name: _facts(each) for name, each in known.items()})
        return
    rows = (
        (name, each.about().says, each.about().source, ", ".join(parameters_of(each)))
        for name, each in known.items()
    )
    console.table(["workload", "what", "source", "parameters"], rows, prose=True)


def _facts(generator: Generator) -> dict[str, object]:
    """Return what is known of a workload, for programs to read."""
    import msgspec

    from servescope.loadgen.papers import parameters_of

    about, arrivals = generator.about(), generator.arrivals()
    return {
        "says": about.says,
        "source": about.source,
        "params": {key: getattr(generator, key) for key in parameters_of(generator)},
        "arrivals": msgspec.to_builtins(arrivals),
        "slos": dict(about.slos),
        "assumed": dict(about.assumed),
    }


def _tell(name: str, generator: Generator, made: Workload, as_json: bool) -> None:
    """Print a workload's figures beside those that are published."""
    from servescope.loadgen.papers.statistics import TOLD, beside, figure

    about = generator.about()
    calls = sum(len(program.calls) for program in made.programs)
    span_s = made.programs[-1].start_s
    published = [
        {"quantity": quantity, "statistic": statistic, "published": paper, "here": here}
        for quantity, statistic, paper, here in beside(made.programs, about.published)
    ]
    said = {(str(row["quantity"]), str(row["statistic"])) for row in published}
    more = [
        {"quantity": quantity, "statistic": statistic, "published": None,
         "here": figure(made.programs, quantity, statistic)}
        for quantity, statistic in TOLD
        if (quantity, statistic) not in said
    ]  # fmt: skip
    if as_json:
        sizes = {"programs": len(made.programs), "calls": calls, "starts_over_s": span_s}
        console.json({"name": name, **_facts(generator), **sizes, "figures": published + more})
        return
    console.out.print(f"{about.says} [dim]({about.source})[/]")
    console.out.print(
        f"{len(made.programs):,} programs of {calls:,} calls, starting over {span_s:,.0f} s.\n"
    )
    console.table(
        ["quantity", "statistic", "published", "here"],
        (
            (row["quantity"], row["statistic"], _number(row["published"]), _number(row["here"]))
            for row in published + more
        ),
    )
    for kind, facts in (("objective", about.slos), ("assumed", about.assumed)):
        if facts:
            console.out.print()
            console.table([kind, ""], facts.items(), prose=True)


def _number(value: object) -> str | None:
    return f"{value:,.4g}" if isinstance(value, float | int) else None
