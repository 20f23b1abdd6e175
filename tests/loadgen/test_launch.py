"""A launched server is healthy before it is used, and nothing of it is left, however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.loadgen import launch, standing
from servescope.loadgen.experiment import EndpointSpec, EngineSpec
from servescope.loadgen.launch import Server, free_port, last_lines
from servescope.loadgen.study import LaunchSpec, StopSpec, SystemSpec
from servescope.traces.errors import EndpointError, InputError

MORTAL = str(Path(__file__).parents[1] / "servers" / "mortal.py")
ENDPOINT = EndpointSpec(base_url="http://127.0.0.1:{port}")


def mortal(*options: str) -> tuple[str, ...]:
    return (sys.executable, MORTAL, "--port", "{port}", *options)


def spec(*command: str, **more: object) -> LaunchSpec:
    stop = StopSpec(grace_s=5)
    return LaunchSpec(**{"command": command, "start_timeout_s": 30, "stop": stop, **more})  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], within_s: float = 20) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def children_of(log: Path) -> list[int]:
    return [int(pid) for pid in re.findall(r"child (\d+)", log.read_text())]


def test_a_server_serves_where_it_says_and_leaves_no_process_not_even_a_run_away(
    tmp_path: Path,
) -> None:
    log = tmp_path / "a.log"
    with Server("a", spec(*mortal("--children")), ENDPOINT, log) as server:
        server.wait_until_healthy()
        (base,) = server.endpoint.urls
        assert standing.get(f"{base}/v1/models").status == 200
        pids = children_of(log)
        assert len(pids) == 2
        assert all(map(alive, pids))
        assert server.ended is None
    assert not any(map(alive, pids))
    assert standing.get(f"{base}/health").refused
    server.stop()  # the second time does nothing


def test_a_command_of_one_line_is_for_the_shell_with_variables_and_folder(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    command = f"pwd; echo $GREETING; exec {' '.join(mortal())}"
    env = {"GREETING": "hello at {port}"}
    log = tmp_path / "logs" / "a.log"
    how = spec(command=command, env=env, cwd=str(tmp_path / "work"))
    with Server("a", how, ENDPOINT, log) as server:
        server.wait_until_healthy()
        port = server.endpoint.urls[0].rpartition(":")[2]
    assert log.read_text().splitlines()[:2] == [str(tmp_path / "work"), f"hello at {port}"]


def test_a_server_that_is_ill_at_first_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with Server("a", spec(*mortal("--ill-for", "1")), ENDPOINT, log) as server:
        server.wait_until_healthy()
        assert standing.get(f"{server.endpoint.urls[0]}/health").status == 200


def test_a_server_that_never_becomes_healthy_is_an_error_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    how = spec(*mortal("--ill-for", "60", "--children"), start_timeout_s=2)
    log = tmp_path / "a.log"
    with (
        pytest.raises(EndpointError, match=r"not healthy: .* answers 503.*Its log ends: child"),
        Server("a", how, ENDPOINT, log) as server,
    ):
        server.wait_until_healthy()
    assert not any(map(alive, children_of(log)))


def test_a_server_that_ends_at_once_is_not_waited_for(tmp_path: Path) -> None:
    how = spec(command="echo no GPU >&2; exit 3", start_timeout_s=600)
    with (
        pytest.raises(EndpointError, match=r"ended with exit code 3\. Its log ends: no GPU"),
        Server("a", how, ENDPOINT, tmp_path / "a.log") as server,
    ):
        server.wait_until_healthy()


def test_a_command_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(EndpointError, match=r"exit code 127.*No such file"),
        Server("a", spec("no-such-program-here"), ENDPOINT, tmp_path / "a.log") as server,
    ):
        server.wait_until_healthy()


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Server("a", spec("x", cwd=str(tmp_path / "no")), ENDPOINT, tmp_path / "a.log")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder"):
        Server("a", spec("x", cwd=str(tmp_path / "file")), ENDPOINT, tmp_path / "a.log")


def test_another_server_on_its_port_is_not_taken_for_it(tmp_path: Path) -> None:
    with Server("first", spec(*mortal()), ENDPOINT, tmp_path / "first.log") as first:
        first.wait_until_healthy()
        with pytest.raises(EndpointError, match="another server has its port"):
            Server("second", spec(*mortal()), first.endpoint, tmp_path / "second.log")


def test_a_server_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    how = spec(sys.executable, "-u", "-c", script, stop=StopSpec(grace_s=0.5))
    server = Server("a", how, ENDPOINT, tmp_path / "a.log")
    assert eventually(lambda: "up" in last_lines(tmp_path / "a.log"))
    (pid,) = processes_with(script)
    server.stop()
    assert not alive(pid)


def processes_with(argument: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if argument in words and "servescope.loadgen.keeper" not in words:
                found.append(int(entry.name))
    return found


def test_a_signal_of_its_own_choice_lets_a_server_end_well(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(print('well ended')))\n"
        "print('up')\ntime.sleep(600)"
    )
    how = spec(sys.executable, "-u", "-c", script, stop=StopSpec(signal="INT", grace_s=10))
    with Server("a", how, ENDPOINT, tmp_path / "a.log"):
        assert eventually(lambda: "up" in last_lines(tmp_path / "a.log"))
    assert last_lines(tmp_path / "a.log") == "up | well ended"


def test_a_server_left_behind_by_its_command_is_ended_by_the_command_to_stop_it(
    tmp_path: Path,
) -> None:
    """As `docker run --detach` and `docker stop` do."""
    pid_file = tmp_path / "pid"
    start = f"{' '.join(mortal())} & echo $! > {pid_file}"
    stop = StopSpec(command=f"echo stopping; kill $(cat {pid_file})", grace_s=5)
    log = tmp_path / "a.log"
    with Server("a", spec(command=start, stop=stop), ENDPOINT, log) as server:
        server.wait_until_healthy()
        pid = int(pid_file.read_text())
        assert alive(pid)
        assert server.ended is None
    assert not alive(pid)
    assert "stopping" in log.read_text()


CLIENT = """
import sys, time
from pathlib import Path
from servescope.loadgen.launch import Server
from servescope.loadgen.study import LaunchSpec
from servescope.loadgen.experiment import EndpointSpec
command = [sys.executable, sys.argv[1], "--port", "{port}", "--children"]
where = EndpointSpec(base_url="http://127.0.0.1:{port}")
with Server("a", LaunchSpec(command=tuple(command)), where, Path(sys.argv[2])) as server:
    server.wait_until_healthy()
    print("healthy", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_with_its_client_however_that_ends(tmp_path: Path, number: int) -> None:
    log = tmp_path / "a.log"
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, MORTAL, log],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "healthy\n"
        pids = [*children_of(log), *descendants(client.pid)]
        assert len(set(pids)) >= 4  # the keeper, the server, its two children
        client.send_signal(number)
        client.wait(30)
        assert eventually(lambda: not any(map(alive, pids)))
    finally:
        client.kill()
        client.communicate()


