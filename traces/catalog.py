"""The traces that ship with servescope, and the one way in for all others."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import msgspec

from servescope.traces import formats
from servescope.traces.errors import InputError, NotATrace, OutputExists
from servescope.traces.formats import locate
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import File, Source
from servescope.traces.run import Run
from servescope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Bundled:
    """A real trace sample in the package: the file, its format, and what it is cut from."""

    file: str
    format: str
    says: str


BUNDLED = {
    "burstgpt:sample": Bundled(
        "burstgpt_v1.csv", "burstgpt", "BurstGPT_1.csv rows 1-400: single requests over ten hours"
    ),
    "burstgpt:sessions": Bundled(
        "burstgpt_v3.csv", "burstgpt", "BurstGPT_3.csv rows 1-280: with recorded sessions"
    ),
    "azure:sample": Bundled(
        "azure_2023_code.csv",
        "azure",
        "Azure 2023 code trace rows 1-1500: bursts on a 100 ns clock",
    ),
    "mooncake:sample": Bundled(
        "mooncake_synthetic.jsonl.gz",
        "mooncake",
        "Mooncake synthetic trace rows 3210-3684: two minutes of long prompts that share prefixes",
    ),
    "mooncake:conversation": Bundled(
        "mooncake_conversation.jsonl.gz", "mooncake", "Mooncake conversation trace rows 1-400"
    ),
}


def load(
    source: str | Path,
    *,
    format: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    rejected: str | Path | None = None,
    **options: Any,
) -> Trace:
    """Read a trace: a bundled name (`burstgpt:sample`), files, or a run directory.

    Files are one file, a folder, a glob pattern, or `-` for standard input; gzip and zstd are
    unpacked. Their format is recognised by content unless `format` names it. `options` are the
    fields of `formats.Options`: what the user knows and the files do not say. With `on_error`
    "skip", rows that make no sense are put into the file `rejected` (by default the name of the
    source with `.rejected.jsonl`, in this folder) and counted. Raises NotATrace for what is none of
    these, BadRow for a row that makes no sense, and InputError for an option that is none.
    """
    text = str(source)
    if text in BUNDLED:
        return _bundled(text, format)
    path = Path(source).expanduser()
    if path.is_dir() and (path / "run.json").exists():
        return _of_run(Run.open(path))
    if not path.exists() and ":" in text and "/" not in text:
        near = difflib.get_close_matches(text, BUNDLED, n=3, cutoff=0.3) or list(BUNDLED)
        raise NotATrace(f"'{text}' is not a trace.", f"Near it: {', '.join(near)}.")
    said = _options(options)
    aside = Path(rejected or f"{path.name}.rejected.jsonl") if on_error == "skip" else None
    files = locate.find(text)
    doubts: list[str] = []
    name = files[0].name if len(files) == 1 else text
    if format is None and not said.columns:
        form, files, doubts = formats.choose(files, name)
        why = f"its content: {form.by}"
    else:
        form = formats.named(format or "table")
        files, doubts = formats.of_format(files, form)
        why = "the user" if format else "the columns that the user named"
    trace = form.read(Source(files, name, said, Rejects(aside))).doubting(*doubts)
    known = trace.provenance.recognised_by
    return trace if known else trace.known(recognised_by=why)


def export(
    trace: Trace, path: str | Path, *, format: str, overwrite: bool = False
) -> tuple[str, ...]:
    """Write a trace in another tool's format; returns a sentence for all that it cannot hold.

    Raises InputError for a format that cannot be written, or that the trace lacks something for.
    """
    form = formats.named(format)
    if form.write is None:
        known = [name for name, other in formats.formats().items() if other.write]
        raise InputError(
            f"The format '{format}' cannot be written.", f"These can: {', '.join(known)}."
        )
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already.", "Choose another name or add --overwrite.")
    trace.check()
    return tuple(form.write(trace, path))


def _options(given: dict[str, Any]) -> formats.Options:
    try:
        return msgspec.convert({k: v for k, v in given.items() if v is not None}, formats.Options)
    except msgspec.ValidationError as error:
        raise InputError(
            f"A reading option cannot be that: {error}.",
            f"The options are {', '.join(formats.Options.__struct_fields__)}.",
        ) from None


def _of_run(run: Run) -> Trace:
    if "prefix_blocks" in run.plan.columns and run.plan["prefix_blocks"].list.len().sum():
        return run.trace.doubting(
            "A run keeps lengths and times, not the prefixes that its prompts shared;"
            " replay its experiment.toml for those."
        )
    return run.trace


def _bundled(name: str, format: str | None) -> Trace:
    sample = BUNDLED[name]
    with as_file(files("servescope.traces") / "data" / sample.file) as path:
        form = formats.named(format or sample.format)
        trace = form.read(Source((File(path, name),), name))
    steps = (f"cut: {sample.says}",)
    return trace.known(steps=steps, recognised_by="its name")
