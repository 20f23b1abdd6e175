"""`servescope traces`: list, inspect, convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from servescope.cli import console, reading
from servescope.cli.options import Format, Json

if TYPE_CHECKING:
    from servescope.traces import Quality, Trace

app = typer.Typer(no_args_is_help=True, help="List, inspect and convert traces.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the bundled traces, and the formats that can be read or written.

    Example:  servescope traces list
    """
    from servescope.traces import BUNDLED
    from servescope.traces.formats import formats

    known = formats()
    if as_json:
        bundled = {name: sample.says for name, sample in BUNDLED.items()}
        written = [name for name, form in known.items() if form.write]
        console.json(
            {
                "bundled": bundled,
                "formats": {name: form.says for name, form in known.items()},
                "written": written,
            }
        )
        return
    console.table(["bundled trace", "what"], ((n, s.says) for n, s in BUNDLED.items()), prose=True)
    console.out.print()
    rows = ((name, "yes" if form.write else "", form.says) for name, form in known.items())
    console.table(["format", "written", "what"], rows, prose=True)


@app.command()
def inspect(
    trace: reading.Files,
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
    """Say what a trace holds, where it came from, what it is good for, and what to doubt.

    Example:  servescope traces inspect burstgpt:sessions

    Example:  servescope traces inspect logs/ --on-error skip --json
    """
    import dataclasses

    import msgspec

    from servescope.traces import inspect as audit

    with console.working(f"reading {trace}"):
        loaded = reading.read(
            trace, format, unit, block_tokens, block_rule, column, tokenizer, on_error, rejected,
            transforms, seed,
        )  # fmt: skip
    with console.working("looking at every row"):
        quality = audit(loaded)
    facts = {k: v for k, v in msgspec.to_builtins(loaded.provenance).items() if k != "doubts"}
    if as_json:
        tables = {n: t.collect_schema().names() for n, t in loaded.tables.items()}
        console.json(
            {
                "provenance": facts,
                "columns": loaded.columns,
                "tables": tables,
                **dataclasses.asdict(quality),
            }
        )
        return
    _draw(trace, loaded, facts, quality)


@app.command()
def convert(
    traces: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE...", help="As for inspect; several are merged, to begin together."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The file: .parquet, .csv or .jsonl, or whatever --to writes."
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", help="Write another tool's format; see `servescope traces list`."),
    ] = None,
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
    sessions: Annotated[
        bool, typer.Option("--infer-sessions", help="Chain calls by the prefixes they share.")
    ] = False,
    align: Annotated[
        Literal["start", "clock"],
        typer.Option(help="Merge by the start, or by the clock where all are in UTC."),
    ] = "start",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write any trace as the canonical table, or in another tool's format.

    Example:  servescope traces convert mooncake:sample -o mooncake.parquet

    Example:  servescope traces convert burstgpt:sample -t window=0:3600 --to azure -o cut.csv
    """
    from servescope.traces import export, infer_sessions, merge
    from servescope.traces.transforms import transform

    alone = len(traces) == 1
    loaded = []
    for trace in traces:
        with console.working(f"reading {trace}"):
            loaded.append(
                reading.read(
                    trace, format, unit, block_tokens, block_rule, column, tokenizer, on_error,
                    rejected, transforms if alone else None, seed,
                )
            )  # fmt: skip
    whole = loaded[0] if alone else transform(merge(loaded, align), transforms or (), seed)
    if sessions:
        whole = infer_sessions(whole)
    with console.working(f"writing {out}"):
        if to is None:
            whole.write(out, overwrite=overwrite)
            doubts: tuple[str, ...] = ()
        else:
            doubts = export(whole, out, format=to, overwrite=overwrite)
    dropped = sum(whole.provenance.rows_dropped.values())
    if dropped:
        console.doubt(f"{dropped} rows made no sense and were put aside.")
    for doubt in doubts:
        console.doubt(doubt)
    console.say(f"Wrote {out}.")


def _draw(name: str, trace: Trace, facts: dict[str, object], quality: Quality) -> None:
    import dataclasses

    console.table(["", name], ((_label(k), _text(v)) for k, v in facts.items()), prose=True)
    console.out.print()
    counts = {
        field.name: getattr(quality, field.name)
        for field in dataclasses.fields(quality)
        if field.name not in ("doubts", "missing", "inconsistent", "structure", "uses")
    }
    console.table(["rows", ""], ((_label(k), _text(v)) for k, v in counts.items()), prose=True)
    if quality.structure is not None:
        console.out.print()
        links = dataclasses.asdict(quality.structure).items()
        console.table(["structure", ""], ((_label(k), _text(v)) for k, v in links), prose=True)
    console.out.print()
    some = [n for n in trace.columns if quality.calls and quality.missing[n] < quality.calls]
    known = ((n, f"{1 - quality.missing[n] / quality.calls:.1%}") for n in some)
    console.table(["column", "known"], known)
    console.out.print()
    uses = ((use.purpose, "yes" if use.can else "no", use.why) for use in quality.uses)
    console.table(["good for", "", "why"], uses, prose=True)
    for doubt in quality.doubts:
        console.doubt(doubt)


def _label(key: str) -> str:
    return key.replace("_", " ")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {said}" for key, said in value.items()) or "-"
    return "-" if value is None else str(value)
