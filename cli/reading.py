"""Options of every verb that reads a foreign file: what the file does not say, the user does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servescope.traces import Trace

_PANEL = "What the file does not say"
_STEPS = "Transforms"

Files = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="A bundled name (see `traces list`), a file, a folder, a pattern like 'logs/*.jsonl',"
        " - for standard input, or a run directory.",
    ),
]
Unit = Annotated[
    Literal["s", "ms", "us", "ns"] | None,
    typer.Option(help="Unit of times that are bare numbers.", rich_help_panel=_PANEL),
]
BlockTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of one prefix block.", rich_help_panel=_PANEL),
]
BlockRule = Annotated[
    Literal["ceil", "floor"] | None,
    typer.Option(help="Whether a last block that is not full has an id.", rich_help_panel=_PANEL),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "-c",
        help="CANONICAL=SOURCE, e.g. input_tokens=prompt_len, or a TOML file with a table"
        " called columns. May be given again.",
        rich_help_panel=_PANEL,
    ),
]
TokenizerName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="Count the tokens of text with this tokenizer.json, or 'estimate' at 4 bytes a token.",
        rich_help_panel=_PANEL,
    ),
]
OnError = Annotated[
    Literal["raise", "skip"],
    typer.Option(
        help="skip: put rows that make no sense aside and count them.", rich_help_panel=_PANEL
    ),
]
Rejected = Annotated[
    Path | None,
    typer.Option(
        help="Where they are put; by default NAME.rejected.jsonl.", rich_help_panel=_PANEL
    ),
]
Transforms = Annotated[
    list[str] | None,
    typer.Option(
        "--transform",
        "-t",
        metavar="NAME=VALUE",
        help="Change the trace, in the order given: window=0:600, where=model:GPT-4, sample=0.1,"
        " time=0.5, rate=2:superpose, jitter, clip=input:4096, zero, head=100, sessions=infer.",
        rich_help_panel=_STEPS,
    ),
]
StepSeed = Annotated[
    int,
    typer.Option("--seed", min=0, help="Seed of transforms that draw.", rich_help_panel=_STEPS),
]


def read(
    source: str,
    format: str | None,
    unit: str | None,
    block_tokens: int | None,
    block_rule: str | None,
    column: Sequence[str] | None,
    tokenizer: str | None,
    on_error: Literal["raise", "skip"],
    rejected: Path | None,
    transforms: Sequence[str] | None,
    seed: int,
) -> Trace:
    """Load a trace as these options say, and change it."""
    from servescope.traces import load
    from servescope.traces.formats.columns import column_map
    from servescope.traces.transforms import transform

    trace = load(
        source,
        format=format,
        on_error=on_error,
        rejected=rejected,
        unit=unit,
        block_tokens=block_tokens,
        block_rule=block_rule,
        columns=column_map(column) if column else None,
        tokenizer=tokenizer,
    )
    return transform(trace, transforms or (), seed)
