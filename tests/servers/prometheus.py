"""A real Prometheus in a process of its own, as long as a context lasts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BINARY = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
needed = [
    pytest.mark.thirdparty,
    pytest.mark.skipif(BINARY is None, reason="needs prometheus on PATH or in $PROMETHEUS"),
]
STARTS_S = 20.0


class Prometheus:
    """Asks a running Prometheus over its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return what an expression gives now; raises AssertionError if it cannot be parsed."""
        found = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
        result: list[dict[str, Any]] = found["result"]
        return result

    def names(self) -> set[str]:
        """Return the name of every metric that was scraped."""
        return set(self._get("/api/v1/label/__name__/values"))

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}: {error.read().decode()}") from None
        return said["data"]


@contextmanager
def prometheus(config: str, folder: Path) -> Iterator[Prometheus]:
    """Start it on a free port with this configuration; skips the test where there is none."""
    if BINARY is None:
        pytest.skip("needs prometheus on PATH or in $PROMETHEUS")
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(config)
    address = f"127.0.0.1:{free_port()}"
    command = [
        BINARY,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'storage'}",
        f"--web.listen-address={address}",
    ]
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        _wait_until_ready(f"http://{address}", process, log)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check_config(file: Path) -> tuple[int, str]:
    """Return the exit code of promtool, which comes with Prometheus, and what it said."""
    assert BINARY is not None
    promtool = Path(BINARY).with_name("promtool")
    ran = subprocess.run(
        [promtool, "check", "config", file], capture_output=True, text=True, timeout=30
    )
    return ran.returncode, ran.stdout + ran.stderr


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"Prometheus did not start: {log.read_text()[-2000:]}")
