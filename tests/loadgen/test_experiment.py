from pathlib import Path

import pytest
import tomli_w

from servescope.loadgen import experiment as experiments
from servescope.loadgen.experiment import EndpointSpec, EngineSpec, Experiment, WorkloadSpec
from servescope.traces.errors import InputError

FULL = Experiment(
    name="n",
    workload=WorkloadSpec(trace="azure:sample", duration_s=3.0, time_scale=0.5),
    endpoint=EndpointSpec(base_url="http://127.0.0.1:1", extra_body={"top_k": 1}),
    engine=EngineSpec(params={"chunk_tokens": "512"}),
    slo="ttft<1s",
)


def test_an_experiment_written_as_toml_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(tomli_w.dumps(experiments.to_toml(FULL)))
    assert experiments.read(path) == FULL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 'n'", "workload"),
        ("name = 'n'\n[workload]\ntrace = 'a'\nspeed = 3", "speed"),
        ("name = 'n'\n[workload]\ntrace = 'a'\ntime_scale = 0", r"\$\.workload\.time_scale"),
        ("name = 3\n[workload]\ntrace = 'a'", r"\$\.name"),
        ("name = ", "is not an experiment"),
    ],
)
def test_a_mistake_is_named_by_its_path(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "e.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        experiments.read(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        experiments.read(tmp_path / "none.toml")


def test_no_field_of_an_experiment_can_hold_a_key() -> None:
    """Keys are named by an environment variable and never written into a run."""
    names = set(EndpointSpec.__struct_fields__)
    assert not names & {"api_key", "key", "token", "password"}


def test_a_python_file_is_looked_for_beside_the_experiment_and_then_from_here(
    tmp_path: Path,
) -> None:
    (tmp_path / "policy.py").write_text("")
    path = tmp_path / "e.toml"
    for asked, found in (
        ("policy.py:Mine", f"{tmp_path}/policy.py:Mine"),
        ("elsewhere/policy.py", "elsewhere/policy.py"),
        ("sarathi", "sarathi"),
    ):
        path.write_text(f"name = 'n'\nworkload.trace = 'a'\nengine.system = '{asked}'")
        engine = experiments.read(path).engine
        assert engine is not None
        assert engine.system == found
