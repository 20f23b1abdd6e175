"""Continuum: what its client measured when it replayed agents, and how long whole jobs took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import polars as pl

from servescope.traces.formats import clock, jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.status import FAILED, OK
from servescope.traces.trace import Trace

REPLAYED = (
    "These calls were measured on a system under test: they arrived when its client sent them, as"
    " fast as that system let it."
)
WHOLE_JOBS = (
    "Each row is a whole job, not a call: how long it took is all that is known of it (also in the"
    " table job_durations)."
)
# What a double of epoch seconds can tell apart in our days.
_EPOCH_TICK_S = 2.0**-22
_LATEST_NS = 2**63  # in the year 2262


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Round(msgspec.Struct):
    request_start_time: float
    request_latency_s: float | None = None
    execution_time_seconds: float | None = None
    ok: bool | None = None
    error: str | None = None
    output: str | None = None
    usage: _Usage | None = None


class _Trajectory(msgspec.Struct):
    traj_id: str
    rounds: list[_Round] = []
    interrupted: bool = False


class _Config(msgspec.Struct):
    model_name: str | None = None


class _Document(msgspec.Struct):
    """A client log has trajectories, a file of results has durations."""

    results: list[_Trajectory] = []
    job_durations: dict[str, float] = {}
    config: _Config | None = None


def sniff(head: bytes) -> bool:
    """Recognise the rounds of a client log, or the durations of jobs."""
    found = peek.paths(head)
    return found >= {"num_jobs", "job_durations"} or found >= {
        "results[].traj_id",
        "results[].rounds[].request_start_time",
    }


def read(source: Source) -> Trace:
    """Read client logs, a call a round, or results, a row a job."""
    runs = _Runs(source)
    timed = any("results[]" in peek.paths(file.head()) for file in source.files)
    trace = gather(
        source,
        tabulate(source, runs.calls(), *runs.COLUMNS, *(runs.OF_CALLS if timed else ())),
        check_links=True,
        format="continuum",
        kind="measured",
        t0=lambda ns: f"{clock.text_of(ns)} UTC",
        clock="utc" if timed else None,
        units="epoch seconds" if timed else "seconds",
        tick_s=_EPOCH_TICK_S if timed else None,
        inferred={"parents": "the order of the rounds in a trajectory"} if timed else {},
    )
    if runs.durations:
        trace = replace(trace, tables={**trace.tables, "job_durations": runs.table()})
    return trace.doubting(*runs.doubts())


@dataclass
class _Runs:
    """Turns the documents of a source into calls, one document at a time."""

    COLUMNS = ("program_id", "input_tokens", "output_tokens", "observed_e2e_s", "parents")
    OF_CALLS = (
        *("stamp_ns", "turn", "model", "delay_s", "delay_kind"),
        *("status", "error", "output_text"),
    )
    source: Source
    trajectories: int = 0
    interrupted: int = 0
    durations: list[tuple[str, float]] = field(default_factory=list)

    def calls(self) -> Iterator[dict[str, Any]]:
        row = 0
        for file, document in jsonl.documents(self.source, _Document):
            model = document.config.model_name if document.config else None
            self.source.begin(file, row + 1, unit="round" if document.results else "job")
            for trajectory in document.results:
                yield from self._trajectory(row, trajectory, model)
                row += len(trajectory.rounds)
            for job, duration in document.job_durations.items():
                row += 1
                if self._is_sound(row, duration):
                    self.durations.append((job, duration))
                    yield {
                        "source_row": row,
                        "program_id": job,
                        "observed_e2e_s": duration,
                        "parents": [],
                    }

    def doubts(self) -> list[str]:
        """Say what the rows are, and that some trajectories are not whole."""
        doubts = [REPLAYED] if self.trajectories else []
        if self.interrupted:
            doubts.append(
                f"{self.interrupted} of {self.trajectories} trajectories were interrupted: their"
                " last rounds are missing."
            )
        return [*doubts, WHOLE_JOBS] if self.durations else doubts

    def table(self) -> pl.LazyFrame:
        """Return how long the jobs took."""
        types = {"job_id": pl.String, "duration_s": pl.Float64}
        return pl.DataFrame(self.durations, schema=types, orient="row").lazy()

    def _is_sound(self, row: int, duration: float) -> bool:
        if duration >= 0:
            return True
        self.source.reject(
            row,
            f"the job took {duration} s.",
            "Durations are 0 or more; mend the file.",
            reason="duration is negative",
        )
        return False

    def _trajectory(
        self, row: int, trajectory: _Trajectory, model: str | None
    ) -> Iterator[dict[str, Any]]:
        self.trajectories += 1
        self.interrupted += trajectory.interrupted
        before: _Round | None = None
        for turn, line in enumerate(trajectory.rounds):
            row += 1
            stamp = clock.from_number(line.request_start_time, "s")
            if stamp is None or abs(stamp) >= _LATEST_NS:
                self.source.reject(
                    row,
                    f"its `request_start_time` {line.request_start_time} is no moment before the"
                    " year 2262.",
                    "It is in epoch seconds; mend the file.",
                    reason="request_start_time is no moment",
                )
                before = None
                continue
            usage = line.usage or _Usage()
            failed = line.ok is False
            call: dict[str, Any] = {
                "source_row": row,
                "program_id": trajectory.traj_id,
                "turn": turn,
                "stamp_ns": stamp,
                "model": model,
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
                "status": None if line.ok is None else FAILED if failed else OK,
                "error": line.error or None,
                # The latency of a failure (often under 1 ms) is none of the system's.
                "observed_e2e_s": None if failed else line.request_latency_s,
                "output_text": line.output or None,
                "parents": [str(row - 1)] if turn else [],
            }
            if before is not None:
                call |= {"delay_s": before.execution_time_seconds, "delay_kind": "tool"}
            yield call
            before = line


FORMAT = Format(
    sniff,
    read,
    "Continuum client logs and job durations, JSON",
    "the fields results[].traj_id and results[].rounds[].request_start_time, or num_jobs and"
    " job_durations",
)
