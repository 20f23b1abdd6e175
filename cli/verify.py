"""`servescope verify`: how far a synthetic trace is from the real one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servescope.cli import console, reading
from servescope.cli.options import Format, Json

if TYPE_CHECKING:
    from servescope.analysis.fidelity import Fidelity
    from servescope.traces import Trace

_PAGE, _SERVING = "Page", "Serving"


def verify(
    real: Annotated[
        str,
        typer.Argument(
            metavar="REAL",
            help="The real trace: a bundled name (see `traces list`), a file, a folder or a run.",
        ),
    ],
    synthetic: Annotated[
        list[str],
        typer.Argument(
            metavar="SYNTH...",
            help="Synthetic ones, or models, of which --seeds traces are drawn; 10 or more tell how"
            " often a real number is within their band.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            "--html",
            help="Page to write; JSON goes beside it.",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel=_PAGE)
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, help="Traces to draw from each SYNTH that is a model.")
    ] = 20,
    split: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Hold out: compare with what REAL has after this share of its span, whose rates a"
            " model is given, and take the part before it, which the model was fitted to, as the"
            " noise floor. By default all of REAL is compared with, and its halves are the floor.",
        ),
    ] = None,
    serving: Annotated[
        bool,
        typer.Option(
            "--serving/--no-serving",
            help="Serve all traces on the embedded engine too.",
            rich_help_panel=_SERVING,
        ),
    ] = True,
    loads: Annotated[
        str,
        typer.Option(help="Offered work over the engine's capacity.", rich_help_panel=_SERVING),
    ] = "0.3,0.5,0.7",
    system: Annotated[
        str,
        typer.Option(
            help="How the engine schedules: vllm_v1, sarathi, sglang, ...", rich_help_panel=_SERVING
        ),
    ] = "vllm_v1",
    model: Annotated[
        str, typer.Option(help="`servescope engine models`.", rich_help_panel=_SERVING)
    ] = "Llama-3.1-8B",
    gpu: Annotated[
        str, typer.Option(help="`servescope engine gpus`.", rich_help_panel=_SERVING)
    ] = "H100",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Processes.", rich_help_panel=_SERVING)
    ] = 1,
    format: Format = None,
    transforms: reading.Transforms = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of what is drawn: moments within a tick, transforms.")
    ] = 0,
    as_json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but the result.")
    ] = False,
) -> None:
    """Compare synthetic traces with the real one: what a server would notice, and why.

    --format and --transform are of REAL.

    Example:  servescope verify azure:sample poisson.parquet -o fidelity.html

    Example:  servescope verify real.jsonl seed-*.parquet --jobs 4 --json

    Example:  servescope verify week.csv model.json --seeds 20 --split 0.5
    """
    from servescope.analysis import fidelity
    from servescope.loadgen import served
    from servescope.loadgen.experiment import EngineSpec
    from servescope.reports import exports
    from servescope.reports import fidelity as pages

    at = _loads(loads)
    if out:
        exports.beside(out, overwrite=overwrite)  # rather now than after long work
    with console.working(f"reading {real}"):
        whole = reading.read(
            real, format, None, None, None, None, None, "raise", None, transforms, seed
        )
    parts = fidelity.split(whole, split or 0.5)
    compared = parts[1] if split else whole
    made: dict[str, Trace] = {}
    for source in synthetic:
        with console.working(f"reading {source}"):
            made |= synthetic_traces(source, seeds, compared, rates=split is not None)
    with console.stages(real) as begins:
        found = fidelity.compare(
            compared,
            list(made.values()),
            parts=parts,
            name=f"{real} after {split:g} of its span" if split else real,
            names=list(made),
            seed=seed,
            begins=begins,
        )
    if serving:
        with console.counting("Serving", quiet=quiet) as counted:
            got = served.compare(
                compared,
                list(made.values()),
                at,
                engine=EngineSpec(system=system, model=model, gpu=gpu),
                parts=parts,
                tick=found.tick,
                seed=seed,
                jobs=jobs,
                on_progress=counted,
            )
        found = found.joined(got.table, got.curves, got.left_out, got.doubts)
    if out:
        with console.working("drawing the page"):
            pages.write(found, out, overwrite=overwrite)
        if not quiet:
            console.say(f"Page: {out}")
    if as_json:
        print(pages.json(found).decode())
        return
    _tell(found)
    if not out and not quiet:
        console.say("For every figure and table add: -o fidelity.html")


def synthetic_traces(source: str, seeds: int, real: Trace, *, rates: bool) -> dict[str, Trace]:
    """Return the traces of a source by their names: itself, or the seeds of a model.

    They are as long as the real one; with `rates` they have its course of rates too.
    """
    from servescope.analysis.models.fitting import at_rates_of
    from servescope.analysis.models.synthesis import on_own_clocks, synthesize
    from servescope.loadgen.modelled import is_model, open_model
    from servescope.traces import Trace as Table
    from servescope.traces import load

    if not is_model(source):
        return {source: load(source)}
    model = open_model(source)
    if rates:
        model = at_rates_of(model, real)
    made = {}
    for seed in range(seeds):
        if real.provenance.arrival_basis == "program":
            drawn = on_own_clocks(model, _programs(real), seed)
        else:
            drawn = synthesize(model, _lasts(real) if not rates else None, seed)
        made[f"{source}, seed {seed}"] = Table.of(drawn.collect(), drawn.provenance, checked=True)
    return made


def _programs(real: Trace) -> int:
    import polars as pl

    return int(real.frame.select(pl.col("program_id").n_unique()).collect().item())


def _lasts(real: Trace) -> float | None:
    """Return how long a trace is (s); None where its calls have no times."""
    import polars as pl

    if "arrival_s" not in real.columns:
        return None
    ends = real.frame.select(pl.max("arrival_s") - pl.min("arrival_s")).collect().item()
    return float(ends) if ends else None


def _loads(text: str) -> list[float]:
    from servescope.traces.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"'{text}' is no list of loads.", "Give shares of the capacity, such as 0.3,0.5,0.7."
        ) from None


def _tell(found: Fidelity) -> None:
    """Print what matters, the doubts, and the scores that a good model is held to."""
    from rich.markup import escape

    from servescope.analysis.fidelity.verdict import sentences
    from servescope.reports.fidelity import sections_of

    for sentence in sentences(found):
        console.out.print(escape(sentence.text), soft_wrap=True)
    console.out.print()
    for text in found.doubts:
        console.doubt(text)
    console.sections(section for section in sections_of(found) if section.name == "bars")
