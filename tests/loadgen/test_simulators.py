"""Simulations side by side are those one by one, and one that dies takes no other with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servescope.loadgen import ledger
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.ledger import Book
from servescope.loadgen.simulators import Answer, Simulators, cores
from servescope.loadgen.study import Study
from servescope.loadgen.study_runner import Step, run_study
from servescope.traces import Run
from servescope.traces.errors import InputError

TINY = {"name": "tiny", "synthetic": {"input_tokens": 20, "output_tokens": 5}, "calls": 12}
POLICY = """
import os
from servescope.engine.systems.vllm_v0 import VllmV0

class Mine:
    def plan(self, view):
        {does}
        return VllmV0().plan(view)
"""


def study(*systems: str, **more: Any) -> Study:
    asked = {
        "systems": [
            {"name": Path(each).stem, "engine": {"system": each}} for each in systems
        ],
        "workloads": [TINY],
        "rates": [20, 40, 80],
        **more,
    }  # fmt: skip
    return msgspec.convert(asked, Study)


def states(book: Book) -> dict[str, str]:
    return {entry.path: entry.state for entry in book.runs}


def policy(folder: Path, does: str, name: str = "policy.py") -> str:
    path = folder / name
    path.write_text(POLICY.format(does=does))
    return str(path)


def test_side_by_side_gives_what_one_by_one_gives(tmp_path: Path) -> None:
    asked = study("sarathi", "vllm_v0")
    heard: list[Step] = []
    alone = run_study(asked, tmp_path / "alone")
    book = run_study(asked, tmp_path / "together", heard.append, jobs=3)
    assert set(states(book).values()) == {"done"}
    assert states(book) == states(alone)
    for entry in book.runs:
        one, other = (Run.open(tmp_path / name / entry.path) for name in ("alone", "together"))
        assert one.trace.collect().equals(other.trace.collect())
        assert one.info.plan_sha256 == other.info.plan_sha256
        assert entry.started is not None
        assert entry.ended is not None
    assert [step.doing for step in heard].count("simulating") == 6
    assert [step.doing for step in heard].count("done") == 6
    assert {step.number for step in heard} == set(range(1, 7))
    # three at a time: three begin before the first has ended
    assert [step.doing for step in heard[:3]] == ["simulating"] * 3
    again: list[Step] = []
    run_study(asked, tmp_path / "together", again.append, jobs=3)
    assert again == []


def test_a_policy_that_fails_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    raises = policy(tmp_path, "1 / 0", "raises.py")
    book = run_study(study("sarathi", raises), tmp_path / "out", jobs=2)
    found = {entry.cell.system: entry for entry in book.runs}
    assert found["sarathi"].state == "done"
    assert found["raises"].state == "failed"
    assert "raises.py, line 7: ZeroDivisionError" in (found["raises"].why or "")


def test_a_process_that_dies_takes_its_own_run_with_it_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dies = policy(tmp_path, "os._exit(9)", "dies.py")
    prints = policy(tmp_path, "print('hello')", "prints.py")
    book = run_study(study(dies, prints, "sarathi"), tmp_path / "out", jobs=2)
    by_system = {(entry.cell.system, entry.state) for entry in book.runs}
    assert by_system == {("dies", "failed"), ("prints", "done"), ("sarathi", "done")}
    why = next(entry.why for entry in book.runs if entry.state == "failed")
    assert why == "The simulation's process ended with exit code 9. Was there enough memory?"
    assert capfd.readouterr().out == ""
    # what failed is tried again, and the rest is not
    heard: list[Step] = []
    run_study(study(dies, prints, "sarathi"), tmp_path / "out", heard.append, jobs=2)
    assert {step.cell.system for step in heard} == {"dies"}


def test_a_mistake_that_stops_one_stops_all_and_leaves_them_to_do(tmp_path: Path) -> None:
    asked = study("sarathi", "vllm_v0")
    out = tmp_path / "out"

    def spoil(step: Step) -> None:
        path = out / step.cell.path
        if step.doing == "simulating" and not path.exists():
            path.mkdir(parents=True)
            (path / "thesis.txt").touch()

    with pytest.raises(InputError, match="never overwritten"):
        run_study(asked, out, spoil, jobs=2)
    assert {"running", "failed"} & set(states(ledger.read(out)).values()) == set()
    assert set(states(run_study(asked, out, jobs=2)).values()) == {"done"}


def test_a_process_serves_one_experiment_after_the_other(tmp_path: Path) -> None:
    workload = WorkloadSpec(trace="azure:sample", calls=5)
    made = [Experiment(name=str(n), workload=workload, engine=EngineSpec()) for n in range(3)]
    with Simulators(1) as simulators:
        for experiment in made:
            assert simulators.free
            simulators.begin(experiment, tmp_path / experiment.name)
            assert not simulators.free
            ended: list[tuple[Path, Answer]] = []
            while not ended:
                ended = list(simulators.ended())
            assert ended == [(tmp_path / experiment.name, Answer("done"))]
        assert len(simulators._idle) == 1
        process = simulators._idle[0]._process
    assert process.poll() is not None
    assert all(Run.open(tmp_path / each.name).info.validity == "valid" for each in made)


def test_there_is_a_core() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_ctrl_c_keeps_what_is_done_and_leaves_no_process(tmp_path: Path) -> None:
    slow = policy(tmp_path, f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')")
    waits = tmp_path / "slow.py"
    waits.write_text(
        Path(slow).read_text().replace("return", "__import__('time').sleep(600); return")
    )
    file = tmp_path / "study.toml"
    file.write_text(
        f"""
rates = [20, 40]
[[systems]]
name = "a"
engine = {{ system = "sarathi" }}
[[systems]]
name = "slow"
engine = {{ system = "{waits}" }}
[[workloads]]
name = "w"
calls = 12
synthetic = {{ input_tokens = 20, output_tokens = 5 }}
"""
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "servescope.cli", "experiment", "run", file),
            *("--out", out, "--jobs", "3", "--quiet"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end_s = time.monotonic() + 60
        while not both_are_done(out, tmp_path / "pids"):
            assert time.monotonic() < end_s
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the runs that are done are kept" in said
    found = ledger.read(out)
    assert {entry.cell.system: entry.state for entry in found.runs} == {
        "a": "done",
        "slow": "pending",
    }
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def both_are_done(out: Path, pids: Path) -> bool:
    """Tell whether both runs of `a` are done and both of `slow` have begun."""
    if not (out / "study.json").exists() or not pids.exists():
        return False
    done = ledger.read(out).in_state("done")
    return len(done) == 2 and len(pids.read_text().split()) == 2
