"""A tool whose results are read: how its files are recognised, and how they become results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from servescope.traces.formats.source import File
from servescope.traces.results.result import Result


@dataclass(frozen=True, slots=True)
class Tool:
    """A benchmark tool: its name for a person, and how the files that it leaves are read.

    `sniff` is given the first bytes of a file, unpacked, and `read` returns one result a benchmark
    that the file holds. `checked` is the version that the reader was checked against.
    """

    title: str
    checked: str
    sniff: Callable[[bytes], bool]
    read: Callable[[File], list[Result]]
    says: str
