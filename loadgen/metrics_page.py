"""A page of Prometheus text: its series, and what changed since the page before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from servescope.traces.server import labels_text

MOST_SERIES = 2000
OWN = ("vllm:", "sglang:", "llamacpp:", "tgi_", "servescope_")
RUNTIME = ("python_", "process_", "go_")

Series = tuple[tuple[str, str], float | None]  # name and labels, value
Told = tuple[str, str, float | None]


@dataclass(frozen=True)
class Page:
    """What a server said at once: a series and its value by the line that says it.

    `lines` has None for what is no Prometheus text; `cut` series were more than are kept.
    """

    lines: Mapping[str, Series | None] = field(default_factory=dict)
    cut: int = 0

    @cached_property
    def series(self) -> dict[tuple[str, str], float | None]:
        """The values by name and labels; None is the server's own NaN."""
        return dict(each for each in self.lines.values() if each)

    @property
    def strange(self) -> int:
        """How many lines are no Prometheus text."""
        return sum(each is None for each in self.lines.values())


def read_page(text: str, before: Page) -> Page:
    """Read a page of Prometheus text; lines that stood on the page before are not parsed again."""
    lines = _wanted(text)
    if cut := max(0, len(lines) - MOST_SERIES):
        lines = sorted(lines, key=lambda line: "_bucket{" in line)[:MOST_SERIES]
    known = before.lines
    return Page({line: known[line] if line in known else _parse(line) for line in lines}, cut)


def changes(before: Page, now: Page) -> list[Told]:
    """Return (name, labels, value) of what changed; the value is None for a series that is gone."""
    old, new = before.series, now.series
    fresh = [(*each, value) for each, value in new.items() if old.get(each) != value]
    return [*fresh, *((*each, None) for each in old if each not in new)]


def _wanted(text: str) -> list[str]:
    """Return the lines of samples: the server's own if it is a known one, else all but runtime."""
    named = [
        (line.partition("{")[0].partition(" ")[0], line)
        for line in map(str.strip, text.split("\n"))
        if line and line[0] != "#"
    ]
    named = [(name, line) for name, line in named if not name.endswith("_created")]
    own = [line for name, line in named if name.startswith(OWN)]
    return own or [line for name, line in named if not name.startswith(RUNTIME)]


def _parse(line: str) -> Series | None:
    # not needed before the first call is sent
    from prometheus_client.parser import text_string_to_metric_families

    # without its TYPE line a counter keeps the name that the server gave it
    try:
        ((sample,),) = (family.samples for family in text_string_to_metric_families(line))
        value = float(sample.value)
    except (ValueError, LookupError, ArithmeticError):
        return None
    return (sample.name, labels_text(sample.labels)), None if math.isnan(value) else value
