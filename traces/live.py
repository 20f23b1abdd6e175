"""What a run in progress says of itself, once a second: `live.json` in its directory.

    RUN/live.json    replaced at once or not at all; gone when the run is sealed

A run that was killed leaves its last one behind: `Live.alive` tells it from one that goes on.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import msgspec

from servescope.traces import atomic
from servescope.traces.errors import NotARun
from servescope.traces.run import Validity

FILE = "live.json"
# A conductor lets everybody else go first, so on a full machine it may be some seconds late; while
# it seals a run of a million calls it writes nothing.
DEAD_S, DEAD_SEALING_S = 10.0, 600.0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica said last of itself (`traces.server.GAUGES`); null where it does not say."""

    replica: str
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay is, and how well it goes.

    `written_unix_s` is when it was written, by process `pid` of `host`; `now_s` is the second of
    the run. `planned` calls are all that this process has to send; `waiting` are due and wait for
    one of the slots of --max-concurrency; `failures` are counts by status. `lag_s` is how late the
    last call was sent. Quantiles are of recent calls and null of too few; `late_p99_s` is how much
    too late the workers' loops came to a timer in the last seconds, `cpu_share` the busiest
    worker's part of a core in the last second. Of `judged` calls that have ended, `met` were within
    the SLO. `validity` and `doubts` are what can be said so far. `sealing` says that every call has
    ended and the last tables are being written.
    """

    written_unix_s: float
    host: str
    pid: int
    now_s: float
    planned: int
    sent: int
    in_flight: int
    waiting: int
    done: int
    failures: dict[str, int] = {}
    lag_s: float = 0.0
    lag_p99_s: float | None = None
    late_p99_s: float | None = None
    cpu_share: float | None = None
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    tpot_p50_s: float | None = None
    tpot_p99_s: float | None = None
    judged: int = 0
    met: int = 0
    servers: tuple[Server, ...] = ()
    validity: Validity = "unfinished"
    doubts: tuple[str, ...] = ()
    sealing: bool = False

    @property
    def failed(self) -> int:
        """How many calls have failed."""
        return sum(self.failures.values())

    def age_s(self, now_unix_s: float | None = None) -> float:
        """Return how long ago it was written; 0 if the clock was set back."""
        now_unix_s = time.time() if now_unix_s is None else now_unix_s
        return max(0.0, now_unix_s - self.written_unix_s)

    def alive(self, now_unix_s: float | None = None) -> bool:
        """Whether the run goes on: written within `DEAD_S`, and its process is there.

        Only on the host that wrote it can the process be looked for. While a run is sealed nothing
        is written, so that it may be as old as `DEAD_SEALING_S`.
        """
        if self.age_s(now_unix_s) > (DEAD_SEALING_S if self.sealing else DEAD_S):
            return False
        return self.host != platform.node() or _exists(self.pid)


def _exists(pid: int) -> bool:
    if pid <= 0:  # a group of processes, for kill
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def read(run: Path) -> Live | None:
    """Return what the run in a folder says of itself, or None if it says nothing.

    Raises NotARun for a file that cannot be read.
    """
    path = run / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Live)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        wrong = f"{path} cannot be read: {error}."
    except OSError as error:
        wrong = f"{path} cannot be read: {error.strerror or error}."
    raise NotARun(
        wrong,
        "It was damaged or written by another version; what has ended is in the run's tables.",
    )


def write(run: Path, live: Live) -> None:
    """Replace what the run says of itself; raises OSError if the disk does not take it."""
    atomic.write_bytes(run / FILE, msgspec.json.encode(live))


def remove(run: Path) -> None:
    """Let a run that is sealed say nothing more of itself."""
    (run / FILE).unlink(missing_ok=True)
