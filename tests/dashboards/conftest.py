"""Runs for the dashboards to show: simulated ones, in a folder as a user would have it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate

pytest.importorskip("dash", reason="needs the extra servescope[dashboard]")

SLO = "ttft<2s,stall<100ms"


def simulated_run(system: str, out: Path, duration_s: float = 40.0) -> None:
    simulate(
        Experiment(
            name=out.name,
            workload=WorkloadSpec(trace="mooncake:sample", duration_s=duration_s, time_scale=0.4),
            engine=EngineSpec(system=system, model="Llama-3.2-1B"),
            slo=SLO,
        ),
        out,
    )


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems that served one plan: chat/sarathi and chat/vllm_v0."""
    folder = tmp_path_factory.mktemp("dashboards") / "runs"
    for system in ("sarathi", "vllm_v0"):
        simulated_run(system, folder / "chat" / system)
    return folder


@pytest.fixture
def runs(kept: Path, tmp_path: Path) -> Path:
    """A copy of these runs that a test may spoil."""
    return Path(shutil.copytree(kept, tmp_path / "runs"))
