"""How the cells of a user's table become canonical values, a whole column at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import polars as pl

from servescope.traces.formats.columns import TARGETS
from servescope.traces.formats.source import Source
from servescope.traces.status import FAILED, OK

# How many of a unit are a second.
SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_UNIT = re.compile(r"_(s|ms|us|ns)$")
_OK_WORDS = ("ok", "success", "200", "true")
_APART = r"[\s,;]+"
_SHOWN = 100


def unit_of(column: str) -> str | None:
    """Return the unit that a column carries in its name, as `latency_ms` does."""
    found = _UNIT.search(column)
    return found.group(1) if found else None


def plain(values: pl.Series, *, lists: bool = False) -> pl.Series:
    """Return a column as numbers, dates or texts: what nests becomes its JSON.

    With `lists`, a list of whole numbers or texts may stay one.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.List) and lists:
        if dtype.inner in (pl.String, pl.Null):
            return values.cast(pl.List(pl.String))
        if isinstance(dtype.inner, pl.DataType) and dtype.inner.is_integer():
            return values
    if dtype.is_nested():
        json = [None if v is None else msgspec.json.encode(v).decode() for v in values.to_list()]
        return pl.Series(values.name, json, dtype=pl.String)
    if dtype.is_integer() or dtype.is_float() or dtype in (pl.Date, pl.Datetime):
        return values
    return values.cast(pl.String)


def converted(
    batch: pl.DataFrame, columns: Mapping[str, str], source: Source, unit: str | None
) -> pl.DataFrame:
    """Return `source_row` and the canonical `columns`, each made of the source column it names.

    The columns of `batch` are `plain`. An empty text is null. Times are of the unit in their
    column's name, else of `unit`, else seconds. A row with a value that cannot become what its
    column holds is rejected.
    """
    made = batch.select(
        "source_row", *(_made(n, c, batch[c].dtype, unit) for n, c in columns.items())
    )
    lost = {n: c for n, c in columns.items() if _empty(batch[c]) != made[n].null_count()}
    return without(made, batch, lost, source) if lost else made


def without(
    made: pl.DataFrame, batch: pl.DataFrame, columns: Mapping[str, str], source: Source
) -> pl.DataFrame:
    """Reject the rows of `made` where a column is null that `batch` has a value for."""
    bad = pl.Series([False]).new_from_index(0, batch.height)
    for name, column in columns.items():
        here = made[name].is_null() & _is_there(batch[column]) & ~bad
        for place in here.arg_true():
            kind = _kind(name)
            source.reject(
                made["source_row"][place],
                f"{column!r} is {_shown(batch[column][place])!r}, not {kind}.",
                "Mend the row, or leave the value empty if it is unknown.",
                reason=f"{column} is not {kind}",
                shown=str(batch.row(place, named=True)).encode(),
            )
        bad |= here
    return made.filter(~bad)


def _shown(value: Any) -> str:
    return str(value.to_list() if isinstance(value, pl.Series) else value)[:_SHOWN]


def _is_there(values: pl.Series) -> pl.Series:
    there = values.is_not_null()
    return there & (values != "") if values.dtype == pl.String else there


def _empty(values: pl.Series) -> int:
    return len(values) - int(_is_there(values).sum())


def _kind(name: str) -> str:
    dtype = TARGETS[name]
    if name == "arrival_s":
        return "a time"
    if isinstance(dtype, pl.List):
        return "a list of names" if dtype.inner == pl.String else "a list of numbers"
    return (
        "a whole number" if dtype == pl.Int64 else "a number" if dtype == pl.Float64 else "a text"
    )


def _made(name: str, column: str, have: pl.DataType, unit: str | None) -> pl.Expr:
    want = TARGETS[name]
    values = pl.col(column)
    if have.is_temporal() or (isinstance(want, pl.List) and not have.is_nested()):
        values = values.cast(pl.String)
    if isinstance(want, pl.List):
        made = _list(values, have, want.inner)
    elif want == pl.Int64:
        made = _whole(values, have)
    elif want == pl.Float64:
        made = _real(values)
    else:
        made = values.cast(pl.String)
        made = _status(made) if name == "status" else pl.when(made != "").then(made)
    if name.endswith("_s"):
        made = _seconds(made, want, unit_of(column) or unit or "s")
    return made.alias(name)


def _whole(values: pl.Expr, have: pl.DataType) -> pl.Expr:
    """Return whole numbers, also those that are written as 12.0."""
    if have.is_integer():
        return values.cast(pl.Int64, strict=False)
    real = _real(values)
    from_real = pl.when(real == real.round()).then(real).cast(pl.Int64, strict=False)
    return (
        from_real if have.is_float() else values.cast(pl.Int64, strict=False).fill_null(from_real)
    )


def _real(values: pl.Expr) -> pl.Expr:
    real = values.cast(pl.Float64, strict=False)
    return pl.when(real.is_finite()).then(real)


def _seconds(values: pl.Expr, dtype: pl.DataType, unit: str) -> pl.Expr:
    if unit == "s":
        return values
    if isinstance(dtype, pl.List):
        return values.list.eval(pl.element() / SECOND[unit])
    # A column over a column is rounded once; over a constant, polars multiplies by its inverse.
    return values / (values * 0 + SECOND[unit])


def _list(values: pl.Expr, have: pl.DataType, inner: Any) -> pl.Expr:
    if isinstance(have, pl.List):
        found = values.list.eval(pl.element().cast(inner, strict=False))
    elif inner == pl.String:
        return values.map_elements(_names, return_dtype=pl.List(inner))
    else:
        words = values.str.strip_chars("[] ").str.replace_all(_APART, " ").str.split(" ")
        found = words.list.eval(pl.element().filter(pl.element() != "").cast(inner, strict=False))
        found = pl.when(values != "").then(found)
    odd = found.list.eval(pl.element().is_null().any()).list.first()
    return pl.when(odd.not_()).then(found)


def _names(text: str) -> list[str] | None:
    """Return the names in a cell: a JSON list, or words with blanks or commas between them."""
    text = text.strip()
    if not text.startswith("["):
        return re.split(_APART, text) if text else None
    try:
        return [str(name) for name in msgspec.json.decode(text, type=list[str | int])]
    except msgspec.DecodeError:
        return None


def _status(words: pl.Expr) -> pl.Expr:
    """Say what a word surely means as the schema says it; keep any other word."""
    low = words.str.to_lowercase()
    return (
        pl.when(low.is_in(_OK_WORDS))
        .then(pl.lit(OK))
        .when(low == "false")
        .then(pl.lit(FAILED))
        .when(low.str.contains(r"^[45]\d\d$"))
        .then(pl.concat_str(pl.lit("http_"), low))
        .when(words != "")
        .then(words)
    )
