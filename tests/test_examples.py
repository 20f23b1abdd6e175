"""Every example runs, without a warning, and prints what its `.out` file says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
PAPERS = sorted(path for path in (FOLDER / "papers").glob("*.py") if path.stem != "recipe")
EXPERIMENTS = sorted(FOLDER.glob("*.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", PAPERS, ids=lambda path: path.stem)
def test_a_paper_is_recreated_as_it_was(recipe: Path, tmp_path: Path) -> None:
    """No claim that is asserted is broken, and every figure and disagreement is the one we show."""
    command = [sys.executable, "-W", "error", str(recipe)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr) == (0, "")
    expected = recipe.with_suffix(".out").read_text()
    assert ran.stdout == expected, f"if this is right: python {recipe} > {recipe.stem}.out"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_is_expected(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(example)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    expected = example.with_suffix(".out").read_text()
    assert ran.stdout == expected, f"if this is right: python {example} > {example.stem}.out"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("example", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_makes_all_of_its_runs_and_compares_them(
    example: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-W", "error", "-m", "servescope.cli", "experiment", "run", example]
    scripts = Path(sys.executable).parent  # where the servescope is that an example launches
    env = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    ran = subprocess.run(
        [*command, "--out", out], env=env, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode in (0, 1), ran.stderr  # 1: too slow a machine for a valid run
    summary = json.loads((out / "study-summary.json").read_text())
    assert summary["failed"] == []
    for each in summary["comparisons"]:
        assert len(each["systems"]) == 2
        assert (out / each["report"]).exists()
        assert each["verdict"]
    if "virtual" in example.read_text():
        assert ran.returncode == 0, ran.stderr
        assert "sarathi served it better" in ran.stdout


def test_there_are_examples_and_no_output_without_one() -> None:
    outputs = EXAMPLES[0].parent.glob("*.out")
    assert {path.stem for path in outputs} == {path.stem for path in EXAMPLES} != set()
