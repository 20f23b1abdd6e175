"""What the servers of a run said of themselves: a long table, one row a sample.

    server/000001.arrow   samples of a second or less each, while running
    server.parquet        all of them as one table, once the run has ended

A sample is written when it differs from the one before, so a reader fills forward; `up` says at
every scrape whether the server answered. A run that was killed reads the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from servescope.traces.errors import NotARun, OutputFailed

FOLDER, TABLE = "server", "server.parquet"
HOST = "host"  # what stands for a replica in samples of the client's own machine

SCHEMA: dict[str, pl.DataType] = {
    "t_s": pl.Float64(),
    "replica": pl.String(),
    "name": pl.String(),
    "labels": pl.String(),
    "value": pl.Float64(),
}


class Sample(NamedTuple):
    """A value at a moment of the run (s); None once the server says the series no more."""

    t_s: float
    replica: str
    name: str
    labels: str
    value: float | None


class Known(NamedTuple):
    """How a quantity is made: of the first of `names` that a server says, over all its labels.

    Names joined by + are added up.
    """

    how: Literal["sum", "mean"]
    names: tuple[str, ...]


# Queries and hits are tokens of prompts; those after the gauges only ever grow.
KNOWN: dict[str, Known] = {
    "running": Known(
        "sum",
        (
            "vllm:num_requests_running",
            "sglang:num_running_reqs",
            "llamacpp:requests_processing",
            "tgi_batch_current_size",
        ),
    ),
    "waiting": Known(
        "sum",
        (
            "vllm:num_requests_waiting",
            "sglang:num_queue_reqs",
            "llamacpp:requests_deferred",
            "tgi_queue_size",
        ),
    ),
    "kv_usage": Known(
        "mean",
        (
            "vllm:kv_cache_usage_perc",  # a share, in spite of its name
            "vllm:gpu_cache_usage_perc",
            "sglang:token_usage",
            "llamacpp:kv_cache_usage_ratio",
        ),
    ),
    "prefix_hits": Known(
        "sum",
        (
            "vllm:prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
            "sglang:cached_tokens_total",
            "llamacpp:prompt_tokens_cached_total",
        ),
    ),
    "prefix_queries": Known(
        "sum",
        (
            "vllm:prefix_cache_queries_total",
            "vllm:gpu_prefix_cache_queries_total",
            "sglang:prompt_tokens_total",
            "llamacpp:prompt_tokens_total+llamacpp:prompt_tokens_cached_total",
        ),
    ),
    "preemptions": Known(
        "sum", ("vllm:num_preemptions_total", "sglang:num_retracted_requests_total")
    ),
    "generation_tokens": Known(
        "sum",
        (
            "vllm:generation_tokens_total",
            "sglang:generation_tokens_total",
            "llamacpp:tokens_predicted_total",
            "tgi_request_generated_tokens_sum",
        ),
    ),
    "queue_s": Known(
        "sum",
        (
            "vllm:request_queue_time_seconds_sum",
            "sglang:queue_time_seconds_sum",
            "tgi_request_queue_duration_sum",
        ),
    ),
    "queued": Known(
        "sum",
        (
            "vllm:request_queue_time_seconds_count",
            "sglang:queue_time_seconds_count",
            "tgi_request_queue_duration_count",
        ),
    ),
}
GAUGES = ("running", "waiting", "kv_usage")
COUNTERS = tuple(name for name in KNOWN if name not in GAUGES)
KNOWN_NAMES = frozenset(
    part for known in KNOWN.values() for name in known.names for part in name.split("+")
)
# SGLang says a count once in all (priority="") and once more for each priority.
_PART_OF_ANOTHER = re.compile(r"(?:^|,)priority=[^,]")


def live(series: Mapping[tuple[str, str], float | None]) -> dict[str, float]:
    """Return the known quantities that a server's series say, by (name, labels) as in the table.

    What the server does not say is left out.
    """
    said: dict[str, list[float]] = {}
    for (name, labels), value in series.items():
        if value is not None and name in KNOWN_NAMES and not _PART_OF_ANOTHER.search(labels):
            said.setdefault(name, []).append(value)
    found: dict[str, float] = {}
    for quantity, (how, names) in KNOWN.items():
        for name in names:
            parts = name.split("+")
            if all(part in said for part in parts):
                values = [value for part in parts for value in said[part]]
                found[quantity] = sum(values) / (len(values) if how == "mean" else 1)
                break
    return found


def labels_text(labels: Mapping[str, str]) -> str:
    """Write labels as `name=value,name=value`, sorted; commas in values have a backslash."""
    return ",".join(f"{name}={_escaped(labels[name])}" for name in sorted(labels))


def labels_of(text: str) -> dict[str, str]:
    """Read labels that `labels_text` wrote."""
    pairs = re.findall(r"([^=,]+)=((?:\\.|[^\\,])*)", text, re.DOTALL)
    return {name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in pairs}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")


class Journal:
    """Samples on their way to a run directory; `flush` writes those that came since the last.

    Raises OutputFailed if the disk does not take them.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER
        self._rows: list[Sample] = []
        self._next: int | None = None

    def append(self, samples: Iterable[Sample]) -> None:
        """Take samples."""
        self._rows += samples

    def flush(self) -> None:
        """Write what came as the next segment, whole or not at all."""
        if not self._rows:
            return
        table = pl.DataFrame(self._rows, schema=SCHEMA, orient="row")
        try:
            self._folder.mkdir(exist_ok=True)
            if self._next is None:
                taken = (int(path.stem) for path in self._folder.glob("*.arrow"))
                self._next = 1 + max(taken, default=0)
            partial = self._folder / f"{self._next:06d}.part"
            table.write_ipc(partial, compression="uncompressed")
            os.replace(partial, partial.with_suffix(".arrow"))
        except OSError as error:
            raise OutputFailed.of(self._folder, error) from None
        self._next += 1
        self._rows = []


