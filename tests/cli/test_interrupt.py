"""Ctrl-C as a user does it: a real program, a real signal, and what is left on the disk."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from servescope.loadgen import null_server
from servescope.traces import Run
from servescope.traces.sent_log import ENTRY

TOKENS, TBT_S = 20, 0.1  # a call lasts 2 s


def interrupted(out: Path, times: int) -> tuple[int, Run, float]:
    """Replay 10 calls a second and interrupt when 15 have been sent; returns when, in the run."""
    log = out / "sent-0.log"
    with null_server.serving(0.0, TBT_S) as url:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "servescope.cli", "replay", "--base-url", url),
                *("--isl", "10", "--osl", str(TOKENS), "--arrivals", "constant"),
                *("--request-rate", "10", "--duration", "60", "--out", str(out)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            end = time.monotonic() + 60
            while not log.exists() or log.stat().st_size < 15 * ENTRY.size:
                assert time.monotonic() < end
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
            for _ in range(times):
                process.send_signal(signal.SIGINT)
                said_s = time.monotonic()
                time.sleep(0.3)  # two at once would be one
            process.communicate(timeout=60)
        finally:
            process.kill()
    run = Run.open(out)
    assert run.info.zero_monotonic_s is not None
    return process.returncode, run, said_s - run.info.zero_monotonic_s


def test_a_first_ctrl_c_sends_nothing_more_and_lets_end_what_is_in_flight(tmp_path: Path) -> None:
    code, run, said_s = interrupted(tmp_path / "run", 1)
    calls = run.trace.collect()
    assert code == 130
    assert run.info.interrupted
    assert set(calls["status"]) == {"ok"}
    assert 15 <= calls.height < 200
    assert (calls["output_tokens"] == TOKENS).all()
    assert calls["end_s"].max() > said_s + 0.5  # it waited for them
    assert (run.path / "report.html").exists()


def test_a_second_ctrl_c_gives_up_what_is_in_flight_and_keeps_it_as_rows(tmp_path: Path) -> None:
    code, run, said_s = interrupted(tmp_path / "run", 2)
    calls = run.trace.collect()
    assert code == 130
    assert run.info.interrupted
    given_up = calls.filter(calls["status"] == "cancelled")
    assert given_up.height >= 10
    assert set(calls["status"]) <= {"ok", "cancelled"}
    # ended there and then: what was sent last had most of its two seconds before it
    late = given_up.filter(given_up["sent_s"] == given_up["sent_s"].max())
    assert late["end_s"].item() < late["sent_s"].item() + TOKENS * TBT_S
    assert said_s > 0
    assert any("was interrupted" in doubt for doubt in run.info.doubts)


def test_what_an_interrupted_run_left_can_be_sent(tmp_path: Path) -> None:
    """The rest is sent to another server, as the first one is gone with its port."""
    _, run, _ = interrupted(tmp_path / "run", 1)
    before = set(run.trace.collect()["call_id"])
    toml = run.path / "experiment.toml"
    text = toml.read_text()
    gone = text.split('base_url = "')[1].split('"')[0]
    assert len(before) < run.plan.height == 600
    with null_server.serving(0.0, 0.0) as url:
        toml.write_text(text.replace(gone, url))
        process = subprocess.Popen(
            [sys.executable, "-m", "servescope.cli", "replay", "--resume", str(run.path), "-q"],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            end = time.monotonic() + 30
            while not list(run.path.glob("sent-*.log")) and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)[1]
            assert process.returncode == 130, said
        finally:
            process.kill()
    again = Run.open(run.path)
    calls = again.trace.collect()
    assert calls["call_id"].n_unique() == calls.height > len(before)
    assert len(again.info.resumed_s) == 1
