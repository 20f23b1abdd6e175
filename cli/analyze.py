"""`servescope analyze`: what the traffic is like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from servescope.cli import console, reading
from servescope.cli.options import TP, Format, Json

if TYPE_CHECKING:
    import polars as pl

    from servescope.analysis.characterization import Characterization
    from servescope.analysis.server_shape import ServerShape

Filled = dict[str, "dict[str, pl.DataFrame]"]

_PAGE, _SERVER = "Page", "A server, for memory and calls in flight"
# A call stays as long as on a server with some company: so many others, each of such a context.
_COMPANY, _CONTEXT_TOKENS, _PREFILL_TOKENS = 32, 1000, 8192


def analyze(
    traces: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE...",
            help="A bundled name (see `traces list`), a file, a folder, a pattern like"
            " 'logs/*.jsonl', - for standard input, or a run directory. Several are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Page to write; JSON goes beside it.", rich_help_panel=_PAGE
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="PAPER",
            help="Lay the numbers out as a paper does, with the published ones beside: burstgpt,"
            " servegen, mooncake or azure. May be given again.",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="Also write every table, whole, into this folder.", rich_help_panel=_PAGE
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            help="Also write every figure into this folder, for print.",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    figure_format: Annotated[
        Literal["svg", "png", "pdf"],
        typer.Option("--figure-format", help="Of --figures.", rich_help_panel=_PAGE),
    ] = "svg",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel=_PAGE)
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="A model: `servescope engine models`.", rich_help_panel=_SERVER),
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(help="Its GPUs: `servescope engine gpus`.", rich_help_panel=_SERVER),
    ] = "H100",
    tp: TP = 1,
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
    as_json: Json = False,
) -> None:
    """Characterise a trace: clock, bursts, lengths, sessions, prefixes, clients, failures, load.

    Example:  servescope analyze azure:sample -o azure.html

    Example:  servescope analyze BurstGPT_3.csv --as burstgpt -o burstgpt.html

    Example:  servescope analyze real.jsonl synthetic.jsonl -o compared.html

    Example:  servescope analyze mooncake:sample --model llama-3.1-70b --gpu H100 --tp 4 --json
    """
    from servescope.analysis import characterize
    from servescope.analysis.demand import Demand
    from servescope.analysis.literature import layout_of
    from servescope.reports import characterization as pages
    from servescope.reports import exports
    from servescope.traces.errors import InputError

    layouts = {name: layout_of(name) for name in layout or ()}
    if layouts and len(traces) > 1:
        raise InputError("A paper's layout is of one trace.", "Name one trace, or leave out --as.")
    if out:
        exports.beside(out, overwrite=overwrite)  # rather now than after long work
    server = _shape(model, gpu, tp) if model else None
    read = {}  # all of them before any is analysed: a name that is wrong is said at once
    for source in traces:
        with console.working(f"reading {source}"):
            read[source] = reading.read(
                source, format, unit, block_tokens, block_rule, column, tokenizer, on_error,
                rejected, transforms, seed,
            )  # fmt: skip
    found, filled = [], {}
    for source in traces:
        with console.stages(source) as begins:
            begins("Reading")
            demand = Demand.of(read[source])
            found.append(characterize(demand, name=source, server=server, begins=begins))
        filled = {name: each.filled(found[0], demand) for name, each in layouts.items()}
    if out or csv or figures:
        _write(found, filled, out, csv, figures, figure_format, overwrite)
    if as_json:
        print(pages.json(found, filled).decode())
        return
    _tell(found, filled)
    if not out:
        console.say("For every figure and table add: -o trace.html")


def _shape(model: str, gpu: str, tp: int) -> ServerShape:
    """Return what a model on its GPUs holds, and how fast it is with some other calls beside."""
    from servescope.analysis.server_shape import ServerShape
    from servescope.engine.catalog import find_gpu, find_model
    from servescope.engine.kvcache import BLOCK_TOKENS, kv_blocks
    from servescope.engine.step_time import Load, StepTime

    shape, card = find_model(model), find_gpu(gpu)
    step = StepTime(shape, card, tp)
    prefill = step(Load(_PREFILL_TOKENS, 1, 0, _PREFILL_TOKENS**2 / 2))
    decode = step(Load(_COMPANY, _COMPANY, _COMPANY * _CONTEXT_TOKENS, 0.0))
    return ServerShape(
        f"{model} on {tp} x {gpu}" if tp > 1 else f"{model} on {gpu}",
        float(shape.kv_bytes_per_token(tp) * tp),
        float(kv_blocks(shape, card, tp) * BLOCK_TOKENS),
        _PREFILL_TOKENS / prefill,
        decode,
    )


def _write(
    found: list[Characterization],
    filled: Filled,
    out: Path | None,
    csv: Path | None,
    figures: Path | None,
    figure_format: Literal["svg", "png", "pdf"],
    overwrite: bool,
) -> None:
    from servescope.reports import characterization as pages
    from servescope.reports import exports
    from servescope.reports.trace_sections import sections_of

    with console.working("drawing the page"):
        if out:
            sections = pages.write(found, out, filled, overwrite=overwrite)
            console.say(f"Page: {out}")
        else:
            sections = sections_of(found, filled)
    if csv:
        made = pages.write_csv(found, csv, overwrite=overwrite)
        console.say(f"{len(made)} tables: {csv}")
    if figures:
        with console.working("drawing the figures"):
            drawn = exports.write_figures(sections, figures, figure_format, overwrite=overwrite)
        console.say(f"{len(drawn)} figures: {figures}")


def _tell(found: list[Characterization], filled: Filled) -> None:
    """Print what matters of each trace, its doubts, what papers show and what differs."""
    from rich.markup import escape

    from servescope.analysis.summary import sentences
    from servescope.reports.trace_sections import sections_of

    for each in found:
        if len(found) > 1:
            console.out.print(f"[bold]{escape(each.name)}[/]")
        for sentence in sentences(each):
            console.out.print(escape(sentence.text), soft_wrap=True)
        console.out.print()
        for text in each.about.doubts:
            console.doubt(text)
    if filled or len(found) > 1:
        made = sections_of(found, filled)
        console.sections(s for s in made if s.name.startswith("as-") or s.name == "differences")
    if len(found) == 1 and found[0].samples:
        console.table(*_quantiles(found[0]))


def _quantiles(found: Characterization) -> tuple[list[str], list[list[str]]]:
    """Return the table of lengths, gaps and turns that a terminal has room for."""
    from servescope.analysis.intervals import bounded

    names = {
        "gap_s": "gap (s), de-ticked",
        "input_tokens": "input tokens",
        "output_tokens": "output tokens",
        "turns": "turns",
    }
    rows = []
    for key, label in names.items():
        sample = found.samples.get(key)
        if sample is None or not len(sample):
            continue
        values = [sample.mean(), *(bounded(sample, q) for q in (0.5, 0.9, 0.99)), sample.max()]
        if key == "gap_s":  # below that it is the draw that speaks
            values = [v if v is not None and v >= found.audit.finest_s else None for v in values]
        rows.append([label, *("-" if v is None else f"{v:.4g}" for v in values)])
    return ["", "mean", "p50", "p90", "p99", "max"], rows
