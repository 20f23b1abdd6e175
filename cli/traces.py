"""`servescope traces`: list, inspect, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servescope.cli import console
from servescope.cli.options import Format, Json, TraceName

app = typer.Typer(no_args_is_help=True, help="List, inspect and convert traces.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the bundled traces and the formats that can be read.

    Example:  servescope traces list
    """
    from servescope.traces import BUNDLED
    from servescope.traces.formats import formats

    if as_json:
        bundled = {name: sample.says for name, sample in BUNDLED.items()}
        console.json({"bundled": bundled, "formats": {n: f.says for n, f in formats().items()}})
        return
    console.table(["bundled trace", "what"], ((n, s.says) for n, s in BUNDLED.items()), prose=True)
    console.out.print()
    console.table(
        ["format", "what"], ((name, form.says) for name, form in formats().items()), prose=True
    )


@app.command()
def inspect(trace: TraceName, format: Format = None, as_json: Json = False) -> None:
    """Say what a trace holds, where it came from, and what to doubt about it.

    Example:  servescope traces inspect burstgpt:sessions
    """
    import dataclasses

    import msgspec

    from servescope.traces import inspect as audit
    from servescope.traces import load

    loaded = load(trace, format=format)
    quality = audit(loaded)
    facts = {k: v for k, v in msgspec.to_builtins(loaded.provenance).items() if k != "doubts"}
    counts = dataclasses.asdict(quality)
    doubts = counts.pop("doubts")
    if as_json:
        columns = loaded.columns
        console.json({"provenance": facts, "columns": columns, **counts, "doubts": doubts})
        return
    rows = [(key.replace("_", " "), _text(value)) for key, value in (facts | counts).items()]
    console.table(["", trace], rows, prose=True)
    console.out.print()
    console.table(["column", "null"], _nulls(trace, format))
    for doubt in doubts:
        console.doubt(doubt)


@app.command()
def convert(
    trace: TraceName,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File ending in .parquet, .csv or .jsonl.")
    ],
    format: Format = None,
    sessions: Annotated[
        bool, typer.Option("--infer-sessions", help="Chain calls by the prefixes they share.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write any trace as the canonical table.

    Example:  servescope traces convert mooncake:sample -o mooncake.parquet
    """
    from servescope.traces import infer_sessions, load

    loaded = load(trace, format=format)
    if sessions:
        loaded = infer_sessions(loaded)
    loaded.write(out, overwrite=overwrite)
    console.say(f"Wrote {out}.")


def _nulls(trace: str, format: str | None) -> list[tuple[str, str]]:
    from servescope.traces import load

    calls = load(trace, format=format).collect()
    return [(name, f"{calls[name].null_count() / calls.height:.0%}") for name in calls.columns]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
