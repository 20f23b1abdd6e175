"""Results of other benchmark tools: one small file a tool, all of them in this table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from servescope.traces.errors import InputError, NotAResult
from servescope.traces.formats.source import File
from servescope.traces.results import aiperf, guidellm, vllm
from servescope.traces.results.result import Result
from servescope.traces.results.tool import Tool

__all__ = ["TOOLS", "Result", "Tool", "named", "read", "recognise"]

TOOLS = {
    "vllm": vllm.TOOL,
    "aiperf": aiperf.TOOL,
    "guidellm": guidellm.TOOL,
}
# What stands before the first field that tells may be long.
_HEADS = (1 << 16, 1 << 20)


def named(name: str) -> Tool:
    """Return the tool called `name`; raises InputError if there is none."""
    if name not in TOOLS:
        raise InputError(f"There is no tool '{name}'.", f"Known: {', '.join(TOOLS)}.")
    return TOOLS[name]


def recognise(file: File) -> str:
    """Return the name of the tool that a file is a result of; raises NotAResult if of none."""
    for size in _HEADS:
        head = file.head(size)
        for name, tool in TOOLS.items():
            if tool.sniff(head):
                return name
    looks = (
        "It is empty." if not head else f"It begins with {head[:60].decode(errors='replace')!r}."
    )
    known = "; ".join(f"{tool.title}: {tool.says}" for tool in TOOLS.values())
    raise NotAResult(f"{file.name} is no result that servescope knows. {looks}", f"Known: {known}.")


def read(path: Path, tool: str | None = None) -> list[Result]:
    """Read a result file: one result for each benchmark in it.

    `tool` is one of TOOLS; None recognises it by content. Raises NotAResult for a file without
    calls of a known tool, BadRow for one that is damaged, InputError for none.
    """
    if path.is_dir():
        raise InputError(
            f"{path} is a folder.",
            "Give the file in it: profile_export.jsonl of AIPerf, benchmarks.json of GuideLLM.",
        )
    if not path.exists():
        raise InputError(f"{path} does not exist.", "Check the path.")
    file = File(path, path.name)
    chosen = named(tool or recognise(file))
    return [
        dataclasses.replace(
            result,
            title=chosen.title,
            file=file.name,
            sha256=file.sha256,
            doubts=(*_other_version(chosen, result.version), *result.doubts),
        )
        for result in chosen.read(file)
    ]


def _other_version(tool: Tool, version: str | None) -> tuple[str, ...]:
    """Return the doubt about a file of a version that nobody looked at."""
    if version in (None, tool.checked):
        return ()
    return (
        f"{tool.title} {version} wrote the file, and its reader was checked against"
        f" {tool.checked}: stamps may mean something else.",
    )
