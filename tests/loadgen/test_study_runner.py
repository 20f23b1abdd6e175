"""A study goes on whatever becomes of its systems, and goes on again where it was stopped."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servescope.loadgen import ledger, study_runner
from servescope.loadgen.launch import Server, free_port
from servescope.loadgen.ledger import Book
from servescope.loadgen.study import Study
from servescope.loadgen.study_runner import Step, run_study
from servescope.traces import Run
from servescope.traces.errors import InputError, NotARun, OutputExists

MORTAL = str(Path(__file__).parents[1] / "servers" / "mortal.py")
VIRTUAL = {"name": "virtual", "engine": {"system": "sarathi"}}
TINY = {"name": "tiny", "synthetic": {"input_tokens": 20, "output_tokens": 5}, "calls": 12}
ON_LOOPBACK = {"base_url": "http://127.0.0.1:{port}"}


def mortal(name: str, *options: str, **launch: Any) -> dict[str, Any]:
    command = [sys.executable, MORTAL, "--port", "{port}", *options]
    how = {"command": command, "start_timeout_s": 30, "stop": {"grace_s": 5}, **launch}
    return {"name": name, "endpoint": ON_LOOPBACK, "launch": how}


def study(*systems: dict[str, Any], **more: Any) -> Study:
    asked = {"systems": systems, "workloads": [TINY], "rates": [40], "warmup_calls": 1, **more}
    return msgspec.convert(asked, Study)


class Heard(list[Step]):
    def __call__(self, step: Step) -> None:
        self.append(step)

    @property
    def steps(self) -> list[tuple[str, str]]:
        return [(step.cell.system, step.doing) for step in self]


def states(book: Book) -> dict[str, str]:
    return {entry.path: entry.state for entry in book.runs}


def test_a_launched_system_is_waited_for_warmed_up_and_idle_before_it_is_measured(
    tmp_path: Path,
) -> None:
    heard = Heard()
    asked = study(mortal("a", "--ill-for", "0.5", "--busy-for", "2"), slo="ttft<2s", warmup_s=0.01)
    book = run_study(asked, tmp_path / "out", heard)
    doing = [step for _, step in heard.steps]
    assert doing == ["launching", "warming up", "waiting", "measuring", "done"]
    (entry,) = book.runs
    assert (entry.state, entry.why) == ("done", None)
    run = Run.open(tmp_path / "out" / entry.path)
    calls = run.trace.collect()
    assert calls.height == 12  # the warm-up's are not among them
    assert set(calls["status"]) == {"ok"}
    assert (run.info.name, run.info.slo, run.info.warmup_s) == ("a", "ttft<2s", 0.01)
    # the metrics page that was scraped over the run never said that anything ran in it
    assert run.server is not None
    busy = run.server.filter(name="vllm:num_requests_running")["value"]
    assert busy.max() == 0


def test_systems_are_sent_the_same_plan_and_blocks_another(tmp_path: Path) -> None:
    engines = [VIRTUAL, {**VIRTUAL, "name": "other"}]
    book = run_study(study(*engines, repeats=2), tmp_path / "out")
    plans = {
        entry.path: Run.open(tmp_path / "out" / entry.path).info.plan_sha256 for entry in book.runs
    }
    assert plans["virtual/tiny-40rps-1"] == plans["other/tiny-40rps-1"]
    assert plans["virtual/tiny-40rps-2"] == plans["other/tiny-40rps-2"]
    assert len(set(plans.values())) == 2


def test_a_system_that_dies_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    heard = Heard()
    # three calls to warm up and two to probe come before the first that is measured
    asked = study(mortal("dies", "--dies-after", "9"), mortal("lives"), repeats=1)
    book = run_study(asked, tmp_path / "out", heard)
    assert states(book) == {"dies/tiny-40rps-1": "failed", "lives/tiny-40rps-1": "done"}
    why = book.runs[0].why
    assert why is not None
    assert "ended with exit code 7. Its log ends: dying after 9 calls" in why
    run = Run.open(tmp_path / "out" / "dies" / "tiny-40rps-1")
    calls = run.trace.collect()
    assert 0 < calls.filter(status="ok").height < calls.height  # what came back is kept
    assert any("exit code 7" in doubt for doubt in run.info.doubts)
    assert heard.steps[-1] == ("lives", "done")


def test_nothing_more_is_sent_to_a_server_that_has_died(tmp_path: Path) -> None:
    long = {**TINY, "calls": 4000}
    asked = study(mortal("dies", "--dies-after", "20"), workloads=[long])
    began_s = time.monotonic()
    book = run_study(asked, tmp_path / "out")
    assert time.monotonic() - began_s < 60  # the plan lasts 100 s
    assert book.runs[0].state == "failed"
    run = Run.open(tmp_path / "out" / book.runs[0].path)
    assert run.info.interrupted
    assert run.trace.collect().height < 4000


def test_a_system_that_never_becomes_healthy_fails_and_is_given_up_after_two_launches(
    tmp_path: Path,
) -> None:
    heard = Heard()
    ill = mortal("ill", "--ill-for", "600", start_timeout_s=0.5)
    book = run_study(study(ill, VIRTUAL, repeats=3), tmp_path / "out", heard)
    found = [entry for entry in book.runs if entry.cell.system == "ill"]
    assert {entry.state for entry in found} == {"failed"}
    assert all("is not healthy" in (entry.why or "") for entry in found[:2])
    assert "was not launched again after 2 launches that failed" in (found[2].why or "")
    assert heard.steps.count(("ill", "launching")) == 2
    assert {e.state for e in book.runs if e.cell.system == "virtual"} == {"done"}


def test_a_system_that_stays_busy_fails_and_is_not_measured(tmp_path: Path) -> None:
    busy = mortal("busy", "--busy-for", "600")
    book = run_study(study(busy, idle_timeout_s=0.3), tmp_path / "out")
    assert book.runs[0].state == "failed"
    assert "is not idle after 0.3 s: 1 calls run in it" in (book.runs[0].why or "")
    assert not (tmp_path / "out" / book.runs[0].path).exists()


def test_a_running_server_that_is_not_there_fails_and_is_tried_again(tmp_path: Path) -> None:
    port = free_port()
    there = {"name": "url", "endpoint": {"base_url": f"http://127.0.0.1:{port}"}}
    asked = study(there, VIRTUAL)
    book = run_study(asked, tmp_path / "out")
    assert states(book) == {"url/tiny-40rps-1": "failed", "virtual/tiny-40rps-1": "done"}
    assert "Nothing answers at" in (book.runs[0].why or "")
    measured = (tmp_path / "out" / "virtual" / "tiny-40rps-1" / "run.json").stat().st_mtime_ns
    launch = msgspec.convert(mortal("x")["launch"], study_runner.launch.LaunchSpec)
    endpoint = msgspec.convert(there["endpoint"], study_runner.EndpointSpec)
    command = tuple(str(port) if word == "{port}" else word for word in launch.command)
    launch = msgspec.structs.replace(launch, command=command)
    with Server("x", launch, endpoint, tmp_path / "x.log") as server:
        server.wait_until_healthy()
        heard = Heard()
        again = run_study(asked, tmp_path / "out", heard)
    assert set(states(again).values()) == {"done"}
    assert {system for system, _ in heard.steps} == {"url"}
    after = (tmp_path / "out" / "virtual" / "tiny-40rps-1" / "run.json").stat().st_mtime_ns
    assert after == measured


def test_a_server_that_is_kept_is_launched_once_for_neighbouring_runs(tmp_path: Path) -> None:
    kept = [mortal(name, fresh=False) for name in "ab"]
    heard = Heard()
    book = run_study(study(*kept, repeats=2), tmp_path / "out", heard)
    assert [e.cell.system for e in book.runs] == ["a", "b", "b", "a"]
    launched = [system for system, doing in heard.steps if doing == "launching"]
    assert launched == ["a", "b", "a"]
    assert set(states(book).values()) == {"done"}


def test_a_fresh_server_is_launched_for_every_run(tmp_path: Path) -> None:
    heard = Heard()
    run_study(study(mortal("a"), repeats=2), tmp_path / "out", heard)
    assert [doing for _, doing in heard.steps].count("launching") == 2


def test_what_cannot_be_asked_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    unknown = {"name": "x", "engine": {"system": "no-such"}}
    gone = {"name": "w", "trace": "no/such/file.csv"}
    with pytest.raises(InputError, match="no-such"):
        run_study(study(VIRTUAL, unknown), out)
    with pytest.raises(InputError, match=r"no/such/file\.csv"):
        run_study(study(VIRTUAL, workloads=[gone]), out)
    bad = {"name": "x", "endpoint": {"base_url": "127.0.0.1:8000"}}
    with pytest.raises(InputError, match="is not a URL of a server"):
        run_study(study(bad), out)
    assert not out.exists()


def test_a_folder_with_another_study_or_with_something_else_is_refused(tmp_path: Path) -> None:
    run_study(study(VIRTUAL), tmp_path / "out")
    with pytest.raises(InputError, match="holds another study"):
        run_study(study(VIRTUAL, repeats=2), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(OutputExists):
        run_study(study(VIRTUAL), tmp_path / "full")
    with pytest.raises(NotARun, match="holds no study"):
        ledger.read(tmp_path / "full")
    (tmp_path / "out" / "study.json").write_text("{")
    with pytest.raises(NotARun, match="cannot be read"):
        run_study(study(VIRTUAL), tmp_path / "out")


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    asked = study(VIRTUAL)

    def second(step: Step) -> None:
        with pytest.raises(InputError, match="Another experiment is at work"):
            run_study(asked, tmp_path / "out")

    assert states(run_study(asked, tmp_path / "out", second)) == {"virtual/tiny-40rps-1": "done"}
    assert run_study(asked, tmp_path / "out").in_state("done")


FILE = """
rates = [40]
repeats = {repeats}
warmup_calls = 0

