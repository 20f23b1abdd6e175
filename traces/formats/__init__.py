"""The trace formats: one small file each, all of them in this table.

Another package adds one by an entry point of the group `servescope.formats` that names a `Format`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from servescope.traces.errors import InputError, NotATrace
from servescope.traces.formats import azure, burstgpt, canonical, mooncake
from servescope.traces.formats.source import Source
from servescope.traces.plugins import installed
from servescope.traces.trace import Trace

__all__ = ["BUILT_IN", "Format", "Source", "detect", "formats", "named"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of file is recognised by its first 64 KiB, and read."""

    sniff: Callable[[bytes], bool]
    read: Callable[[Source], Trace]
    says: str


BUILT_IN = {
    "burstgpt": Format(burstgpt.sniff, burstgpt.read, "BurstGPT CSV v1, v2 and v3 (with sessions)"),
    "azure": Format(azure.sniff, azure.read, "Azure LLM inference CSV, 2023 and 2024"),
    "mooncake": Format(mooncake.sniff, mooncake.read, "Mooncake JSON lines with prefix blocks"),
    "canonical": Format(canonical.sniff, canonical.read, "servescope's own Parquet"),
}


def formats() -> dict[str, Format]:
    """Return every known format by name, built in or from an entry point.

    Strangers are asked first, so that a dialect of a built-in format can be recognised.
    """
    return installed("servescope.formats", BUILT_IN)


def named(name: str) -> Format:
    """Return the format called `name`; raises InputError if there is none."""
    known = BUILT_IN if name in BUILT_IN else formats()
    if name not in known:
        raise InputError(f"There is no trace format '{name}'.", f"Known: {', '.join(known)}.")
    return known[name]


def detect(source: Source) -> Format:
    """Return the format that recognises `source`; raises NotATrace if none does."""
    head = source.head
    for form in formats().values():
        if form.sniff(head):
            return form
    if b"\0" in head:
        looks = "It is a binary file."
    else:
        first = head.split(b"\n", 1)[0].decode(errors="replace").strip()
        looks = f"Its first line is {first[:100]!r}."
    raise NotATrace(
        f"{source.name} is in no trace format that servescope knows. {looks}",
        f"Known: {', '.join(formats())}; name one with --format to see what it misses.",
    )
