"""llama.cpp's server in a process of its own, as long as a context lasts."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@contextmanager
def llama_server() -> Iterator[str]:
    """Start it on a free port and give its URL; skips the test where its wheel is missing."""
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp wheel of the dev group")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, HERE / "llama_server.py", HERE.parent / "data" / "tiny.gguf", port]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()
