"""A run: a directory that holds what was asked, what was planned, and what came back.

    experiment.toml   what was asked
    run.json          versions, host, seeds, probe, validity, doubts
    plan.parquet      what was to be sent, before the first byte
    calls.jsonl       what came back, one line a call, appended while running
    calls.parquet     the same as a table, once the run has ended

The lines are the truth: a run that was killed keeps every call that had ended, and reads the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl
import tomli_w

from servescope.traces.errors import NotARun, OutputExists, OutputFailed
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.status import NOT_SENT
from servescope.traces.trace import Trace

Validity = Literal["unfinished", "valid", "suspect", "invalid"]


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What run.json holds: everything about a run that is not a row of it.

    `ended` is null until the run has ended; `interrupted` says that somebody stopped it early.
    """

    name: str
    system: str
    clock: Literal["real", "virtual"]
    version: str
    started: str
    seed: int
    slo: str | None = None
    ended: str | None = None
    interrupted: bool = False
    duration_s: float | None = None
    plan_sha256: str | None = None
    trace: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    planned_calls: int = 0
    model: str | None = None
    endpoint: str | None = None
    host: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    workload: dict[str, Any] = {}
    client: dict[str, Any] = {}
    validity: Validity = "unfinished"
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run directory."""

    path: Path

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
            run._write("experiment.toml", tomli_w.dumps(experiment).encode())
            plan.write_parquet(path / "plan.parquet")
            run.write_info(info)
        except OSError as error:
            raise OutputFailed.of(path, error) from None
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

    @property
    def journal(self) -> Path:
        """The file that ended calls are appended to, a JSON line each."""
        return self.path / "calls.jsonl"

    @cached_property
    def plan(self) -> pl.DataFrame:
        """What was to be sent, one row a call."""
        return self._read("plan.parquet", "Run the experiment again.")

    @cached_property
    def trace(self) -> Trace:
        """What came back, one row a call in the canonical columns, even if the run was killed."""
        if (self.path / "calls.parquet").exists():
            frame = self._read("calls.parquet", "Delete it: calls.jsonl holds the same.")
        else:
            frame = self._replay_journal()
        provenance = Provenance(format="run", source=str(self.path), kind="measured")
        return Trace.of(frame, provenance)

    def write_info(self, info: RunInfo) -> None:
        """Replace run.json at once or not at all."""
        self._write("run.json", msgspec.json.format(msgspec.json.encode(info), indent=2))
        self.__dict__.pop("info", None)

    def seal(self, info: RunInfo) -> None:
        """End the run: turn the journal into calls.parquet and write the last run.json."""
        partial = self.path / "calls.parquet.part"
        self._replay_journal().write_parquet(partial)
        os.replace(partial, self.path / "calls.parquet")
        self.__dict__.pop("trace", None)
        self.write_info(info)

    def _replay_journal(self) -> pl.DataFrame:
        """Return what ended, and the rest of every program that had begun as calls not sent."""
        lines = self.journal.read_bytes().splitlines() if self.journal.exists() else []
        ended = frame_of_rows(_decoded(lines))
        rest = self.plan.join(ended, on="program_id", how="semi").join(
            ended, on="call_id", how="anti"
        )
        not_sent = rest.select(
            *PLANNED,
            status=pl.lit(NOT_SENT),
            error=pl.lit("not sent: the run stopped before it was due"),
        )
        table = pl.concat([ended, not_sent], how="diagonal_relaxed")
        return table.sort("due_s", "call_id", nulls_last=True)

    def _read(self, name: str, mend: str) -> pl.DataFrame:
        try:
            return pl.read_parquet(self.path / name, glob=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            wrong = f"{self.path / name} cannot be read: {str(error).split(chr(10))[0]}."
            raise NotARun(wrong, mend) from None

    def _write(self, name: str, content: bytes) -> None:
        partial = self.path / f"{name}.part"
        partial.write_bytes(content)
        os.replace(partial, self.path / name)


def refuse_taken(path: Path) -> None:
    """Raise OutputExists if there is anything at `path`: nothing is ever overwritten silently."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputExists(
            f"{path} exists already and is not empty.",
            "Choose another --out, or remove it first; a run is never overwritten.",
        )


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


def _decoded(lines: list[bytes]) -> Iterable[dict[str, Any]]:
    decoder = msgspec.json.Decoder(_LINE)
    for number, line in enumerate(lines, start=1):
        try:
            yield msgspec.structs.asdict(decoder.decode(line))
        except msgspec.DecodeError as error:
            if number < len(lines):  # only the last line can be torn by a kill
                raise NotARun(
                    f"Line {number} of calls.jsonl is damaged: {error}.",
                    "Restore the file, or run again.",
                ) from None


# Lines are decoded by type: a damaged value is refused, an integer may stand for a float.
_JSON: dict[pl.DataType, Any] = {
    pl.String(): str | None,
    pl.Int64(): int | None,
    pl.Float64(): float | None,
    pl.List(pl.String()): list[str] | None,
    pl.List(pl.Int64()): list[int | None] | None,
    pl.List(pl.Float64()): list[float] | None,
}
_LINE = msgspec.defstruct("Line", [(name, _JSON[SCHEMA[name]], None) for name in RUN_COLUMNS])
