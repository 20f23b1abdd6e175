"""One benchmark of another tool's result file, and the run directory that it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.results import requests
from servescope.traces.results.document import MEND
from servescope.traces.run import Imported, Run, RunInfo, frame_of_rows
from servescope.traces.schema import MOMENTS
from servescope.traces.status import OK

UNCHECKED: Final = (
    "Nobody checked the client: how late {tool} itself sent and stamped is not known, and may be in"
    " every latency."
)
BY_LENGTHS: Final = (
    "{tool} kept no prompts here: that another run was sent the same ones is concluded from their"
    " lengths, in order."
)
# In this order they come, as far as they are known.
_ORDER: Final = ("sent_s", "first_byte_s", "first_token_s", "last_token_s", "end_s")
_ROUNDING_S: Final = 1e-6
_LOGIN: Final = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a file says of one benchmark: its calls, and what is around them.

    `calls` and `plan` are tables of a run, as `of` makes them. `started_ns` is the moment of second
    0 in Unix time and `date` what the file calls its moment, as it writes it. What a tool does not
    record is None. `title`, `file` and `sha256` say who wrote which file.
    """

    tool: str
    calls: pl.DataFrame
    plan: pl.DataFrame
    part: str | None = None
    version: str | None = None
    model: str | None = None
    endpoint: str | None = None
    seed: int | None = None
    started_ns: int | None = None
    date: str | None = None
    warmup_s: float = 0.0
    load: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    title: str = ""
    file: str = ""
    sha256: str = ""

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, Any]], where: str, *, planned: bool = False, **facts: Any
    ) -> Result:
        """Make a result of its calls, one row each in the order in which they were sent.

        Rows have canonical columns of a run, moments in seconds since the first due call, and
        beside them `prompt_sha256` where the prompt is known and `asked_tokens` where the length
        of the answer that was asked for is. `planned` says that due moments are those of a
        timetable. Raises BadRow for stamps that make no sense.
        """
        calls = frame_of_rows({**row, "arrival_s": row["due_s"]} for row in rows)
        _check(calls, where)
        return cls(calls=calls, plan=_plan(calls, rows, planned), **facts)

    @property
    def known_by(self) -> Literal["prompts", "lengths"] | None:
        """What the file shows of its requests."""
        return requests.known_by(self.plan)

    def info(self, name: str) -> RunInfo:
        """Return what is known of the run besides its rows."""
        imported = Imported(
            tool=self.tool,
            file=self.file,
            sha256=self.sha256,
            version=self.version,
            part=self.part,
            date=self.date,
            load=_plain(dict(self.load)),
            known_by=self.known_by,
        )
        doubts = [UNCHECKED.format(tool=self.title), *self.doubts]
        if self.known_by == "lengths":
            doubts.append(BY_LENGTHS.format(tool=self.title))
        sizes = self.calls.group_by("program_id").len()["len"]
        last_s = self.calls.select(pl.max_horizontal("end_s", "last_token_s").max()).item()
        return RunInfo(
            name=name,
            system=name,
            clock="real",
            version=version("servescope"),
            started=_utc(self.started_ns, 0.0),
            ended=_utc(self.started_ns, last_s),
            seed=self.seed,
            warmup_s=self.warmup_s,
            duration_s=last_s,
            zero_unix_s=None if self.started_ns is None else self.started_ns / 1e9,
            plan_sha256=requests.digest(self.plan, imported),
            asked=dict(self.asked),
            planned_calls=self.calls.height,
            model=self.model,
            endpoint=self.endpoint and _LOGIN.sub("//", self.endpoint),
            host=dict(self.host),
            workload={
                "programs": len(sizes),
                "multi_turn_programs": int((sizes > 1).sum()),
                "left_out": dict(self.left_out),
            },
            imported=imported,
            validity="suspect",
            doubts=tuple(doubts),
        )

    def write(self, path: Path, name: str) -> Run:
        """Make the run directory at `path` and return the run.

        Raises OutputExists if there is anything at `path`, OutputFailed if it cannot be written.
        """
        info = self.info(name)
        run = Run.create(path, _said(info), self.plan, info)
        run.append(self.calls)
        run.seal(info)
        return run


def _plan(calls: pl.DataFrame, rows: Sequence[Mapping[str, Any]], planned: bool) -> pl.DataFrame:
    """Return what was to be sent, as far as it is known.

    In the order of programs and turns, which does not depend on when answers came. Lengths are
    those of answered first turns: of a failed call the server counted none, and later turns hold
    its own answers.
    """
    first = pl.col("turn") == 0
    return calls.select(
        "call_id",
        "program_id",
        "turn",
        due_s=pl.when(planned & first).then("due_s"),
        parents="parents",
        delay_s="delay_s",
        input_tokens=pl.when((pl.col("status") == OK) & first).then("input_tokens"),
        output_tokens=pl.Series([row.get("asked_tokens") for row in rows], dtype=pl.Int64),
        prompt_sha256=pl.Series([row.get("prompt_sha256") for row in rows], dtype=pl.String),
    ).sort(pl.col("program_id").cast(pl.Int64), "turn")


def _said(info: RunInfo) -> dict[str, Any]:
    """Return what experiment.toml says of a run that no experiment made."""
    assert info.imported is not None
    told = {
        "tool": info.imported.tool,
        "version": info.imported.version,
        "file": info.imported.file,
        "sha256": info.imported.sha256,
        "part": info.imported.part,
        "load": info.imported.load,
    }
    return {"name": info.name, "imported": {k: v for k, v in told.items() if v is not None}}


def _plain(value: Any) -> Any:
    """Return a setting without what it leaves open, and with numbers that a file can hold."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_plain(v) for v in value if v is not None]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def _utc(started_ns: int | None, after_s: float | None) -> str | None:
    if started_ns is None or after_s is None:
        return None
    return datetime.fromtimestamp(started_ns / 1e9 + after_s, UTC).isoformat(timespec="seconds")


def _check(calls: pl.DataFrame, where: str) -> None:
    """Raise BadRow for stamps that are no numbers, or that go backwards."""
    for name in (*MOMENTS, "observed_queue_s"):
        if name not in calls.columns or name == "deadline_s":
            continue
        each = pl.col(name)
        values = each.explode() if calls.schema[name].is_nested() else each
        if not calls.select(values.is_finite().fill_null(True).all()).item():
            raise BadRow(f"{where} has a {name} that is no number.", MEND)
    chunks = pl.col("chunk_s").list
    backwards = chunks.diff(null_behavior="drop").list.min() < -_ROUNDING_S
    for n, earlier in enumerate(_ORDER):
        for later in _ORDER[n + 1 :]:
            backwards = backwards.fill_null(False) | (
                pl.col(later) < pl.col(earlier) - _ROUNDING_S
            ).fill_null(False)
    bad = calls.filter(backwards | (pl.col("sent_s") < 0).fill_null(False))
    if bad.height:
        raise BadRow(
            f"{where} has a call whose stamps go backwards: the one numbered {bad['call_id'][0]}.",
            MEND,
        )
