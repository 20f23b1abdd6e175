"""A run that is killed at any moment keeps what had ended, and what it had not sent can be sent."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from background import Background
from faulty_server import DONE, LAST, TOKEN, USAGE, Faulty, serving

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.traces import Run, sent_log
from servescope.traces.errors import InputError

TOKENS = 7  # unlike the probe's


async def answer(_: Any, response: Any) -> None:
    import asyncio

    await response.write(TOKEN)
    await asyncio.sleep(0.05)
    for data in (LAST, USAGE % TOKENS, DONE):
        await response.write(data)


@pytest.fixture
def server() -> Iterator[Faulty]:
    with Background(serving(Faulty(script=answer))) as found:
        yield found


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """300 calls in 3 seconds: single ones, and every tenth a chat of three turns."""
    lines = ["arrival_s,call_id,program_id,turn,parents,delay_s,input_tokens,output_tokens"]
    for number in range(240):
        at_s = number / 80
        lines.append(f"{at_s:.3f},c{number},,,,,{20 + number},{TOKENS}")
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def asked(server: Faulty, trace: Path) -> Experiment:
    return Experiment(
        name="killed",
        workload=WorkloadSpec(trace=str(trace)),
        endpoint=EndpointSpec(base_url=server.url),
    )


def prompts_of(server: Faulty) -> Counter[int]:
    """How often each prompt was sent, by its length, which no two calls share."""
    bodies = [msgspec.json.decode(body) for body in server.bodies]
    return Counter(len(b["prompt"]) for b in bodies if b["max_tokens"] == TOKENS)


def killed(server: Faulty, trace: Path, out: Path, after_s: float, number: int) -> float:
    """Replay in a process of its own and kill it; returns when, on the monotonic clock."""
    command = [sys.executable, "-m", "servescope.cli", "replay", trace, "--quiet"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--base-url", server.url, "--out", out],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not prompts_of(server) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        time.sleep(after_s)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.send_signal(number)
        killed_s = time.monotonic()
        process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)
    return killed_s


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("seed", range(3))
def test_after_kill_9_at_any_moment_at_most_a_second_is_lost_and_the_rest_can_be_sent(
    server: Faulty, trace: Path, tmp_path: Path, seed: int
) -> None:
    out = tmp_path / "run"
    killed(server, trace, out, random.Random(seed).uniform(0.3, 2.2), signal.SIGKILL)
    before = prompts_of(server)
    run = Run.open(out)
    calls = run.trace.collect()
    assert 0 < len(before) < 240
    assert calls.height == len(before)  # every call that the server saw has a row
    assert set(calls["status"]) <= {"ok", "lost"}
    # What has no end was sent in the last second before the kill: nothing older is lost.
    ended_s: float = calls["end_s"].max()  # type: ignore[assignment]
    assert run.info.ended is None
    last_s = max(sent_log.read(out).values())
    lost = calls.filter(pl.col("status") == "lost")
    assert (lost["dispatched_s"] > last_s - 1.1).all()
    assert ended_s > last_s - 1.1

    resumed = runner.resume(out)
    after = prompts_of(server)
    assert after == Counter(range(20, 260))  # each exactly once
    calls = resumed.trace.collect()
    assert calls.height == 240
    assert calls["call_id"].n_unique() == 240
    assert calls.filter(pl.col("status") == "lost").height == lost.height
    assert (calls.filter(pl.col("status") != "lost")["status"] == "ok").all()
    assert resumed.info.validity == "suspect"
    assert any("had stopped and went on at" in doubt for doubt in resumed.info.doubts)
    assert {path.name for path in out.iterdir()} == {
        "experiment.toml", "run.json", "plan.parquet", "calls.parquet", "server.parquet",
    }  # fmt: skip


def test_a_run_that_was_interrupted_can_go_on(server: Faulty, trace: Path, tmp_path: Path) -> None:
    shown = []

    def interrupt(tally: object) -> None:
        shown.append(tally)
        if len(shown) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    run = runner.replay(asked(server, trace), tmp_path / "run", interrupt)
    stopped = run.trace.collect()
    assert run.info.interrupted
    assert 0 < stopped.height < 240
    assert set(stopped["status"]) == {"ok"}  # what was in flight was waited for
    run = runner.resume(run.path)
    assert prompts_of(server) == Counter(range(20, 260))
    assert (run.trace.collect()["status"] == "ok").all()
    assert not run.info.interrupted


def test_a_whole_run_has_nothing_left_to_send(server: Faulty, trace: Path, tmp_path: Path) -> None:
    experiment = asked(server, trace)
    experiment = msgspec.structs.replace(
        experiment, workload=WorkloadSpec(trace=str(trace), calls=5)
    )
    run = runner.replay(experiment, tmp_path / "run")
    with pytest.raises(InputError, match="is whole: every call has been sent"):
        runner.resume(run.path)


def test_a_trace_that_has_changed_is_not_resumed(
    server: Faulty, trace: Path, tmp_path: Path
) -> None:
    experiment = msgspec.structs.replace(
        asked(server, trace), workload=WorkloadSpec(trace=str(trace), calls=5)
    )
    run = runner.replay(experiment, tmp_path / "run")
    trace.write_text(trace.read_text().replace(f"20,{TOKENS}", f"21,{TOKENS}"))
    with pytest.raises(InputError, match="planned from a trace that has changed"):
        runner.resume(run.path)