[[systems]]
name = "a"
endpoint = {{ base_url = "http://127.0.0.1:{{port}}" }}
launch = {{ command = ["{python}", "{mortal}", "--port", "{{port}}", "--children"] }}

[[workloads]]
name = "w"
synthetic = {{ input_tokens = 20, output_tokens = 5 }}
calls = {calls}
"""


class Program:
    """`servescope experiment run` as a process of its own, in the middle of its second run."""

    def __init__(self, folder: Path, calls: int, repeats: int = 3) -> None:
        self.out = folder / "out"
        self.file = folder / "study.toml"
        self.file.write_text(
            FILE.format(python=sys.executable, mortal=MORTAL, calls=calls, repeats=repeats)
        )
        self.process = self.start()
        self.reach("a/w-40rps-2")
        self.below = [*descendants(self.process.pid), *self.children()]
        assert len(set(self.below)) >= 4  # a keeper, a server, its two children

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "servescope.cli", "experiment", "run"),
                *(self.file, "--out", self.out),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def reach(self, path: str) -> None:
        sent = self.out / path / "sent-0.log"
        assert eventually(lambda: sent.exists() and sent.stat().st_size > 100, 60), (
            self.process.poll(),
            list(self.out.rglob("*")),
        )

    def children(self) -> list[int]:
        logs = self.out.glob("a/*.log")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        return [int(line.split()[1]) for line in lines if line.startswith("child ")]


def eventually(condition: Callable[[], bool], within_s: float = 30) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def descendants(pid: int) -> list[int]:
    below = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            below += [child, *descendants(child)]
    return below


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    program = Program(tmp_path, calls=120)
    program.process.send_signal(signal.SIGKILL)
    program.process.communicate(timeout=30)
    book = ledger.read(program.out)
    assert list(states(book).values()) == ["done", "running", "pending"]
    first = (program.out / "a" / "w-40rps-1" / "run.json").read_bytes()
    assert eventually(lambda: not any(map(alive, program.below)))

    again = program.start()
    said = again.communicate(timeout=120)[1]
    assert again.returncode in (0, 1), said  # 1: the machine was too slow for a valid run
    assert set(states(ledger.read(program.out)).values()) == {"done"}
    assert (program.out / "a" / "w-40rps-1" / "run.json").read_bytes() == first
    aside = Run.open(program.out / "a" / "w-40rps-2.unfinished-1")
    assert aside.info.validity == "unfinished"
    whole = Run.open(program.out / "a" / "w-40rps-2")
    assert whole.trace.collect().height == 120
    assert not whole.info.resumed_s
    assert "run 1 of 3" not in said


@pytest.mark.slow
def test_ctrl_c_stops_in_good_order_says_how_to_go_on_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    program = Program(tmp_path, calls=200, repeats=2)
    program.process.send_signal(signal.SIGINT)
    said = program.process.communicate(timeout=60)[1]
    assert program.process.returncode == 130
    assert f"servescope experiment run {program.file} --out {program.out}" in said
    assert "Traceback" not in said
    assert not any(map(alive, program.below))
    assert list(states(ledger.read(program.out)).values()) == ["done", "pending"]
    stopped = Run.open(program.out / "a" / "w-40rps-2")
    assert stopped.info.interrupted
    assert stopped.info.ended is not None


def test_ctrl_c_while_a_server_starts_leaves_no_process(tmp_path: Path) -> None:
    file, out = tmp_path / "study.toml", tmp_path / "out"
    text = FILE.format(python=sys.executable, mortal=MORTAL, calls=10, repeats=1)
    file.write_text(text.replace('"--children"', '"--ill-for", "600", "--children"'))
    process = subprocess.Popen(
        [sys.executable, "-m", "servescope.cli", "experiment", "run", file, "--out", out],
        stderr=subprocess.PIPE,
        text=True,
    )
    log = out / "a" / "w-40rps-1.log"
    assert eventually(lambda: log.exists() and log.read_text().count("child") == 2)
    below = descendants(process.pid)
    below += [int(line.split()[1]) for line in log.read_text().splitlines()]
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Go on with" in said
    assert not any(map(alive, below))
    assert states(ledger.read(out)) == {"a/w-40rps-1": "pending"}
