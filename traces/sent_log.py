"""The log of what was sent: each worker appends an entry before it sends a call.

An entry is one write of a few bytes, so a kill tears none, and a call that is in the log and has
no row was in flight. This module imports no table library, so that a worker process can use it.
"""

import struct
from pathlib import Path

ENTRY = struct.Struct("<Id")  # row of the plan, seconds of the run


def path_of(run: Path, worker: int) -> Path:
    """Return the log of a worker of a run."""
    return run / f"sent-{worker}.log"


def logs_of(run: Path) -> list[Path]:
    """Return the logs of all workers of a run."""
    return sorted(run.glob("sent-*.log"))


def read(run: Path) -> dict[int, float]:
    """Return the rows of the plan that were sent, and when."""
    found: dict[int, float] = {}
    for log in logs_of(run):
        data = log.read_bytes()
        found.update(ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size]))
    return found
