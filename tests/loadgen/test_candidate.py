"""Whatever a candidate does, its process ends in time and the failure is data."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from servescope.loadgen import candidate
from servescope.loadgen.candidate import Failure, Job
from servescope.loadgen.suite import Suite
from servescope.traces import Run

TINY = """{"name": "tiny", "cases": [{"name": "one", "slo": "ttft<1s", "workload": {
  "calls": 30, "synthetic": {"input_tokens": 200, "output_tokens": 20},
  "arrivals": {"rate_rps": 5.0}}}]}"""
# It does something at its fifth plan, and goes on.
POLICY = """
from servescope.engine.systems.vllm_v0 import VllmV0

class Mine:
    plans = 0

    def plan(self, view):
        self.plans += 1
        if self.plans == 5:
            {does}
        return VllmV0().plan(view)
"""


def job(folder: Path, text: str, **limits: float) -> Job:
    policy, out = folder / "policy.py", folder / "out"
    policy.write_text(text)
    out.mkdir()
    return Job(
        system=str(policy),
        params={},
        cases=msgspec.json.decode(TINY, type=Suite).cases,
        seed=0,
        folder=str(out),
        time_limit_s=limits.get("time_limit_s", 60.0),
        memory_bytes=int(limits.get("memory_bytes", 2e9)),
    )


def failure(folder: Path, text: str, **limits: float) -> Failure | None:
    return candidate.run(job(folder, text, **limits))


@pytest.mark.parametrize(
    ("does", "kind", "said"),
    [
        ("import sys; sys.exit(0)", "exception", "policy.py, line 10: SystemExit: 0."),
        ("1 / 0", "exception", "policy.py, line 10: ZeroDivisionError: division by zero."),
        ("raise KeyboardInterrupt", "exception", "The policy interrupts the run."),
        ("import os; os._exit(0)", "crash", "ended with exit code 0 before it was done"),
        ("import os; os.kill(os.getpid(), 9)", "crash", "was killed by signal 9"),
        ("return None", "bad_plan", "Mine plans NoneType in place of a Batch."),
        (
            "from servescope.engine import Batch; return Batch(admit=[(view.waiting[0], 10**9)])",
            "bad_plan",
            "The plan takes 1000000000 KV blocks",
        ),
        ("from servescope.engine import Batch; return Batch()", "deadlock", "Mine plans nothing"),
        ("view.waiting[0]._output_tokens", "violation", "how long an answer will be"),
        ("view.pool.free += 1", "violation", "every block is free, held by one request"),
        (
            "from servescope.engine import StepTime; StepTime.__call__ = lambda self, load: 1e-6",
            "violation",
            "changes servescope.engine.step_time.StepTime.__call__",
        ),
        (
            "import heapq; heapq.heappush = lambda *given: None",
            "violation",
            "changes heapq.heappush",
        ),
    ],
)
def test_a_policy_that_fails_says_how(tmp_path: Path, does: str, kind: str, said: str) -> None:
    found = failure(tmp_path, POLICY.format(does=does))
    assert found is not None
    assert (found.kind, said in found.error) == (kind, True), found
    assert found.case == (None if kind == "crash" else "one")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("class Mine(", "syntax", "policy.py, line 1"),
        ("x = 1", "no_system", "defines no system"),
        ("x = 1 / 0", "exception", "policy.py, line 1: ZeroDivisionError"),
        ("x = [bytearray(10**8) for _ in range(100)]", "memory", "MemoryError"),
        (POLICY.format(does="x = [bytearray(10**8) for _ in range(100)]"), "memory", "1,000 MB"),
    ],
)
def test_a_policy_that_cannot_be_loaded_or_takes_too_much_fails(
    tmp_path: Path, text: str, kind: str, said: str
) -> None:
    found = failure(tmp_path, text, memory_bytes=1e9)
    assert found is not None
    assert (found.kind, said in found.error) == (kind, True), found


@pytest.mark.parametrize("text", ["while True: pass", POLICY.format(does="while True: pass")])
def test_a_policy_that_takes_too_long_is_killed(tmp_path: Path, text: str) -> None:
    began_s = time.monotonic()
    found = failure(tmp_path, text, time_limit_s=4)
    assert found == Failure(kind="timeout", error="The policy took more than 4 s over the suite.")
    assert time.monotonic() - began_s < 30


def test_a_process_that_a_policy_starts_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    starts = f"import subprocess; p = subprocess.Popen(['sleep', '600']); open({str(note)!r}, 'w')"
    found = failure(tmp_path, POLICY.format(does=f"{starts}.write(str(p.pid))"))
    assert found is None
    pid = int(note.read_text())
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1]:
            return  # ended, and nobody has asked for it
        time.sleep(0.05)
    pytest.fail("it lives on")


def test_threads_and_prints_and_drawing_change_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, does in (
        ("plain", "pass"),
        ("prints", "print('{\"score\": 100}')"),
        ("threads", "import threading; threading.Thread(target=lambda: [0 for _ in iter(int, 1)]"
         ").start()"),
        ("draws", "import random; random.random(); random.seed(7)"),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        assert failure(tmp_path / name, POLICY.format(does=does)) is None
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == '{"score": 100}\n'
    runs = [Run.open(folder / "out" / "one").trace.collect() for folder in tmp_path.iterdir()]
    assert len(runs) == 4
    assert all(run.equals(runs[0]) for run in runs)


def test_a_wrong_name_or_parameter_is_the_users_mistake(tmp_path: Path) -> None:
    asked = job(tmp_path, POLICY.format(does="pass"))
    for wrong in ({"params": {"seats": "1"}}, {"system": "sarathy"}):
        found = candidate.run(msgspec.structs.replace(asked, **wrong))  # type: ignore[arg-type]
        assert found is not None
        assert found.kind == "input"
