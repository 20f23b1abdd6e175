"""ServeGen client pools: how often and how much each client asks, window by window; no calls."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats import jsonl
from servescope.traces.formats.format import Format
from servescope.traces.formats.source import File, Source
from servescope.traces.formats.spool import Spool
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.trace import Trace

NO_CALLS = (
    "These are statistics of clients, not calls: see the tables client_windows and client_lengths."
)
NO_RATES = "No client has a file of rates: what was asked is known, when is not."
WINDOW_S: Final = 600
LENGTHS_WINDOW_S: Final = 21_600
WINDOWS: Final[dict[str, pl.DataType]] = {
    "client_id": pl.String(),
    "window_start_s": pl.Float64(),
    "window_s": pl.Float64(),
    "rate_rps": pl.Float64(),
    "cv": pl.Float64(),
    "pattern": pl.String(),
    "shape": pl.Float64(),
    "scale_s": pl.Float64(),
}
LENGTHS: Final[dict[str, pl.DataType]] = {
    "client_id": pl.String(),
    "window_start_s": pl.Float64(),
    "window_s": pl.Float64(),
    "field": pl.String(),
    "value": pl.Float64(),
    "probability": pl.Float64(),
}
_CALLS = ("call_id", "arrival_s", "input_tokens", "output_tokens")
_NUMBER = rb"[0-9.eE+-]+"
_WINDOW = re.compile(
    rb"\s*(?:N,N,N,(?:Gamma|Weibull),N,N|N,0,0,,0,0)\r?(?:\n|$)".replace(b"N", _NUMBER)
)
_LENGTHS = re.compile(rb'\s*\{\s*"\d+"\s*:\s*\{\s*"\w+"\s*:\s*"\{(?:\}|\d)')
_FILE = re.compile(r"(.+?)-(?:trace|dataset)\.")


def sniff(head: bytes) -> bool:
    """Recognise a line of rates, or a histogram written as text in JSON."""
    return _is_windows(head) or _LENGTHS.match(head) is not None


def _is_windows(head: bytes) -> bool:
    return _WINDOW.match(head) is not None


def read(source: Source) -> Trace:
    """Read pools of clients into two tables; the table of calls has no rows.

    `client_windows` has the rate and the pattern of inter-arrival times of every client in every
    window of 600 s, `client_lengths` its histograms of token counts in windows of six hours.
    """
    windows = [file for file in source.files if _is_windows(file.head())]
    lengths = [file for file in source.files if file not in windows]
    tables = {
        "client_windows": _spooled(_windows(source, windows), WINDOWS),
        "client_lengths": _spooled(_lengths(source, lengths), LENGTHS),
    }
    if not any(spool.height for spool in tables.values()):
        raise BadRow(
            f"{source.name} has no row that can be read.",
            f"See {source.rejects.aside} for why." if source.rejects.total else "Give another.",
        )
    empty = pl.DataFrame(schema={n: SCHEMA[n] for n in _CALLS})
    provenance = Provenance(
        format="servegen",
        source=source.name,
        kind="derived",
        files=len(source.files) if len(source.files) > 1 else None,
        sha256=source.sha256,
        licence="Apache-2.0",
        attribution="Xiang et al., ServeGen, 2025 (arXiv 2505.09999); alibaba/ServeGen",
        rows_read=tables["client_windows"].height + source.rejects.total,
        rows_kept=tables["client_windows"].height,
        rows_dropped=dict(source.rejects.counts),
        clock="source",
        units="seconds, as published",
        doubts=(NO_CALLS, *_said(windows, lengths)),
    )
    return Trace.of(empty, provenance, {name: spool.frame() for name, spool in tables.items()})


def _said(windows: list[File], lengths: list[File]) -> Iterator[str]:
    if not windows:
        yield NO_RATES
        return
    known = {_client(file) for file in lengths}
    lacking = sum(_client(file) not in known for file in windows)
    if lacking:
        yield (
            f"{lacking} of {len(windows)} clients have no dataset file: how long their prompts and"
            " answers were is not known."
        )


def _client(file: File) -> str:
    """Name a client by its folders and chunk: language/m-small/chunk-3."""
    path = Path(file.path).resolve()
    found = _FILE.match(path.name)
    return "/".join((*path.parts[-3:-1], found.group(1) if found else path.stem))


def _spooled(batches: Iterable[pl.DataFrame], types: dict[str, pl.DataType]) -> Spool:
    return Spool().extend([pl.DataFrame(schema=types)]).extend(batches)


def _windows(source: Source, files: list[File]) -> Iterator[pl.DataFrame]:
    row = 0
    for file in files:
        client = _client(file)
        rows: list[tuple[Any, ...]] = []
        source.begin(file, row + 1)
        for _, block in file.blocks(source.rejects):
            for line in block.splitlines():
                row += 1
                if not line.strip():
                    continue
                try:
                    rows.append((client, *_window(line)))
                except ValueError as error:
                    source.reject(
                        row,
                        f"{error}.",
                        "ServeGen writes time,rate,cv,pattern,shape,scale; mend the line.",
                        reason="no window",
                        shown=line,
                    )
        yield pl.DataFrame(rows, schema=WINDOWS, orient="row")


def _window(line: bytes) -> tuple[Any, ...]:
    cells = line.decode(errors="replace").split(",")
    if len(cells) != 6:
        raise ValueError(f"it has {len(cells)} cells and not 6")
    pattern = cells.pop(3).strip()
    start, rate, cv, shape, scale = map(float, cells)
    if not all(math.isfinite(x) and x >= 0 for x in (start, rate, cv, shape, scale)):
        raise ValueError("a number is below 0 or endless")
    if pattern not in ("Gamma", "Weibull", ""):
        raise ValueError(f"the pattern is {pattern!r}, not Gamma or Weibull")
    if start % WINDOW_S:
        raise ValueError(f"the window starts at {start:.15g} s, which is no multiple of {WINDOW_S}")
    if not pattern:  # nothing was asked: its burstiness is not 0, there is none
        return start, WINDOW_S, rate, None, None, None, None
    return start, WINDOW_S, rate, cv, pattern, shape, scale


def _lengths(source: Source, files: list[File]) -> Iterator[pl.DataFrame]:
    here = replace(source, files=tuple(files))
    for file, document in jsonl.documents(here, dict[str, dict[str, str]]):
        texts = pl.DataFrame(
            [
                (window, field, text)
                for window, found in document.items()
                for field, text in found.items()
            ],
            schema={"window": pl.String, "field": pl.String, "text": pl.String},
            orient="row",
        )
        pairs = _pairs(texts)
        bad = pairs.filter(
            pl.any_horizontal(pl.col("window_start_s", "value", "probability").is_null())
        )
        refused = bad.select("window", "field").unique(maintain_order=True)
        for window, field in refused.iter_rows():
            text = document[window][field]
            source.rejects.add(
                f"{file.name}, window {window}, {field}",
                f"{text[:60]!r} is no histogram like '{{143: 0.0001, 150: 0.9999}}'.",
                "Nothing but numbers is read here; export the file again.",
                reason="no histogram",
                row=text.encode(),
            )
        yield pairs.join(refused, on=["window", "field"], how="anti").select(
            pl.lit(_client(file)).alias("client_id"),
            "window_start_s",
            pl.lit(float(LENGTHS_WINDOW_S)).alias("window_s"),
            "field",
            "value",
            "probability",
        )


def _pairs(texts: pl.DataFrame) -> pl.DataFrame:
    """Take the texts of Python's dicts of numbers apart, as text: nothing of them is evaluated."""
    inside = pl.col("text").str.strip_chars().str.extract(r"^\{(.*)\}$")
    pair = pl.col("pair").str.splitn(":", 2).struct
    return (
        texts.filter(inside.str.strip_chars().ne_missing(""))  # {}: nothing was asked
        .select("window", "field", pair=inside.str.split(","))
        .explode("pair", empty_as_null=True, keep_nulls=True)
        .select(
            "window",
            "field",
            window_start_s=_number(pl.col("window")),
            value=_number(pair.field("field_0")),
            probability=_number(pair.field("field_1")),
        )
    )


def _number(text: pl.Expr) -> pl.Expr:
    number = text.str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(number.is_finite() & (number >= 0)).then(number)


FORMAT = Format(
    sniff,
    read,
    "ServeGen client pools: rates and lengths of clients, no calls",
    "lines of time, rate, CV, pattern and two parameters, or histograms of token counts",
)
