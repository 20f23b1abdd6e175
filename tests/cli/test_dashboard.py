"""`servescope dashboard`: a folder is opened by default, and mistakes are a sentence."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("dash", reason="needs the extra servescope[dashboard]")
CLI = [sys.executable, "-m", "servescope.cli", "dashboard"]


def ended(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=60)


def test_a_folder_is_served_until_stdin_closes(tmp_path: Path) -> None:
    options = ["--port", "0", "--no-browser", "--end-with-stdin"]
    process = subprocess.Popen(
        [*CLI, str(tmp_path), *options], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    address = process.stderr.readline().removeprefix("Dashboard: ").strip()
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert b"servescope" in answer.read()
    process.communicate(timeout=20)  # closes stdin
    assert process.returncode != 0  # ended by a signal of its own
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=10)


def test_a_token_of_ones_own_is_asked_for_on_other_hosts(tmp_path: Path) -> None:
    options = ["--host", "0.0.0.0", "--port", "0", "--no-browser", "--end-with-stdin"]
    process = subprocess.Popen(
        [*CLI, "open", str(tmp_path), *options, "--token-env", "TOKEN_OF_A_TEST"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"TOKEN_OF_A_TEST": "sixteen-and-more", "PATH": ""},
    )
    assert process.stderr is not None
    address = process.stderr.readline().strip()
    assert address.endswith("?token=sixteen-and-more")
    port = address.rpartition(":")[2].partition("/")[0]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["grafana"], "Missing option"),
    ],
)
def test_mistakes_are_a_sentence_with_exit_code_2(words: list[str], said: str) -> None:
    found = ended(*words)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_boards_are_written_once_and_not_over_others(tmp_path: Path) -> None:
    first = ended("grafana", "-o", str(tmp_path / "boards"))
    assert first.returncode == 0
    assert "vllm.json" in first.stdout
    again = ended("grafana", "-o", str(tmp_path / "boards"))
    assert again.returncode == 2
    assert "exist" in again.stderr
    assert ended("grafana", "-o", str(tmp_path / "boards"), "--overwrite").returncode == 0
