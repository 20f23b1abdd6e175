"""A run: a directory that holds what was asked, what was planned, and what came back.

    experiment.toml   what was asked
    run.json          versions, host, seeds, probe, validity, doubts
    plan.parquet      what was to be sent, before the first byte
    calls/            what came back, in Arrow files of a second or less, while running
    sent-*.log        which calls were sent, each worker its own, while running
    calls.parquet     what came back as one table, once the run has ended
    server/, server.parquet   what the servers said of themselves, likewise
    live.json         how it goes (`traces.live`), while running

A run that was killed keeps every call that had ended a second before, and reads the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl
import tomli_w

from servescope.traces import atomic, sent_log, server
from servescope.traces.errors import NotARun, OutputExists, OutputFailed
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.status import LOST, NOT_SENT
from servescope.traces.trace import Trace

STOPPED = "not sent: the run stopped before it was due"

Validity = Literal["unfinished", "valid", "suspect", "invalid"]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run came from that another tool made: which benchmark (`part`) of which file.

    `load` is what the tool was told of when to send, and `date` the moment that it writes, as it
    writes it. `known_by` says what the file shows of the requests: their prompts, only their
    lengths, or (None) nothing that tells them apart.
    """

    tool: str
    file: str
    sha256: str
    version: str | None = None
    part: str | None = None
    date: str | None = None
    load: dict[str, Any] = {}
    known_by: Literal["prompts", "lengths"] | None = None


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What run.json holds: everything about a run that is not a row of it.

    `ended` is null until the run has ended; `interrupted` says that somebody stopped it early.
    `zero_monotonic_s` and `zero_unix_s` are the run's second 0 on the host's two clocks;
    `resumed_s` are the seconds at which a run that had stopped went on. What the file of an
    `imported` run does not say is null, its start and its seed too. `system_sha256` is the digest
    of the Python file that the system was defined in.
    """

    name: str
    system: str
    clock: Literal["real", "virtual"]
    version: str
    started: str | None
    seed: int | None
    slo: str | None = None
    warmup_s: float = 0.0
    ended: str | None = None
    interrupted: bool = False
    duration_s: float | None = None
    resumed_s: tuple[float, ...] = ()
    zero_monotonic_s: float | None = None
    zero_unix_s: float | None = None
    plan_sha256: str | None = None
    trace: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    planned_calls: int = 0
    model: str | None = None
    system_sha256: str | None = None
    endpoint: str | None = None
    host: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    workload: dict[str, Any] = {}
    client: dict[str, Any] = {}
    imported: Imported | None = None
    validity: Validity = "unfinished"
    doubts: tuple[str, ...] = ()


@dataclass
class Run:
    """A run directory."""

    path: Path
    _next: int | None = field(default=None, compare=False, repr=False)  # number of the next segment

    @classmethod
    def create(
        cls, path: Path, experiment: dict[str, Any], plan: pl.DataFrame, info: RunInfo
    ) -> Run:
        """Make a new run directory.

        Raises OutputExists if there is anything at `path`, OutputFailed if it cannot be written.
        """
        refuse_taken(path)
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path / "experiment.toml", tomli_w.dumps(experiment).encode())
            plan.write_parquet(path / "plan.parquet")
            run.write_info(info)
        except OSError as error:
            raise OutputFailed.of(path, error) from None
        run.__dict__["plan"] = plan  # as it would be read
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a run directory; raises NotARun if `path` is none."""
        if not path.exists():
            raise NotARun(f"{path} does not exist.", "Check the path.")
        if not (path / "run.json").is_file():
            raise NotARun(
                f"{path} is not a run directory: it holds no run.json.",
                "Give the --out folder of replay, simulate or demo.",
            )
        return cls(path)

    @cached_property
    def info(self) -> RunInfo:
        """What run.json says."""
        try:
            return msgspec.json.decode((self.path / "run.json").read_bytes(), type=RunInfo)
        except msgspec.DecodeError as error:
            raise NotARun(
                f"{self.path / 'run.json'} cannot be read: {error}.",
                "It was damaged or written by another version; run the experiment again.",
            ) from None

    @cached_property
    def plan(self) -> pl.DataFrame:
        """What was to be sent, one row a call."""
        return self.planned("*")

    def planned(self, *columns: str) -> pl.DataFrame:
        """Return columns of the plan without reading the others; raises NotARun if it cannot."""
        path = self.path / "plan.parquet"
        try:
            return pl.scan_parquet(path, glob=False).select(columns).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            wrong = f"{path} cannot be read: {str(error).split(chr(10))[0]}."
            raise NotARun(wrong, "Run the experiment again.") from None

    @cached_property
    def rows(self) -> pl.LazyFrame:
        """What came back, one row a call in no order, even if the run was killed."""
        return self._sealed() if (self.path / "calls.parquet").exists() else self._so_far()

    @cached_property
    def trace(self) -> Trace:
        """What came back, in the order of due times."""
        provenance = Provenance(format="run", source=str(self.path), kind="measured")
        return Trace.of(self.rows.sort("due_s", "call_id", nulls_last=True), provenance)

    @property
    def measured(self) -> Trace:
        """What counts of the run: its trace without the programs that began in the warm-up."""
        if not self.info.warmup_s:
            return self.trace
        frame = self.trace.frame
        begun = pl.col("due_s").min().over(pl.coalesce("program_id", "call_id"))
        return Trace.of(frame.filter(begun >= self.info.warmup_s), self.trace.provenance)

    def without_warmup(self, warmup_s: float) -> Run:
        """Return the same run with so much of its beginning left out of every number."""
        trimmed = Run(self.path)
        trimmed.__dict__["info"] = msgspec.structs.replace(self.info, warmup_s=warmup_s)
        return trimmed

    @cached_property
    def server(self) -> pl.DataFrame | None:
        """What the servers said of themselves, as `traces.server` has it; None if unasked."""
        return server.read(self.path)

    @property
    def segments(self) -> list[Path]:
        """The Arrow files of a run that has not been sealed, in order."""
        return sorted((self.path / "calls").glob("*.arrow"))

    def append(self, rows: pl.DataFrame) -> None:
        """Write rows as the next segment, whole or not at all; raises OutputFailed."""
        folder = self.path / "calls"
        try:
            folder.mkdir(exist_ok=True)
            if self._next is None:
                self._next = 1 + max((int(path.stem) for path in self.segments), default=0)
            partial = folder / f"{self._next:06d}.part"
            rows.write_ipc(partial, compression="uncompressed")
            os.replace(partial, partial.with_suffix(".arrow"))
        except OSError as error:
            raise OutputFailed.of(folder, error) from None
        self._next += 1
        self._forget()

    def write_info(self, info: RunInfo) -> None:
        """Replace run.json at once or not at all."""
        atomic.write_json(self.path / "run.json", info)
        self.__dict__.pop("info", None)

    def seal(self, info: RunInfo) -> None:
        """End the run: make one calls.parquet of its segments and write the last run.json."""
        partial = self.path / "calls.parquet.part"
        try:
            self._so_far().sink_parquet(partial, compression="zstd")
            os.replace(partial, self.path / "calls.parquet")
            self._forget()
            self.write_info(info)
            for old in (*self.segments, *sent_log.logs_of(self.path)):
                old.unlink()
            if (self.path / "calls").is_dir():
                (self.path / "calls").rmdir()
        except OSError as error:
            raise OutputFailed.of(self.path, error) from None
        server.seal(self.path)
        self.__dict__.pop("server", None)

    def unseal(self) -> None:
        """Open a run again that was stopped or killed, so that what was not sent can be appended.

        What was in flight becomes rows that are lost; the rows of calls that were never sent, only
        because the run stopped, go; everything else stays as it was.
        """
        stopped = (pl.col("error") == STOPPED).fill_null(False)
        known = self.trace.frame.filter(~stopped).select(RUN_COLUMNS).collect()
        old = (*self.segments, *sent_log.logs_of(self.path))
        self.append(known)
        for path in (*old, self.path / "calls.parquet"):
            path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        """Let what was read be read again."""
        for name in ("rows", "trace"):
            self.__dict__.pop(name, None)

    def _sealed(self) -> pl.LazyFrame:
        path = self.path / "calls.parquet"
        try:
            frame = pl.scan_parquet(path, glob=False)
            frame.collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            wrong = f"{path} cannot be read: {str(error).split(chr(10))[0]}."
            raise NotARun(wrong, "Run the experiment again.") from None
        return frame

    def _so_far(self) -> pl.LazyFrame:
        """Return what ended, what was in flight, and the rest of every program that had begun."""
        segments = self.segments
        if not segments:
            ended = frame_of_rows([]).lazy()
        else:
            ended = pl.concat([segment(path) for path in segments])
        known = ended.select("call_id", "program_id").collect()
        plan = self.plan.with_row_index("number")
        unknown = plan.join(known, on="call_id", how="anti")
        sent = sent_log.read(self.path)
        was_sent = pl.col("number").is_in(pl.Series(list(sent), dtype=pl.UInt32).implode())
        flying = unknown.filter(was_sent)
        lost = flying.select(
            *PLANNED,
            status=pl.lit(LOST),
            error=pl.lit("the client died while the call was in flight"),
            due_s="due_s",
            dispatched_s=pl.col("number").replace_strict(sent, return_dtype=pl.Float64),
        )
        begun = pl.concat([known["program_id"], flying["program_id"]]).unique().implode()
        rest = unknown.filter(pl.col("program_id").is_in(begun) & ~was_sent).select(
            *PLANNED, status=pl.lit(NOT_SENT), error=pl.lit(STOPPED)
        )
        return pl.concat([ended, lost.lazy(), rest.lazy()], how="diagonal_relaxed")


def refuse_taken(path: Path) -> None:
    """Raise OutputExists if there is anything at `path`: nothing is ever overwritten silently."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputExists(
            f"{path} exists already and is not empty.",
            "Choose another --out, or remove it first; a run is never overwritten.",
        )


def segment(path: Path) -> pl.LazyFrame:
    """Return the rows of one of `Run.segments`; raises NotARun if it cannot be read."""
    try:
        frame = pl.scan_ipc(path, glob=False)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        wrong = f"{path} cannot be read: {str(error).split(chr(10))[0]}."
        raise NotARun(wrong, "Move it away: the other segments are whole.") from None
    return frame


# What a plan and a run both hold of a call.
PLANNED = ("call_id", "program_id", "turn", "parents", "delay_s", "input_tokens")
RUN_COLUMNS = tuple(
    name
    for name in SCHEMA
    if name not in ("prefix_blocks", "observed_ttft_s", "observed_e2e_s", "content_ref")
)


def frame_of_rows(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Make the canonical table of a run from its rows; absent keys become null."""
    return pl.DataFrame(list(rows), schema={name: SCHEMA[name] for name in RUN_COLUMNS})
