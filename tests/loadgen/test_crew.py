"""Workers that die, hang or never begin: the run ends, says so, and keeps what came back."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from servescope.loadgen import crew as crews
from servescope.loadgen import null_server, runner
from servescope.loadgen.conductor import Tally
from servescope.loadgen.crew import Crew, WorkerFailed
from servescope.loadgen.experiment import (
    ArrivalSpec,
    EndpointSpec,
    Experiment,
    SyntheticSpec,
    WorkloadSpec,
)
from servescope.traces import Run


def experiment(url: str, seconds: float = 30.0) -> Experiment:
    """40 calls a second, each of them 0.55 s long, sent by two workers."""
    return Experiment(
        name="crew",
        workload=WorkloadSpec(
            synthetic=SyntheticSpec(input_tokens=10, output_tokens=10),
            arrivals=ArrivalSpec(process="constant", rate_rps=40.0),
            duration_s=seconds,
        ),
        endpoint=EndpointSpec(base_url=url, workers=2, scrape_s=0),
    )


def replayed(out: Path, seconds: float, once_sent: Callable[[Crew], None]) -> Run:
    """A run in which something befalls the crew as soon as 20 calls have been sent."""
    befallen: list[bool] = []
    with null_server.serving(0.1, 0.05) as url, Crew(2) as crew:

        def show(tally: Tally) -> None:
            if tally.sent >= 20 and not befallen:
                befallen.append(True)
                once_sent(crew)

        return runner.replay(experiment(url, seconds), out, show, crew)


def test_a_worker_that_dies_ends_the_run_in_good_order(tmp_path: Path) -> None:
    run = replayed(tmp_path / "run", 30.0, lambda crew: os.kill(crew.pids[0], signal.SIGKILL))
    calls = run.trace.collect()
    assert run.info.validity == "invalid"
    assert run.info.ended is not None
    assert "Worker 0 failed: its process ended" in run.info.doubts[0]
    assert calls.height < run.plan.height / 2  # the other worker sent nothing more either
    assert set(calls["status"]) == {"ok", "lost"}
    assert calls.filter(pl.col("worker") == 1)["status"].to_list().count("ok") >= 10
    lost = calls.filter(pl.col("status") == "lost")
    assert lost["dispatched_s"].is_not_null().all()


def test_a_worker_that_hangs_is_given_up_and_the_rest_can_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "LOOK_S", 0.2)
    monkeypatch.setattr(crews, "SILENT_S", 1.0)
    run = replayed(tmp_path / "run", 6.0, lambda crew: os.kill(crew.pids[1], signal.SIGSTOP))
    assert "Worker 1 failed: it has said nothing for 1 s" in run.info.doubts[0]
    assert run.info.client["failures"] == ["Worker 1 failed: it has said nothing for 1 s"]
    before = run.trace.collect()
    assert 0 < before.height < 240
    monkeypatch.undo()
    with null_server.serving(0.0, 0.0) as url:
        toml = (run.path / "experiment.toml").read_text()
        gone = toml.split('base_url = "')[1].split('"')[0]
        (run.path / "experiment.toml").write_text(toml.replace(gone, url))
        calls = runner.resume(run.path).trace.collect()
    assert calls.height == calls["call_id"].n_unique() == 240
    lost = before.filter(pl.col("status") == "lost")
    assert set(calls.filter(pl.col("status") != "ok")["call_id"]) == set(lost["call_id"])


def test_a_worker_that_never_begins_is_an_error_and_not_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "START_S", 0.5)
    monkeypatch.setattr(crews, "END_S", 0.2)
    with null_server.serving(0.0, 0.0) as url, Crew(2) as crew:
        os.kill(crew.pids[1], signal.SIGSTOP)
        with pytest.raises(WorkerFailed, match=r"not ready within 0\.5 s"):
            runner.replay(experiment(url), tmp_path / "run", None, crew)
        assert crew.pids == []


def test_a_crew_that_is_never_needed_ends_with_its_block() -> None:
    with Crew(2) as crew:
        pids = crew.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
