"""Real servers in environments of their own, in processes that last as long as a context.

The Python of such an environment is named by an environment variable; docs/how-to has the recipes.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TOKENIZER = HERE.parent / "data" / "tokenizer"
VLLM, TRANSFORMERS = "SERVESCOPE_VLLM_PYTHON", "SERVESCOPE_TRANSFORMERS_PYTHON"
EASILY, HARDLY = 64, 2048  # from which id on a token of the model ends an answer
READY_S, END_S = 400, 30
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_SERVER_DEV_MODE": "1",  # for /pause, which aborts what is running
}


@contextmanager
def vllm_server(folder: Path, *options: str) -> Iterator[str]:
    """Serve a tiny model as "tiny" with vLLM and give the URL; its answers end soon if they may."""
    python = named_python(VLLM)
    model = tiny_model(python, folder, EASILY)
    command = [python.with_name("vllm"), "serve", model.name, "--served-model-name", "tiny"]
    command += ["--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16"]
    with _serving([*command, "--enforce-eager", *options], model.parent) as url:
        yield url


@contextmanager
def transformers_server(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a tiny model with `transformers serve`; gives the URL and the model's name there."""
    python = named_python(TRANSFORMERS)
    model = tiny_model(python, folder, HARDLY)
    command = [python.with_name("transformers"), "serve", model, "--device", "cpu"]
    with _serving([*command, "--dtype", "float32"], folder) as url:
        yield url, str(model)


def named_python(variable: str) -> Path:
    """Return the Python that a variable names; skips the test where nobody named one."""
    if variable not in os.environ:
        pytest.skip(f"asked for by {variable}: docs/how-to/test-against-real-servers.md")
    return Path(os.environ[variable])


def tiny_model(python: Path, folder: Path, eos: int) -> Path:
    """Make the model in its server's environment and return its folder."""
    model = folder / "model"
    subprocess.run([python, HERE / "tiny_model.py", model, str(eos)], check=True, timeout=READY_S)
    shutil.copytree(TOKENIZER, model, dirs_exist_ok=True)
    return model


@contextmanager
def _serving(command: Sequence[str | Path], folder: Path) -> Iterator[str]:
    """Run a server in a folder, on a free port of loopback; end it and all that it started."""
    log = folder / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=os.environ | OFFLINE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, f"{url}/health", log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(END_S)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up_s = time.monotonic() + READY_S
    while time.monotonic() < give_up_s and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"{process.args!r} is not ready:\n{log.read_text(errors='replace')[-4000:]}")
