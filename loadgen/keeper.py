"""Keeps one server: starts it, and ends it with all that it started, however its client ends.

    python -m servescope.loadgen.keeper '{"command": [...], "stop": [...], ...}'

Its own stdin is a pipe from the client. When that closes, because the client is done, was killed or
crashed, the server is torn down. Nothing but the standard library is loaded.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

POLL_S = 0.1
KILLED_S = 10.0  # what a kernel may take to end what was killed
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux: who loses their parent become our children


class Server:
    """A process in a session of its own; `code` is its exit code once it has ended."""

    def __init__(self, command: list[str]) -> None:
        self.code: int | None = None
        self._told: set[int] = set()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self.group = self._process.pid

    def ended(self) -> bool:
        """Tell whether the process that was started has ended."""
        self._reap()
        return self.code is not None

    def gone(self) -> bool:
        """Tell whether all that it started have ended, too."""
        self._reap()
        return self.code is not None and not _is_there(self.group) and not _children()

    def tell(self, number: int) -> None:
        """Send a signal to its whole group."""
        if self.code is None or _is_there(self.group):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, number)

    def tell_strays(self, number: int) -> None:
        """Send a signal, once, to what has left the group and lost its parent."""
        for pid in set(_children()) - {self._process.pid} - self._told:
            self._told.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill its group, and what has left the group."""
        self.tell(signal.SIGKILL)
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Take note of every child that has ended, strangers that became ours among them."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._process.pid:
                    self.code = self._process.returncode = os.waitstatus_to_exitcode(status)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _children() -> list[int]:
    """Return this process's children, as far as the system lists them."""
    try:
        return list(map(int, Path("/proc/thread-self/children").read_text().split()))
    except OSError:  # Linux alone lists them
        return []


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    """Wait until something is so, for so long at most."""
    end = time.monotonic() + within_s
    while not condition() and (left_s := end - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left_s))


def tear_down(server: Server, stop: list[str] | None, number: int, grace_s: float) -> None:
    """Ask a server to end, wait, and kill what is left; one that has ended leaves only the rest."""
    if stop:
        with suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(stop, stdin=subprocess.DEVNULL, timeout=grace_s + POLL_S, check=False)
        wait_until(server.gone, grace_s)
    elif not server.ended():
        server.tell(number)

        def gone() -> bool:
            if server.ended():
                server.tell_strays(number)
            return server.gone()

        wait_until(gone, grace_s)

    def killed() -> bool:
        if not server.gone():  # what is killed may leave children of its own to us
            server.kill()
        return server.gone()

    wait_until(killed, KILLED_S)


def main() -> int:
    """Keep the server that the first argument describes; returns its exit code if it ends."""
    told = json.loads(sys.argv[1])
    # a group that is ended from outside still ends what it keeps
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        server = Server(told["command"])
    except OSError as error:
        sys.stderr.write(f"{told['command'][0]}: {error.strerror}\n")
        return 127
    code = 0
    try:
        # a command that leaves its server behind (docker run -d) has a command to stop it
        while not server.ended() or (server.code == 0 and told["stop"]):
            if select.select([sys.stdin], [], [], POLL_S)[0]:
                break
        else:
            assert server.code is not None
            code = server.code if server.code > 0 else 128 - server.code
    finally:
        tear_down(server, told["stop"], told["signal"], told["grace_s"])
    return code


if __name__ == "__main__":
    sys.exit(main())
