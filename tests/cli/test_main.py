"""The door: help, version, exit codes, and one clear sentence with its mend for every bad input."""

import gzip
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import Run

Cli = Callable[..., Any]
VERBS = (
    *("demo", "traces", "analyze", "replay", "simulate", "serve", "report", "compare"),
    *("calibrate", "sweep", "capacity", "experiment"),
)


def test_help_names_every_verb(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.code == 0
    for verb in VERBS:
        assert verb in ended.out


@pytest.mark.parametrize(
    "verb",
    [
        *(verb for verb in VERBS if verb not in ("traces", "experiment")),
        *("traces list", "traces inspect", "traces convert"),
        *("experiment run", "experiment plan", "experiment status"),
    ],
)
def test_the_help_of_every_verb_has_an_example(cli: Cli, verb: str) -> None:
    ended = cli(*verb.split(), "--help")
    assert ended.code == 0
    assert f"Example:  servescope {verb}" in " ".join(ended.out.split("\n"))


def test_the_version_is_that_of_the_distribution(cli: Cli) -> None:
    assert cli("--version").out == f"servescope {version('servescope')}\n"


def test_an_unknown_verb_or_option_is_the_users_input(cli: Cli) -> None:
    assert cli("bench").code == 2
    assert cli("analyze", "azure:sample", "--fast").code == 2


def test_help_needs_no_heavy_library() -> None:
    """--help has 0.4 s; what would break that is an import, so imports are what is checked."""
    code = (
        "import sys; sys.argv = ['servescope', '--help']\n"
        "from servescope.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'polars', 'numpy', 'scipy', 'plotly', 'aiohttp', 'jinja2', 'pandas'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip().endswith("HEAVY []")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "header.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "wrong.csv").write_text("time,prompt,answer\n1,2,3\n")
    (tmp_path / "letters.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,many,2\n"
    )
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 5000)[:40])
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.csv", "does not exist. Check the path"),
        ("folder", "is a folder without files. Check the path"),
        ("empty.csv", "is empty. Give a file"),
        ("header.csv", "no rows. Give"),
        ("binary.csv", "It is a binary file. Name the format with --format"),
        ("wrong.csv", "Its first line is 'time,prompt,answer'. Name the format"),
        ("letters.csv", "line 2: 'ContextTokens' is 'many', not a whole number. Mend"),
        ("cut.jsonl.gz", "gz"),
    ],
)
@pytest.mark.parametrize("verb", ["analyze", "traces inspect", "simulate", "replay"])
def test_a_bad_trace_is_one_sentence_and_its_mend(
    cli: Cli, broken: Path, verb: str, name: str, says: str
) -> None:
    ended = cli(*verb.split(), broken / name)
    assert ended.code == 2
    assert ended.err.startswith("servescope: ")
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") == 1
    assert not (broken / "runs").exists()


def test_a_name_that_is_nearly_right_is_told_what_is_near(cli: Cli) -> None:
    ended = cli("analyze", "azure:samle")
    assert ended.code == 2
    assert "'azure:samle' is not a trace. Near it: azure:sample" in ended.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--slo", "ttft<fast"], "is not a condition of an SLO. Write it like"),
        (["--slo", "speed<3s"], "Choose among"),
        (["--system", "vllm_v9"], "vllm_v0"),
        (["--param", "chunk_tokens"], "is no parameter. Write it like"),
        (["--param", "chunk=5"], "chunk_tokens"),
        (["--model", "Lama-9"], "Near it: LLaMA"),
        (["--gpu", "H900"], "H100"),
        (["--format", "csv"], "There is no trace format 'csv'. Known: "),
        (["--time-scale", "0"], "--time-scale cannot be that: Expected float >= 1e-06. See"),
        (["--duration", "-3"], "--duration cannot be that"),
        (["--sessions", "some"], "is not one of 'auto', 'none'"),
        (["--start", "1e9"], "No call of the trace can be sent. Choose another window"),
    ],
)
def test_a_bad_option_is_one_sentence_and_its_mend(
    cli: Cli, tmp_path: Path, arguments: list[str], says: str
) -> None:
    ended = cli("simulate", "azure:sample", "--out", tmp_path / "run", *arguments)
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_an_endpoint_that_is_down_ends_with_3(cli: Cli, tmp_path: Path) -> None:
    ended = cli(
        "replay", "azure:sample", "--base-url", "http://127.0.0.1:9", "--out", tmp_path / "r"
    )
    assert ended.code == 3
    assert "Nothing answers at http://127.0.0.1:9" in ended.err
    assert "Start the server, or check --base-url." in ended.err
    assert not (tmp_path / "r").exists()