def descendants(pid: int) -> list[int]:
    below = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            below += [child, *descendants(child)]
    return below


def test_an_engine_is_launched_as_the_server_that_it_describes(tmp_path: Path) -> None:
    engine = EngineSpec(system="sarathi", params={"chunk_tokens": "256"}, model="Llama-3.2-1B")
    how, endpoint = launch.how_to_reach(SystemSpec(name="e", engine=engine, real=True))
    assert how is not None
    with Server("e", how, endpoint, tmp_path / "e.log") as server:
        server.wait_until_healthy()
        (base,) = server.endpoint.urls
        assert "Llama-3.2-1B" in standing.get(f"{base}/v1/models").said


def test_a_busy_server_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    how = spec(*mortal("--busy-for", "2"))
    with Server("a", how, ENDPOINT, tmp_path / "a.log") as server:
        server.wait_until_healthy()
        bases = server.endpoint.urls
        with pytest.raises(EndpointError, match="not idle after 0 s: 1 calls run in it"):
            standing.wait_until_idle(bases, {}, 0)
        standing.wait_until_idle(bases, {}, 30)
        assert standing.busy(bases[0], {}) is None


def test_a_server_that_is_not_there_is_neither_busy_nor_alive() -> None:
    base = f"http://127.0.0.1:{free_port()}"
    assert standing.busy(base, {}) is None
    assert standing.dead([base], {}) == base


def test_the_end_of_a_log_is_short_and_without_colours(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert last_lines(log) == ""
    log.write_bytes(b"x" * 100_000 + b"\n\x1b[31mred\x1b[0m\n\n  last \xff\n")
    assert last_lines(log).endswith("red | last \ufffd")
    assert len(last_lines(log)) <= launch.TAIL_CHARACTERS
    assert os.path.getsize(log) > launch.TAIL_BYTES
