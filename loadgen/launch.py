"""Starts a server for a study, waits until it is healthy, and leaves nothing of it behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import msgspec

from servescope.loadgen import standing
from servescope.loadgen.experiment import EndpointSpec, EngineSpec
from servescope.loadgen.keeper import KILLED_S
from servescope.loadgen.study import PORT, Command, LaunchSpec, StopSpec, SystemSpec
from servescope.loadgen.target import Target
from servescope.traces.errors import EndpointError, InputError, OutputFailed

TAIL_LINES, TAIL_CHARACTERS = 8, 800
TAIL_BYTES = 1 << 16


class Server:
    """A server that this process started; leave its context to end it.

    It is held by a process of its own, which ends it even if this one is killed.
    """

    def __init__(self, name: str, launch: LaunchSpec, endpoint: EndpointSpec, log: Path) -> None:
        port = str(free_port()) if PORT in msgspec.json.encode((launch, endpoint)).decode() else ""
        self.name = name
        self.log = log
        self.fresh = launch.fresh
        self.endpoint = msgspec.structs.replace(
            endpoint, base_url=tuple(url.replace(PORT, port) for url in endpoint.urls)
        )
        target = Target.of(self.endpoint)
        self._headers = target.headers
        self._health = [
            _health(base, launch.health.replace(PORT, port)) for base in target.base_urls
        ]
        self._launch = launch
        self._refuse_taken()
        self._keeper = self._start(port)

    def _refuse_taken(self) -> None:
        """Raise EndpointError if another server listens there: it would be measured instead."""
        for url in self._health:
            answer = standing.get(url, self._headers)
            if answer.status is not None:
                raise EndpointError(
                    f"{url} {answer.in_words} before '{self.name}' is launched: another server has"
                    " its port.",
                    "End that server, or let a free port be chosen with {port}.",
                )

    def _start(self, port: str) -> subprocess.Popen[bytes]:
        launch = self._launch
        told = {
            "command": _words(launch.command, port),
            "stop": _words(launch.stop.command, port) if launch.stop.command else None,
            "signal": int(signal.Signals[f"SIG{launch.stop.signal}"]),
            "grace_s": launch.stop.grace_s,
        }
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "servescope.loadgen.keeper", json.dumps(told)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=launch.cwd,
                    env={**os.environ, **_replaced(launch.env, port)},
                    process_group=0,  # Ctrl-C in the terminal is for the study
                )
        except NotADirectoryError:
            raise InputError(f"{launch.cwd} is no folder.", "Mend the cwd of the launch.") from None
        except FileNotFoundError:
            raise InputError(
                f"{launch.cwd} does not exist.", "Mend the cwd of the launch."
            ) from None
        except OSError as error:
            raise OutputFailed.of(self.log, error) from None

    def wait_until_healthy(self) -> None:
        """Wait for the health URL; raises EndpointError with the end of the log if it never is."""

        def look() -> None:
            if self.ended:
                raise self.fault(self.ended)

        limit_s = self._launch.start_timeout_s
        wrong = standing.wait_until_healthy(self._health, self._headers, limit_s, look)
        if wrong:
            raise self.fault(
                f"'{self.name}' is not healthy: {wrong}",
                "Check the health URL, or give the server more time (start_timeout_s).",
            )

    @property
    def ended(self) -> str | None:
        """Say how the server has ended; None as long as it runs."""
        return self.ended_within(0.0)

    def ended_within(self, limit_s: float) -> str | None:
        """Say how the server ended, if it has after so many seconds."""
        try:
            code = self._keeper.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        how = f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        return f"The server of '{self.name}' {how}."

    def fault(self, wrong: str, mend: str = "Mend the launch, or the server.") -> EndpointError:
        """Return an error with the end of the server's log in it."""
        tail = last_lines(self.log)
        told = f"Its log ends: {tail}" if tail else "Its log is empty"
        return EndpointError(f"{wrong} {told} ({self.log}).", mend)

    def stop(self) -> None:
        """End the server and everything that it started; does nothing the second time."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        try:
            self._keeper.wait(2 * self._launch.stop.grace_s + 2 * KILLED_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def served(engine: EngineSpec) -> tuple[LaunchSpec, EndpointSpec]:
    """Return how the embedded engine is launched as a server in real time, and where it listens."""
    command = [sys.executable, "-m", "servescope.cli", "serve", "--system", engine.system]
    command += ["--model", engine.model, "--gpu", ",".join(engine.gpus), "--tp", str(engine.tp)]
    command += ["--pp", str(engine.pp), "--overhead", engine.overhead]
    if engine.context_tokens is not None:
        command += ["--context-tokens", str(engine.context_tokens)]
    if engine.prefix_cache is not None:
        command += ["--prefix-cache" if engine.prefix_cache else "--no-prefix-cache"]
    for key, value in engine.params.items():
        command += ["--param", f"{key}={value}"]
    launch = LaunchSpec(
        command=(*command, "--port", PORT), start_timeout_s=60, stop=StopSpec(grace_s=5)
    )
    return launch, EndpointSpec(base_url=f"http://127.0.0.1:{PORT}", model=engine.model)


def how_to_reach(system: SystemSpec) -> tuple[LaunchSpec | None, EndpointSpec]:
    """Return how a system that runs in real time is launched, if it is, and its endpoint."""
    if system.engine is not None:
        return served(system.engine)
    assert system.endpoint is not None
    return system.launch, system.endpoint


def free_port() -> int:
    """Return a port of loopback that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def last_lines(log: Path) -> str:
    """Return the end of a log on one line, without colours."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    return " | ".join(line for line in lines[-TAIL_LINES:] if line)[-TAIL_CHARACTERS:]


def _words(command: Command, port: str) -> list[str]:
    if isinstance(command, str):
        return ["/bin/sh", "-c", command.replace(PORT, port)]
    return [word.replace(PORT, port) for word in command]


def _replaced(env: Mapping[str, str], port: str) -> dict[str, str]:
    return {key: value.replace(PORT, port) for key, value in env.items()}


def _health(base: str, health: str) -> str:
    return health if "://" in health else base + "/" + health.lstrip("/")
