"""A suite is read whole, or its mistake is named; the one that ships is what its version says."""

from pathlib import Path

import pytest

from servescope.loadgen import suite as suites
from servescope.loadgen.workload import digest, workload_of
from servescope.traces.errors import InputError

CASE = """
[[cases]]
name = "one"
slo = "ttft<1s"
workload = { calls = 3, synthetic = { input_tokens = 200, output_tokens = 20 } }
"""
# What version 1 asks, call for call. Raise the version in suite.toml with these.
VERSION = 1
PLANS = {
    "chat": "63bcbffbd212",
    "mixed": "201ae8fceccd",
    "bursts": "0e26e9d14887",
    "agents": "5177174ce482",
    "overload": "18f1d5543613",
}


def read(folder: Path, text: str) -> suites.Suite:
    path = folder / "suite.toml"
    path.write_text(text)
    return suites.read(path)


def plans(suite: suites.Suite) -> dict[str, str]:
    found = {}
    for case in suite.cases:
        workload = workload_of(case.workload, case.seed)
        found[case.name] = digest(workload.plan(), case.seed, workload.block_tokens, ())
    return found


def test_the_suite_that_ships_asks_what_its_version_says() -> None:
    suite = suites.read("default")
    assert suite.version == VERSION
    assert {name: plan[:12] for name, plan in plans(suite).items()} == PLANS


def test_another_seed_is_another_load_of_the_same_kind() -> None:
    case = suites.read("default").cases[0]
    experiments = [case.experiment("sarathi", {}, seed) for seed in (0, 1)]
    starts = [workload_of(e.workload, e.seed).plan()["due_s"].to_list() for e in experiments]
    assert len(starts[0]) == len(starts[1])
    assert starts[0] != starts[1]


def test_a_case_is_an_experiment_on_any_system(tmp_path: Path) -> None:
    suite = read(tmp_path, 'name = "mine"\nversion = 3' + CASE + "engine = { gpu = 'A40' }")
    experiment = suite.cases[0].experiment("policy.py", {"seats": "3"}, seed=4)
    assert experiment.engine is not None
    assert (experiment.engine.system, experiment.engine.params) == ("policy.py", {"seats": "3"})
    assert (experiment.engine.gpu, experiment.seed, experiment.slo) == ("A40", 4, "ttft<1s")


def test_a_digest_is_of_what_is_asked(tmp_path: Path) -> None:
    head = 'name = "mine"\n'
    assert read(tmp_path, head + CASE).sha256 == read(tmp_path, "# x\n" + head + CASE).sha256
    other = CASE.replace("calls = 3", "calls = 4")
    assert read(tmp_path, head + other).sha256 != read(tmp_path, head + CASE).sha256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\ncases = []', "has no case"),
        ('name = "x"' + CASE + CASE, "2 cases are called 'one'"),
        ('name = "x"' + CASE.replace("ttft<1s", "speed<1s"), "speed"),
        ('name = "x"' + CASE + "engine = { system = 'vllm_v0' }", "names a system"),
        ('name = "x"' + CASE + "colour = 1", r"unknown field `colour` - at `\$\.cases\[0\]`"),
        ("name = ", "is not a suite"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, text)


def test_a_suite_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no suite"):
        suites.read(tmp_path / "none.toml")
