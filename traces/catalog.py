"""The traces that ship with servescope, and the one way in for all others."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import msgspec

from servescope.traces import formats
from servescope.traces.errors import NotATrace
from servescope.traces.formats.source import Source
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


def load(source: str | Path, *, format: str | None = None) -> Trace:
    """Read a trace: a bundled name (`burstgpt:sample`), a file, or a run directory.

    The format of a file is recognised by content unless `format` names it. Raises NotATrace for
    what is none of these, and BadRow for a file whose rows make no sense.
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
    opened = Source.at(path)
    chosen = formats.named(format) if format else formats.detect(opened)
    return chosen.read(opened)


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
        trace = formats.named(format or sample.format).read(Source(path, name))
    steps = (f"cut: {sample.says}",)
    return Trace(trace.frame, msgspec.structs.replace(trace.provenance, steps=steps))