def read(run: Path) -> pl.DataFrame | None:
    """Return the samples of a run in the order in which they were taken, or None if it has none.

    Raises NotARun for a file that cannot be read.
    """
    sealed = [run / TABLE] if (run / TABLE).exists() else []
    segments = segments_of(run)
    if not sealed and not segments:
        return None
    tables = [read_file(path) for path in (*sealed, *segments)]
    table = pl.concat(tables)
    if sealed and segments:  # a kill between writing the one and removing the others
        table = table.unique(maintain_order=True)
    return table.sort("t_s", maintain_order=True)


def seal(run: Path) -> None:
    """Make one server.parquet of a run's segments, if it has any, and remove them."""
    folder = run / FOLDER
    segments = segments_of(run)
    table = read(run) if segments else None
    try:
        if table is not None:
            partial = run / f"{TABLE}.part"
            table.write_parquet(partial, compression="zstd")
            os.replace(partial, run / TABLE)
        for path in (*segments, *folder.glob("*.part")):
            path.unlink()
        if folder.is_dir():
            folder.rmdir()
    except OSError as error:
        raise OutputFailed.of(run / TABLE, error) from None


def segments_of(run: Path) -> list[Path]:
    """Return the Arrow files of a run that has not been sealed, in order."""
    return sorted((run / FOLDER).glob("*.arrow"))


def read_file(path: Path) -> pl.DataFrame:
    """Return the samples of one file; raises NotARun if it cannot be read."""
    scan = pl.scan_parquet if path.suffix == ".parquet" else pl.scan_ipc
    try:
        return scan(path, glob=False).select(pl.col(n).cast(t) for n, t in SCHEMA.items()).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        wrong = f"{path} cannot be read: {str(error).split(chr(10))[0]}."
        raise NotARun(wrong, "Move it away: the calls of the run stand in other files.") from None
