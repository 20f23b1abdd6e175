"""Every example runs, without a warning, and prints what its `.out` file says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_is_expected(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(example)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    expected = example.with_suffix(".out").read_text()
    assert ran.stdout == expected, f"if this is right: python {example} > {example.stem}.out"
    assert not any(tmp_path.iterdir())


def test_there_are_examples_and_no_output_without_one() -> None:
    outputs = EXAMPLES[0].parent.glob("*.out")
    assert {path.stem for path in outputs} == {path.stem for path in EXAMPLES} != set()
