"""`servescope evaluate`: JSON on standard output, whatever the policy is, and an exit code."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from servescope.cli.evaluate import _bytes
from servescope.loadgen import suite as suites
from servescope.loadgen.candidate import Kind
from servescope.traces.errors import InputError

Cli = Callable[..., Any]
SUITE = """
name = "tiny"
[[cases]]
name = "one"
slo = "ttft<1s"
workload = { calls = 30, synthetic = { input_tokens = 200, output_tokens = 20 } }
"""


def test_a_score_is_printed_as_json_and_a_failure_too(cli: Cli, tmp_path: Path) -> None:
    suite, policy = tmp_path / "suite.toml", tmp_path / "policy.py"
    suite.write_text(SUITE)
    policy.write_text(
        "from servescope.engine.systems.vllm_v0 import VllmV0\n\n"
        "class Mine:\n    def plan(self, view):\n        return VllmV0().plan(view)\n"
    )
    good = cli("evaluate", policy, "--suite", suite, "--out", tmp_path / "runs")
    assert good.code == 0
    told = json.loads(good.out)
    assert told["score"] > 0
    assert told["suite"]["name"] == "tiny"
    assert (tmp_path / "runs" / "one" / "run.json").exists()
    policy.write_text(policy.read_text().replace("return", "1 / 0; return"))
    bad = cli("evaluate", policy, "--suite", suite)
    assert bad.code == 1
    told = json.loads(bad.out)
    assert (told["score"], told["kind"]) == (0, "exception")
    assert told["error"].endswith("policy.py, line 5: ZeroDivisionError: division by zero.")
    wrong = cli("evaluate", tmp_path / "none.py", "--suite", suite)
    assert (wrong.code, wrong.out) == (2, "")


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), ("500mb", 5e8), ("1GiB", 2**30), ("1.5 g", 1.5e9), ("7", 7)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: float) -> None:
    assert _bytes(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "0", "1TBB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--memory-limit cannot be"):
        _bytes(text)


def test_the_evaluator_on_the_page_gives_a_search_what_it_wants(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "evaluate-a-policy.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    shown: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), shown)
    (tmp_path / "bad.py").write_text("class Mine:\n    def plan(self, view):\n        1 / 0\n")
    found = shown["evaluate"](str(tmp_path / "bad.py"))
    assert found["combined_score"] == 0
    assert "bad.py, line 3: ZeroDivisionError" in found["error"]
    good = shown["evaluate"](str(page.parents[2] / "examples" / "shortest_prompt_chunked.py"))
    assert good["combined_score"] > 0
    assert {"chat", "agents", "fairness"} <= set(good)


def test_the_suite_on_the_page_can_be_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "evaluate-a-policy.md"
    (shown,) = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "mine.toml").write_text(shown)
    assert suites.read(tmp_path / "mine.toml").cases[0].engine.replicas == 2
    named = {case.name for case in suites.read("default").cases}
    assert all(f"| `{name}` |" in page.read_text() for name in named)
    kinds = {*get_args(Kind)} - {"input"}
    assert all(f"| `{kind}` |" in page.read_text() for kind in kinds)