def test_an_extra_body_that_is_no_json_is_refused(cli: Cli, tmp_path: Path) -> None:
    ended = cli("replay", "azure:sample", "--extra-body", "{top_k:1}", "--out", tmp_path / "r")
    assert ended.code == 2
    assert "--extra-body is not a JSON object" in ended.err


def test_a_port_in_use_is_said_with_its_mend(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = cli("serve", "--port", taken.getsockname()[1])
    assert ended.code == 2
    assert "Choose another host or port" in ended.err


def test_what_other_tools_ask_for_and_is_always_done_is_taken(cli: Cli) -> None:
    ended = cli(
        "replay", "--streaming", "--use-server-token-count", "--isl", "5",
        "--url", "http://127.0.0.1:9", "--concurrency", "2", "--request-count", "3",
    )  # fmt: skip
    assert ended.code == 3
    assert "Nothing answers" in ended.err


def test_a_folder_that_is_no_run_is_said(cli: Cli, tmp_path: Path) -> None:
    ended = cli("report", tmp_path)
    assert ended.code == 2
    assert "is not a run directory" in ended.err


def test_a_fault_of_ours_is_admitted_without_a_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("servescope.traces.catalog.load", fail)
    ended = cli("analyze", "azure:sample")
    assert ended.code == 70
    assert "ZeroDivisionError: oops" in ended.err
    assert "--debug" in ended.err
    with pytest.raises(ZeroDivisionError):
        cli("--debug", "analyze", "azure:sample")


def test_ctrl_c_in_the_middle_of_a_demo_keeps_and_reports_what_was_measured(
    tmp_path: Path,
) -> None:
    """As a user does it: the whole program, a real SIGINT, and the servers gone afterwards."""
    out = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "servescope.cli", "demo", "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(300):
        if len(list((out / "vllm_v0" / "calls").glob("*.arrow"))) > 4:
            break
        time.sleep(0.1)
    servers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "was interrupted" in err
    assert (out / "vllm_v0" / "calls.parquet").exists()
    assert (out / "vllm_v0" / "report.html").exists()
    assert "TTFT" in said
    assert len(servers) >= 2  # and a worker
    assert not any(Path("/proc", server).exists() for server in servers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_servers_of_the_demo_end_with_it_however_it_ends(
    tmp_path: Path, number: signal.Signals
) -> None:
    """They have a session of their own, so nobody else would end them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "servescope.cli", "demo", "--out", tmp_path / "demo"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = tmp_path / "demo" / "vllm_v0" / "run.json"
    assert until(run.exists)
    servers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(servers) >= 2
    process.send_signal(number)
    process.wait(10)
    assert until(lambda: not any(alive(server) for server in servers))


def until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait for something to hold, as long as a slow machine may take."""
    for _ in range(int(seconds * 10)):
        if holds():
            return True
        time.sleep(0.1)
    return False


def alive(pid: str) -> bool:
    """Whether a process runs: not gone, and no zombie that nobody has waited for."""
    try:
        return Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_in_a_simulation_keeps_what_was_simulated(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("simulate", "mooncake:sample", "--time-scale", "0.00001", "--out", str(out))
    code = (
        "import signal, sys\n"
        "from servescope.engine import Engine\n"
        "finish, steps = Engine.finish, []\n"
        "def interrupt_once(engine, step):\n"
        "    steps.append(1)\n"
        "    if len(steps) == 4000: signal.raise_signal(signal.SIGINT)\n"
        "    return finish(engine, step)\n"
        "Engine.finish = interrupt_once\n"
        f"sys.argv = ['servescope', *{arguments!r}]\n"
        "from servescope.cli.main import main\n"
        "main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 130, ran.stderr
    assert "was interrupted" in ran.stderr
    assert (out / "report.html").exists()


@pytest.mark.parametrize("goodput", [["ttft:500", "e2el:5000"], ["ttft:500 e2el:5000"]])
def test_goodput_is_taken_as_vllm_s_benchmark_takes_it(
    cli: Cli, tmp_path: Path, goodput: list[str]
) -> None:
    ended = cli(
        *("simulate", "azure:sample", "--num-prompts", 5, "--goodput", *goodput),
        *("--out", tmp_path / "run"),
    )
    assert ended.code == 0, ended.err
    assert Run.open(tmp_path / "run").info.slo == "ttft:500 e2el:5000"
