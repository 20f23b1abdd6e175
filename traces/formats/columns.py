"""Which column of a user's table is which canonical column."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from servescope.traces.errors import InputError, MissingColumns
from servescope.traces.formats.gather import TEXTS
from servescope.traces.schema import SCHEMA

# Rows are counted anew, and texts do not travel with a table of calls.
_STAY_BEHIND = ("source_row", "content_ref")
TARGETS: Final[dict[str, pl.DataType]] = {
    **{name: dtype for name, dtype in SCHEMA.items() if name not in _STAY_BEHIND},
    **dict.fromkeys(TEXTS, pl.String()),
}
ALIASES: Final = {"arrival": "arrival_s"}
_NEEDED = (("input_tokens", TEXTS[:2]), ("output_tokens", TEXTS[2:]))
_FROM_TOML = (".toml", ".TOML")
_NEAR = 0.4


def column_map(arguments: Sequence[str]) -> dict[str, str]:
    """Return canonical column to source column, as words of a command line say it.

    A word is `input_tokens=prompt_len`, or a TOML file (`map.toml`, or `@` and any name) with a
    table `[columns]`. Raises InputError for any other word, and for a column that is named twice.
    """
    found: dict[str, str] = {}
    for word in arguments:
        if word.startswith("@") or ("=" not in word and word.endswith(_FROM_TOML)):
            pairs = _from_toml(word.removeprefix("@"))
        else:
            name, sign, column = (part.strip() for part in word.partition("="))
            if not sign or not name:
                raise InputError(
                    f"'{word}' says no column.",
                    "Write CANONICAL=SOURCE, as in input_tokens=prompt_len, or name a TOML file.",
                )
            pairs = {name: column}
        twice = sorted(found.keys() & pairs.keys())
        if twice:
            raise InputError(f"Column {twice[0]} is named twice.", "Name every column once.")
        found |= pairs
    return found


def _from_toml(name: str) -> dict[str, str]:
    try:
        content = tomllib.loads(Path(name).expanduser().read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.", "Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is no TOML: {error}.", "Mend the file.") from None
    try:
        return msgspec.convert(content.get("columns"), dict[str, str])
    except msgspec.ValidationError:
        raise InputError(
            f"{name} has no table [columns] of texts.",
            'Write [columns] and below it lines like input_tokens = "prompt_len".',
        ) from None


def resolve(asked: Mapping[str, str], there: Iterable[str]) -> dict[str, str]:
    """Return what each canonical column is read from: what the user says, then its own name.

    An empty name leaves a column out. Raises InputError for a name that is not canonical, and for a
    column that is named twice.
    """
    for alias, target in ALIASES.items():
        if {alias, target} <= asked.keys():
            raise InputError(f"{alias} and {target} are one column.", "Name it once.")
    found = {name: name for name in there if name in TARGETS and name not in asked.values()}
    for name, column in asked.items():
        target = ALIASES.get(name, name)
        if target not in TARGETS:
            known = [*TARGETS, *ALIASES]
            near = difflib.get_close_matches(name, known, n=3, cutoff=_NEAR)
            raise InputError(
                f"'{name}' is no canonical column.",
                f"Near it: {', '.join(near)}."
                if near
                else "docs/reference/schema.md lists the canonical columns.",
            )
        found.pop(target, None)
        if column:
            found[target] = column
    return found


def require(columns: Mapping[str, str], there: Sequence[str]) -> None:
    """Raise MissingColumns for source columns that are not there, and for what no call can lack."""
    for name, column in columns.items():
        if column not in there:
            raise lacking(name, column, there)
    for name, instead in _NEEDED:
        if name not in columns and not any(text in columns for text in instead):
            raise _unnamed(name, there)
    if not columns.keys() & {"arrival_s", "parents", "program_id"}:
        raise MissingColumns(
            "No column says when calls arrive (arrival_s), what they wait for (parents) or what"
            " they belong to (program_id).",
            f"Name one with --column; the table has {', '.join(there)}.",
        )


def lacking(name: str, column: str, there: Sequence[str]) -> MissingColumns:
    """Return the error of a source column that is not there."""
    near = difflib.get_close_matches(column, there, n=3, cutoff=_NEAR) or there
    return MissingColumns(
        f"The table has no column '{column}' for {name}.",
        f"Near it: {', '.join(near)}." if near else "It has no columns at all.",
    )


def _unnamed(name: str, there: Sequence[str]) -> MissingColumns:
    near = difflib.get_close_matches(name, there, n=1, cutoff=_NEAR)
    column = near[0] if near else "COLUMN"
    listed = f"the table has {', '.join(there)}" if there else "the table has no columns"
    return MissingColumns(
        f"No column holds {name}.",
        f"Name it, for instance with --column {name}={column}; {listed}.",
    )
