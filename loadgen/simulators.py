"""Simulations on all cores: processes that each run one experiment after the other.

`python -m servescope.loadgen.simulators FD` is one of them. It reads a Task a line from that socket
and answers each with an Answer, until the other end is closed.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from servescope.loadgen.experiment import Experiment
from servescope.loadgen.simulate import simulate
from servescope.traces.errors import InputError, ServescopeError

END_S = 2.0


class Task(msgspec.Struct, frozen=True):
    """An experiment to simulate, and the run directory to make."""

    experiment: Experiment
    path: str


class Answer(msgspec.Struct, frozen=True):
    """What became of a task: `input` is a mistake that would stop every other one too."""

    state: Literal["done", "failed", "input"]
    wrong: str = ""
    mend: str = ""

    @property
    def why(self) -> str | None:
        """Why it is not done, in words."""
        return str(ServescopeError(self.wrong, self.mend)) if self.wrong else None


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Simulators:
    """Up to `jobs` processes, started when there is something to do and ended on leaving.

    A process that dies takes its own task with it and no other.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._idle: list[_Simulator] = []
        self._busy: dict[int, _Simulator] = {}  # by the descriptor of the link

    @property
    def free(self) -> bool:
        """Whether another task can begin now."""
        return len(self._busy) < self._jobs

    def begin(self, experiment: Experiment, path: Path) -> None:
        """Let a process simulate an experiment; `ended` says what becomes of it."""
        simulator = self._idle.pop() if self._idle else _Simulator(max(1, cores() // self._jobs))
        self._busy[simulator.fileno()] = simulator
        simulator.begin(Task(experiment, str(path)))

    def ended(self) -> Iterator[tuple[Path, Answer]]:
        """Wait until some task has ended, and yield those that have, by their run directories."""
        for descriptor in select.select(list(self._busy), [], [])[0]:
            simulator = self._busy[descriptor]
            answer = simulator.answer()
            if answer is None:
                continue  # half a line
            del self._busy[descriptor]
            if simulator.lives:
                self._idle.append(simulator)
            else:
                simulator.end()
            yield simulator.path, answer

    def __enter__(self) -> Simulators:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for simulator in (*self._idle, *self._busy.values()):
            simulator.end()


class _Simulator:
    """This end of one process."""

    def __init__(self, threads: int) -> None:
        self._link, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "servescope.loadgen.simulators", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__,  # what a policy prints is no result
            pass_fds=[theirs.fileno()],
            process_group=0,  # Ctrl-C in the terminal reaches this process alone
            env={**os.environ, "POLARS_MAX_THREADS": str(threads)},
        )
        theirs.close()
        self._said = b""
        self.path = Path()
        self.lives = True

    def fileno(self) -> int:
        return self._link.fileno()

    def begin(self, task: Task) -> None:
        self.path = Path(task.path)
        with suppress(BrokenPipeError):  # it has died: `answer` says so
            self._link.sendall(msgspec.json.encode(task) + b"\n")

    def answer(self) -> Answer | None:
        """Read what it says; None if that is not all yet."""
        try:
            said = self._link.recv(1 << 16)
        except ConnectionResetError:
            said = b""
        if not said:
            self.lives = False
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return Answer("failed", f"The simulation's process {how}.", "Was there enough memory?")
        self._said += said
        if not self._said.endswith(b"\n"):
            return None
        answer = msgspec.json.decode(self._said, type=Answer)
        self._said = b""
        return answer

    def end(self) -> None:
        """End it at once: a run that was being made is made again."""
        self._link.close()
        self._process.kill()
        self._process.wait(END_S)


def main(descriptor: int) -> None:
    """Simulate what comes through a socket, one after the other."""
    with socket.socket(fileno=descriptor) as link, link.makefile("rb") as lines:
        for line in lines:
            task = msgspec.json.decode(line, type=Task)
            link.sendall(msgspec.json.encode(_done(task)) + b"\n")


def _done(task: Task) -> Answer:
    try:
        simulate(task.experiment, Path(task.path))
    except InputError as error:
        return Answer("input", error.wrong, error.mend)
    except ServescopeError as error:
        return Answer("failed", error.wrong, error.mend)
    except Exception as error:
        traceback.print_exc()
        wrong = f"{type(error).__name__}: {error}."
        return Answer("failed", wrong, "This is a fault of servescope: report it.")
    return Answer("done")


if __name__ == "__main__":
    main(int(sys.argv[1]))
