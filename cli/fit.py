"""`servescope fit`: learn a model of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servescope.cli import console, reading
from servescope.cli.options import Format, Json, Quiet

if TYPE_CHECKING:
    from servescope.analysis.models.model import Model

_PANEL = "The model"


def fit(
    trace: reading.Files,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The model file to write: model.json.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; by default the trace's.")
    ] = None,
    min_count: Annotated[
        int,
        typer.Option(
            min=2,
            help="Store nothing that rests on fewer calls than this.",
            rich_help_panel=_PANEL,
        ),
    ] = 10,
    window: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Seconds of a window whose rate is kept; by default 600, or more where calls are"
            " few.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Let windows hold as many programs as in the trace, not a Poisson number.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    shape: Annotated[
        str,
        typer.Option(
            help="Family of the arrivals within a window; auto takes the one with the best held-out"
            " score.",
            rich_help_panel=_PANEL,
        ),
    ] = "auto",
    score: Annotated[
        bool,
        typer.Option(
            "--score/--no-score",
            help="Draw from the model and write into it how far that is from the trace.",
            rich_help_panel=_PANEL,
        ),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    format: Format = None,
    unit: reading.Unit = None,
    block_tokens: reading.BlockTokens = None,
    block_rule: reading.BlockRule = None,
    column: reading.Columns = None,
    tokenizer: reading.TokenizerName = None,
    on_error: reading.OnError = "raise",
    rejected: reading.Rejected = None,
    transforms: reading.Transforms = None,
    seed: reading.StepSeed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Learn a synthetic model of a trace: arrivals, lengths, sessions, shared prefixes, clients.

    The file is readable JSON without any row or text of the trace. Draw from it with `synthesize`,
    and see with `verify` whether a server could tell the difference.

    Example:  servescope fit azure:sample -o azure.json

    Example:  servescope fit trace.jsonl --window 60 --exact --min-count 50 -o model.json
    """
    from servescope.analysis.demand import Demand
    from servescope.analysis.models.fitting import fit as learn
    from servescope.traces.errors import OutputExists

    if out and out.exists() and not overwrite:  # rather now than after long work
        raise OutputExists(f"{out} exists already.", "Choose another name or add --overwrite.")
    with console.stages(trace) as begins:
        begins("reading")
        read = reading.read(
            trace, format, unit, block_tokens, block_rule, column, tokenizer, on_error, rejected,
            transforms, seed,
        )  # fmt: skip
        demand = Demand.of(read)
        begins("fitting")
        model = learn(
            demand,
            name=name or trace,
            min_count=min_count,
            window_s=window,
            exact=exact,
            shape=shape,
        )
        if score:
            from servescope.analysis.models.scoring import scored

            begins("drawing from it and comparing")
            model = scored(model, read)
    if out:
        model.write(out, overwrite=overwrite)
    if as_json:
        print(model.to_json().decode(), end="")
        return
    if not quiet:
        _tell(model)
    for doubt in model.about.doubts:
        console.doubt(doubt)
    if out:
        console.say(f"Wrote {out}, {out.stat().st_size / 1e3:,.0f} kB.")
    else:
        console.say("To draw from it, write it: -o model.json")


def _tell(model: Model) -> None:
    for sentence in model.summary():
        console.out.print(sentence, soft_wrap=True)
    for stream in model.streams:
        if stream.arrivals and stream.arrivals.candidates:
            console.out.print()
            console.table(
                ["arrivals within a window", "held-out score", "goodness of fit, p", ""],
                (
                    (
                        each.family,
                        None if each.score is None else f"{each.score:.4f}",
                        None if each.p_value is None else f"{each.p_value:.2f}",
                        each.verdict,
                    )
                    for each in stream.arrivals.candidates
                ),
                title=stream.name if len(model.streams) > 1 else "",
            )
    if model.about.fidelity:
        console.out.print()
        console.table(
            ["a draw of it against the trace", ""],
            ((name, f"{value:.3g}") for name, value in model.about.fidelity.items()),
        )
