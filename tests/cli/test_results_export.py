"""`results export` as a user would use it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recorded import CHAT, run_of

Cli = Callable[..., Any]


def test_a_run_becomes_the_result_file_of_vllm(cli: Cli, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", CHAT, slo="ttft<0.9s")
    out = tmp_path / "result.json"
    ended = cli("results", "export", run.path, "--to", "vllm", "-o", out)
    assert ended.code == 0
    assert "doubt: generated_texts are empty" in ended.err
    told = json.loads(out.read_text())
    assert told["completed"] == 4
    assert told["request_goodput"] == 0.4  # by the SLO of the run itself
    refused = cli("results", "export", run.path, "--to", "vllm", "-o", out)
    assert refused.code == 2
    assert "exists already" in refused.err
    more = ["--overwrite", "--percentile-metrics", "e2el", "--metric-percentiles", "50"]
    assert cli("results", "export", run.path, "--to", "vllm", "-o", out, *more).code == 0
    assert "p50_e2el_ms" in json.loads(out.read_text())


def test_another_tool_or_no_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    assert cli("results", "export", tmp_path, "--to", "wrk", "-o", out).code == 2
    ended = cli("results", "export", tmp_path, "--to", "vllm", "-o", out)
    assert ended.code == 2
    assert "is not a run directory" in ended.err
