"""What a trace format is: two functions and two sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of file is recognised by its first 64 KiB, read and, maybe, written.

    `says` tells what it is, `by` what it is recognised by ("the columns a and b"). `write` puts
    what the format can hold of a trace into a new file, and returns a sentence for each thing that
    it cannot hold.
    """

    sniff: Callable[[bytes], bool]
    read: Callable[[Source], Trace]
    says: str
    by: str = ""
    write: Callable[[Trace, Path], list[str]] | None = None
