"""A planted key is in no file, no output and no process title, however a run ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from background import Background
from faulty_server import DONE, LAST, TOKEN, Faulty, serving

KEY, HEADER, FILED = "sk-planted-1111", "gw-planted-2222", "fl-planted-3333"
SECRETS = [secret.encode() for secret in (KEY, HEADER, FILED)]


async def echo(request: web.Request, response: web.StreamResponse) -> None:
    """Repeat what was sent, as some gateways do: in a text, an id, and every fourth an error."""
    said = f"{request.headers['Authorization']} {request.headers['X-Gw']} {request.headers['X-F']}"
    echo.calls += 1  # type: ignore[attr-defined]
    await response.write(
        f'data: {{"id":"{said}","choices":[{{"text":"{said}","finish_reason":null}}]}}\n\n'.encode()
    )
    if echo.calls % 4 == 3:  # type: ignore[attr-defined]
        await response.write(f'data: {{"error":{{"message":"bad {said}"}}}}\n\n'.encode())
    for data in (TOKEN, LAST, DONE):
        await response.write(data)


@pytest.fixture
def server() -> Iterator[Faulty]:
    echo.calls = 0  # type: ignore[attr-defined]
    with Background(serving(Faulty(script=echo))) as found:
        yield found


class Replay:
    """A replay by the command line, with three secrets; everything it leaves is below `folder`."""

    def __init__(self, server: Faulty, folder: Path, *options: str) -> None:
        self.folder = folder
        (folder / "tmp").mkdir(parents=True)
        (folder.parent / "secret").write_text(FILED + "\n")
        trace = folder / "trace.csv"
        rows = "\n".join(f"{n * 0.05:.2f},{40 + n},3" for n in range(60))
        trace.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")
        command = [sys.executable, "-m", "servescope.cli", *options, "replay", str(trace)]
        command += ["--base-url", server.url, "--out", str(folder / "run"), "--slo", "ttft<1s"]
        command += ["--header", "X-Gw=$GATEWAY", "--header", f"X-F=@{folder.parent / 'secret'}"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "OPENAI_API_KEY": KEY,
                "GATEWAY": HEADER,
                "TMPDIR": str(folder / "tmp"),
            },
        )

    def titles(self) -> bytes:
        """Return the command lines of the replay and its workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children
        lines = [Path(f"/proc/{child}/cmdline").read_bytes() for child in (pid, *children)]
        return b"\n".join(lines)

    def left(self) -> dict[str, bytes]:
        """Return everything that it has written."""
        out, err = self.process.communicate(timeout=60)
        files = {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        return {"stdout": out, "stderr": err, **files}


def leaks(found: dict[str, bytes]) -> list[str]:
    return [name for name, data in found.items() if any(secret in data for secret in SECRETS)]


def wait_for_calls(server: Faulty, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(server.bodies) < count and time.monotonic() < deadline:
        time.sleep(0.02)


def test_the_server_was_told_all_three(server: Faulty, tmp_path: Path) -> None:
    replay = Replay(server, tmp_path / "a")
    replay.left()
    told = server.headers[-1]
    assert told["Authorization"] == f"Bearer {KEY}"
    assert (told["X-Gw"], told["X-F"]) == (HEADER, FILED)


@pytest.mark.parametrize("options", [(), ("--debug",)])
def test_a_whole_run_keeps_its_secrets(
    server: Faulty, tmp_path: Path, options: tuple[str, ...]
) -> None:
    replay = Replay(server, tmp_path / "a", *options)
    wait_for_calls(server, 10)
    titles = replay.titles()
    found = replay.left()
    assert (replay.folder / "run" / "report.html").exists()
    assert leaks({**found, "titles": titles}) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_keeps_them_too(server: Faulty, tmp_path: Path, number: int) -> None:
    replay = Replay(server, tmp_path / "a")
    wait_for_calls(server, 40)
    replay.process.send_signal(number)
    found = replay.left()
    assert any("calls" in name for name in found)
    assert leaks(found) == []


@pytest.mark.parametrize("options", [(), ("--debug",)])
def test_a_probe_that_is_refused_with_the_key_in_the_answer_keeps_it(
    server: Faulty, tmp_path: Path, options: tuple[str, ...]
) -> None:
    server.status, server.says = 401, f"invalid key {KEY} {HEADER} {FILED}"
    replay = Replay(server, tmp_path / "a", *options)
    found = replay.left()
    assert replay.process.returncode == (1 if options else 3)
    assert b"***" in found["stderr"]
    assert leaks(found) == []


def test_a_literal_secret_is_refused_with_the_mend(server: Faulty, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "servescope.cli", "replay", "azure:sample"]
    command += ["--out", str(tmp_path / "r"), "--base-url", server.url]
    done = subprocess.run(
        [*command, "--header", f"Authorization=Bearer {KEY}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Authorization=$VARIABLE" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert not (tmp_path / "r").exists()
