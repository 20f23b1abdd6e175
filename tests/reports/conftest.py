from pathlib import Path

import pytest

from servescope.analysis import SLO
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate
from servescope.reports import Story, story_of
from servescope.traces import Run

SYSTEMS = {"vllm_v0": {}, "sarathi": {"chunk_tokens": "2048"}}


def simulated(name: str, system: str, out: Path, **workload: object) -> Run:
    fields = {"trace": "mooncake:sample", "duration_s": 40.0, "time_scale": 0.4, **workload}
    params = SYSTEMS[system]
    experiment = Experiment(
        name=name,
        workload=WorkloadSpec(**fields),  # type: ignore[arg-type]
        engine=EngineSpec(system=system, params=params, model="Llama-3.2-1B", tp=2),
    )
    return simulate(experiment, out)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of another plan."""
    return simulated("other", "sarathi", tmp_path_factory.mktemp("other") / "run", duration_s=30.0)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs of one plan. One has a name that would break a careless page."""
    out = tmp_path_factory.mktemp("runs")
    nasty = "</script><script>alert(1)</script> & co"
    return [simulated("plain", "vllm_v0", out / "a"), simulated(nasty, "sarathi", out / "b")]


@pytest.fixture(scope="session")
def pair(runs: list[Run]) -> Story:
    return story_of(runs, SLO.parse("ttft<2s,stall<100ms"))


@pytest.fixture(scope="session")
def single(runs: list[Run]) -> Story:
    return story_of(runs[:1])
