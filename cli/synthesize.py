"""`servescope synthesize`: draw a trace of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from servescope.cli import console
from servescope.cli.options import Json, Quiet

if TYPE_CHECKING:
    from servescope.analysis.models.model import Model

_RATE, _EDITS = "Another rate", "What if"


def synthesize(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A model file, a preset, workload:NAME, or a folder of a ServeGen pool; without"
            " it, list the presets.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The trace to write: .parquet, .csv or .jsonl."),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(help="Seconds that it lasts; by default as long as the trace was."),
    ] = None,
    programs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Instead of a duration: so many programs, each on a clock of its own.",
        ),
    ] = None,
    start: Annotated[
        float, typer.Option(min=0.0, help="Second to begin at: a part of a longer draw, alone.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same calls.")] = 0,
    rate: Annotated[
        float | None,
        typer.Option(help="Calls a second, on average.", rich_help_panel=_RATE),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Times the rate of the model.", rich_help_panel=_RATE),
    ] = None,
    by: Annotated[
        Literal["users", "busier", "faster"],
        typer.Option(
            help="users: more independent clients, whose bursts even out; busier: the same clients"
            " ask more often; faster: the same calls on a faster clock.",
            rich_help_panel=_RATE,
        ),
    ] = "users",
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--edit",
            "-e",
            metavar="NAME[=VALUE]",
            help="Change the model, in the order given: outputs=2, inputs=0.5, flat, lengths=MODEL,"
            " add=MODEL, without=CLASS, only=CLASS.",
            rich_help_panel=_EDITS,
        ),
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a ServeGen pool: the heaviest so many.", rich_help_panel=_EDITS
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Processes that draw, each a part; one where prompts share prefixes.",
        ),
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draw a trace of a model, of any length and rate, in memory that does not grow.

    The same seed gives the same calls, whatever part of them is drawn and by how many processes.

    Example:  servescope synthesize azure-code -o calls.parquet

    Example:  servescope synthesize model.json --duration 86400 --rate 20 --by users -o day.parquet

    Example:  servescope synthesize model.json -e outputs=2 -e flat -o what-if.parquet
    """
    from servescope.analysis.models.edits import edited
    from servescope.analysis.models.scaling import told
    from servescope.analysis.models.synthesis import Synthesis, lasting, on_own_clocks
    from servescope.loadgen.modelled import open_model
    from servescope.traces.errors import InputError

    if model is None:
        _list(as_json)
        return
    with console.working(f"opening {model}"):
        chosen = open_model(model, clients=clients)
    for each in edits or ():
        chosen = edited(chosen, each, open_model)
    before = chosen
    if rate is not None and scale is not None:
        raise InputError("The rate is given twice.", "Give --rate or --scale.")
    if rate is not None:
        chosen = chosen.at_rate(rate, by)
    elif scale is not None:
        chosen = chosen.scaled(scale, by)
    if out is None:
        raise InputError("It is not said where the trace shall go.", "Add -o trace.parquet.")
    if programs is not None:
        on_own_clocks(chosen, programs, seed).write(out, overwrite=overwrite)
        console.say(f"Wrote {programs:,} programs to {out}.")
        return
    synthesis = Synthesis(chosen, lasting(chosen, duration), seed, start)
    effect = told(before, chosen) if chosen is not before and before.rate_rps else None
    with console.counting(f"drawing {chosen.name}", quiet=quiet) as drawn:
        calls = synthesis.write(
            out,
            overwrite=overwrite,
            jobs=jobs,
            on_progress=lambda done: drawn(done, round(synthesis.expected_calls)),
        )
    if as_json:
        console.json(
            {
                "model": chosen.name,
                "out": str(out),
                "calls": calls,
                "duration_s": synthesis.duration_s,
                "seed": seed,
                "edits": list(chosen.about.edits),
                "dispersion": None if effect is None else effect.to_dicts(),
                "doubts": list(synthesis.provenance.doubts),
            }
        )
        return
    if effect is not None and not quiet:
        _tell(effect)
    for doubt in chosen.about.doubts:
        console.doubt(doubt)
    console.say(f"Wrote {calls:,} calls to {out}.")


def _tell(effect: object) -> None:
    """Print what another rate does to how bursty calls are."""
    import polars as pl

    assert isinstance(effect, pl.DataFrame)
    console.table(
        ["window", "dispersion before", "expected at this rate"],
        (
            (f"{row['scale_s']:g} s", f"{row['before']:.3g}", f"{row['expected']:.3g}")
            for row in effect.iter_rows(named=True)
        ),
        title="Variance over mean of the calls in a window (Poisson: 1)",
    )


def _list(as_json: bool) -> None:
    """List the models that ship with servescope."""
    from servescope.analysis.models.presets import PRESETS, load_preset

    models: dict[str, Model] = {name: load_preset(name) for name in PRESETS}
    if as_json:
        console.json(
            {
                name: {"about": each.about, "rate_rps": each.rate_rps, "says": each.summary()}
                for name, each in models.items()
            }
        )
        return
    console.table(
        ["preset", "learnt from", "calls", "calls/s", "licence"],
        (
            (
                name,
                each.about.source,
                f"{each.about.calls:,}",
                "given with --rate" if each.rate_rps is None else f"{each.rate_rps:.3g}",
                each.about.licence,
            )
            for name, each in models.items()
        ),
        prose=True,
    )
