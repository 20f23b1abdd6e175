"""What a scheduling policy is worth on a suite: one score, and what it is made of."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from servescope.analysis.measured import Measured
from servescope.analysis.score import Score, score_of
from servescope.analysis.slo import SLO
from servescope.loadgen import candidate
from servescope.loadgen.candidate import Failure, Job
from servescope.loadgen.simulate import ORACLE, jct_alone
from servescope.loadgen.suite import Case, Suite
from servescope.loadgen.workload import Workload, workload_of
from servescope.traces.errors import InputError
from servescope.traces.plugin_file import PluginFile
from servescope.traces.run import Run, refuse_taken
from servescope.traces.status import OK

DIGITS = 6  # that are told of a number: further ones differ between machines


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The score of a policy on a suite, from 0 to 100, or why it has none."""

    system: str
    params: Mapping[str, str]
    suite: Suite
    seed: int
    cases: Mapping[str, Score]
    failure: Failure | None = None

    @property
    def score(self) -> float:
        """The mean over the cases, times 100; 0 for a policy that failed."""
        if self.failure is not None:
            return 0.0
        return 100 * sum(each.score for each in self.cases.values()) / len(self.cases)

    def told(self) -> dict[str, Any]:
        """Return all of it as JSON has it: the same for the same policy and suite."""
        file = PluginFile.of(self.system)
        policy: dict[str, Any] = {"system": self.system, "params": dict(self.params)}
        if file is not None:
            policy["sha256"] = file.sha256
        told: dict[str, Any] = {"score": _rounded(self.score)}
        if self.failure is not None:
            told |= msgspec.to_builtins(self.failure)
        else:
            told |= {name: self._mean(name) for name in ("attainment", "speed", "fairness")}
        told["violations"] = int(self.failure is not None and self.failure.kind == "violation")
        suite = {"name": self.suite.name, "version": self.suite.version, "seed": self.seed}
        told |= {"policy": policy, "suite": suite | {"sha256": self.suite.sha256}}
        if self.failure is None:
            told["cases"] = {
                name: {key: _rounded(value) for key, value in dataclasses.asdict(each).items()}
                for name, each in self.cases.items()
            }
        return told

    def _mean(self, name: str) -> float:
        values = [getattr(case, name) or 0.0 for case in self.cases.values()]
        return _rounded(sum(values) / len(values))


def evaluate(
    system: str,
    suite: Suite,
    params: Mapping[str, str] | None = None,
    *,
    time_limit_s: float = 60.0,
    memory_bytes: int = 2 * 10**9,
    seed: int = 0,
    oracle: bool = False,
    out: Path | None = None,
) -> Evaluation:
    """Run a policy over a suite in a process of its own and return what it is worth.

    `seed` is added to that of each case, `out` keeps the run directories. A policy that asks for an
    oracle fails, unless `oracle` lets it. Raises InputError for what the user got wrong: no such
    file, a parameter that there is not, an `out` that is taken.
    """
    if out is not None:
        refuse_taken(out)
    file = PluginFile.of(system)
    if file is not None:
        file.source  # noqa: B018 - raises if there is none
    given = dict(params or {})
    with TemporaryDirectory(prefix="servescope-") as folder:
        job = Job(
            system=system,
            params=given,
            cases=suite.cases,
            seed=seed,
            folder=folder,
            time_limit_s=time_limit_s,
            memory_bytes=memory_bytes,
        )
        failure, scores = candidate.run(job), {}
        if failure is not None and failure.kind == "input":
            raise InputError(failure.error, failure.mend)
        for case in suite.cases if failure is None else ():
            found = _judged(case, Path(folder) / case.name, job, oracle)
            if isinstance(found, Failure):
                failure = found
                break
            scores[case.name] = found
        if out is not None:
            shutil.copytree(folder, out)
            (out / candidate.OUTCOME).unlink(missing_ok=True)
    return Evaluation(system, given, suite, seed, scores, failure)


def _judged(case: Case, path: Path, job: Job, oracle: bool) -> Score | Failure:
    """Return the score of a run that a policy's process has left, once it is what was asked."""
    run = Run.open(path)
    experiment = case.experiment(job.system, job.params, job.seed)
    workload = workload_of(experiment.workload, experiment.seed)
    if not _is_of(run, workload):
        error = "The policy's run does not hold every call that was asked, once and whole."
        return Failure(kind="violation", error=error, case=case.name)
    if not oracle and ORACLE.format(system=job.system) in run.info.doubts:
        error = "The policy asks how long every answer will be: no real server knows that."
        return Failure(kind="violation", error=error, case=case.name)
    return score_of(Measured.of(run), SLO.parse(case.slo), jct_alone(workload, case.engine))


def _is_of(run: Run, workload: Workload) -> bool:
    """Tell whether a run holds the calls of a workload, each with all of its tokens."""
    rows = run.rows.select("call_id", "status", "output_tokens").collect()
    asked = {call.id: call.output_tokens for call in workload.calls()}
    answered = {id: n for id, status, n in rows.iter_rows() if status == OK}
    return (
        rows.height == len(asked)
        and set(rows["call_id"]) == asked.keys()
        and all(asked[id] == n for id, n in answered.items())
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
