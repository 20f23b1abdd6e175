"""`servescope engine`: what is listed, the user's own files, and a fit that others can use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from servescope.cli.main import app
from servescope.engine import find_gpu, find_overhead, gpus, models, overheads
from servescope.traces.errors import InputError

OWN = """
["My-3B"]
layers = 28
hidden = 3072
intermediate = 8192
heads = 24
kv_heads = 8
head_dim = 128
vocabulary = 128256
context_tokens = 8192
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVESCOPE_DATA", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def simulated(out: Path, *words: str) -> str:
    trace = ["simulate", "workload:llumnix-sharegpt", "--num-prompts", "200", "--rate", "5"]
    run(*trace, "--system", "vllm_v1", "--out", str(out), *words)
    return str(out)


@pytest.mark.parametrize(
    ("verb", "known"), [("models", models), ("gpus", gpus), ("overheads", overheads)]
)
def test_all_that_is_known_is_listed(verb: str, known: object) -> None:
    names = list(known())  # type: ignore[operator]
    assert list(json.loads(run("engine", verb, "--json"))) == names
    shown = run("engine", verb)
    assert all(name in shown for name in names)


def test_a_model_of_the_users_own_is_listed_and_simulated(folder: Path, tmp_path: Path) -> None:
    (folder / "models.toml").write_text(OWN)
    assert "My-3B" in run("engine", "models")
    simulated(tmp_path / "run", "--model", "my-3b")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["system"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layers = ", "is not TOML"),
        (OWN.replace("layers = 28", "layers = 0"), "`int` >= 1 - at `My-3B.layers`"),
        (OWN.replace("layers = 28", ""), "missing required field `layers` - at `My-3B`"),
        (OWN + "colour = 3", "unknown field `colour` - at `My-3B`"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_field(folder: Path, text: str, says: str) -> None:
    (folder / "models.toml").write_text(text)
    with pytest.raises(InputError) as raised:
        run("engine", "models")
    assert says in str(raised.value)
    assert str(folder / "models.toml") in str(raised.value)


def test_a_fit_is_told_kept_and_used(folder: Path, tmp_path: Path) -> None:
    """Of a run that an engine with other figures served; the held out half is said apart."""
    (folder / "overheads.toml").write_text("[slow]\nstep_s = 5e-3\n")
    made = simulated(tmp_path / "made", "--gpu", "H100", "--overhead", "slow")
    fit = ["engine", "calibrate", made, "--gpu", "h100", "--overhead", "plain"]
    found = json.loads(run(*fit, "--json"))
    assert found["began"]["step_s"] == pytest.approx(0.3e-3)
    assert found["fitted"]["step_s"] > 2e-3  # at light load KV reading can stand for a part of it
    assert {error["part"] for error in found["held_out"]} == {f"{made}, second half"}
    assert max(abs(error["relative"]) for error in found["held_out"]) < 0.05

    told = run(*fit, "--name", "mine")
    assert "held out" in told
    assert find_overhead("mine").step_s == pytest.approx(found["fitted"]["step_s"])
    assert find_overhead("slow").step_s == 5e-3  # what stood there is there
    assert find_gpu("mine").bandwidth == find_gpu("H100").bandwidth
    simulated(tmp_path / "used", "--gpu", "mine", "--overhead", "mine")

    with pytest.raises(InputError, match="There is a GPU or an overhead named 'mine'"):
        run(*fit, "--name", "mine")


def test_a_prefix_cache_makes_no_fit(tmp_path: Path) -> None:
    """A follow-up finds what was computed before: its TTFT says nothing of its prompt."""
    talk = ["simulate", "workload:burstgpt-conv", "--num-prompts", "100", "--prefix-cache"]
    run(*talk, "--system", "vllm_v1", "--out", str(tmp_path / "run"))
    with pytest.raises(InputError, match="% of the prompt tokens came from a prefix cache"):
        run("engine", "calibrate", str(tmp_path / "run"))


def test_runs_can_be_held_out(tmp_path: Path) -> None:
    made = [simulated(tmp_path / name, "--seed", seed) for name, seed in (("a", "1"), ("b", "2"))]
    fit = ["engine", "calibrate", made[0], "--held-out", made[1], "--overhead", "plain", "--json"]
    found = json.loads(run(*fit))
    assert {error["part"] for error in found["seen"]} == {made[0]}
    assert {error["part"] for error in found["held_out"]} == {made[1]}
