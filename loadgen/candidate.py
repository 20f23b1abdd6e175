"""A policy that nobody trusts yet, run over a suite in a process of its own.

`python -m servescope.loadgen.candidate` reads a Job from its standard input and leaves an Outcome
and a run directory a case in the job's folder. What the policy prints goes to standard error, what
it leaves running ends with the process, and what it changes of servescope is found out. All this is
against accidents and shortcuts; it is no sandbox against an attack.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import msgspec
import numpy as np

from servescope.loadgen.simulate import cluster_of, simulate
from servescope.loadgen.suite import Case
from servescope.traces.atomic import write_json
from servescope.traces.errors import InputError, ServescopeError
from servescope.traces.plugin_file import PluginFile

Kind = Literal[
    "syntax", "no_system", "exception", "bad_plan", "deadlock", "violation", "timeout", "memory",
    "crash", "input",
]  # fmt: skip
KINDS: dict[str, Kind] = {
    "BadPlan": "bad_plan",
    "OutOfBlocks": "bad_plan",
    "Deadlock": "deadlock",
    "Violation": "violation",
}
CHECK_EVERY = 20  # events: looking at every one takes five times as long and finds the same
OUTCOME = "outcome.json"
# One thread, and sets in the same order: the same policy has the same score.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
}
STANDARD = ("builtins", "math", "heapq", "bisect", "time")  # modules that the engine works with


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of a candidate has to do, and in which bounds."""

    system: str
    params: dict[str, str]
    cases: tuple[Case, ...]
    seed: int
    folder: str
    time_limit_s: float
    memory_bytes: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a candidate has no score: a kind, a sentence, how to mend it, and in which case it was.

    Of kind `input`, it is the user's mistake and not the candidate's.
    """

    kind: Kind
    error: str
    mend: str = "Mend the policy."
    case: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate's process says at its end."""

    failure: Failure | None = None


def run(job: Job) -> Failure | None:
    """Run a candidate in a process of its own, within its limits; None: its runs are in the folder.

    What it started is killed with it, by its group.
    """
    command = [sys.executable, "-P", "-m", "servescope.loadgen.candidate"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONOPTIMIZE"} | ENVIRONMENT
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=sys.__stderr__,
        env=environment,
        start_new_session=True,
    )
    try:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(msgspec.json.encode(job), timeout=job.time_limit_s)
    finally:
        in_time = process.poll() is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    took_too_long = Failure(
        kind="timeout", error=f"The policy took more than {job.time_limit_s:g} s over the suite."
    )
    if not in_time:
        return took_too_long
    try:
        outcome = msgspec.json.decode((Path(job.folder) / OUTCOME).read_bytes(), type=Outcome)
    except (FileNotFoundError, msgspec.DecodeError):
        code = process.returncode
        if code == -signal.SIGXCPU:
            return took_too_long
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Failure(kind="crash", error=f"The policy's process {how} before it was done.")
    return outcome.failure


def main() -> None:
    """Do the job on standard input, and end at once: no thread is waited for."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        failure = _evaluate(job)
    except BaseException as error:
        traceback.print_exc()
        failure = _told(error, job, None)
    write_json(Path(job.folder) / OUTCOME, Outcome(failure=failure))
    sys.stderr.flush()
    os._exit(0)


def _evaluate(job: Job) -> Failure | None:
    _limit(job)
    random.seed(0)
    np.random.seed(0)  # what is drawn without a generator of its own
    before = dict(_definitions())
    for case in job.cases:
        experiment = case.experiment(job.system, job.params, job.seed)
        assert experiment.engine is not None
        try:
            cluster_of(experiment.engine)
        except InputError as error:
            return _unmade(error, job)
        try:
            run = simulate(
                experiment, Path(job.folder) / case.name, check=True, check_every=CHECK_EVERY
            )
        except (Exception, SystemExit) as error:
            return _meddled(before, case) or _told(error, job, case.name)
        if meddled := _meddled(before, case):
            return meddled
        if run.info.interrupted:
            return Failure(kind="exception", error="The policy interrupts the run.", case=case.name)
    return None


def _limit(job: Job) -> None:
    """Bound the memory that is taken beside what is there by now, and the processor's time."""
    cpu_s = int(job.time_limit_s) + 5  # only where nobody is left to look at the clock
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    taken = Path("/proc/self/statm")
    if taken.exists():  # elsewhere than on Linux the limit is not kept, or not known
        pages = int(taken.read_text().split()[0])
        most = pages * resource.getpagesize() + job.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _unmade(error: InputError, job: Job) -> Failure:
    """Say why there is no system; a wrong name or parameter is the user's mistake."""
    cause: BaseException | None = error.__cause__
    if PluginFile.of(job.system) is None or "is not a parameter of" in error.wrong:
        return Failure(kind="input", error=error.wrong, mend=error.mend)
    kind: Kind = "no_system" if cause is None else "exception"
    if isinstance(cause, SyntaxError):
        kind = "syntax"
    if isinstance(cause, MemoryError):
        kind = "memory"
    return Failure(kind=kind, error=error.wrong, mend=error.mend)


def _told(error: BaseException, job: Job, case: str | None) -> Failure:
    """Say what went wrong while the policy was asked."""
    cause, mend = error.__cause__ or error, "Mend the policy."
    kind = KINDS.get(type(error).__name__, "exception")
    if isinstance(cause, MemoryError):
        kind = "memory"
        said = f"The policy takes more than {job.memory_bytes / 1e6:,.0f} MB of memory."
    elif isinstance(error, ServescopeError):
        said, mend = error.wrong, error.mend
    else:
        file = PluginFile.of(job.system)
        said = (file.fault(error) if file else None) or f"{type(error).__name__}: {error}."
    return Failure(kind=kind, error=said, mend=mend, case=case)


def _definitions() -> Iterator[tuple[str, Any]]:
    """Yield what the modules of servescope define, and some of Python's, by name."""
    for name, module in list(sys.modules.items()):
        if not name.startswith("servescope.") and name not in STANDARD:
            continue
        for key, value in list(vars(module).items()):
            if key.startswith("__"):
                continue
            yield f"{name}.{key}", _body(value)
            if isinstance(value, type) and value.__module__ == name:
                for inner, what in list(vars(value).items()):
                    yield f"{name}.{key}.{inner}", _body(what)


def _body(value: Any) -> Any:
    return value.__code__ if isinstance(value, FunctionType) else value


def _meddled(before: dict[str, Any], case: Case) -> Failure | None:
    """Return a failure that names a definition which is another one than it was."""
    now = dict(_definitions())
    for name, what in before.items():
        if now.get(name) is not what:
            said = f"The policy changes {name}, which is not its own."
            return Failure(kind="violation", error=said, case=case.name)
    return None


if __name__ == "__main__":
    main()
