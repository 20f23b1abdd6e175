import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from servescope.cli.main import app
from servescope.loadgen.papers import WORKLOADS
from servescope.traces import load
from servescope.traces.errors import InputError


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["workload", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_workload_is_listed_with_its_source() -> None:
    listed = json.loads(run("--json"))
    assert list(listed) == list(WORKLOADS)
    sarathi = listed["sarathi-chat"]
    assert sarathi["source"].startswith("Sarathi-Serve, arXiv 2403.02310")
    assert sarathi["slos"]["Yi-34B strict"] == "p99(tbt)<200ms, p50(queue)<2s"
    assert sarathi["arrivals"]["rate_rps"] == 1.0
    shown = run()
    assert all(name in shown for name in WORKLOADS)


def test_published_figures_stand_beside_those_of_what_was_made() -> None:
    told = json.loads(run("continuum-swebench", "--programs", "300", "--json"))
    assert told["programs"] == 300
    figures = {(row["quantity"], row["statistic"]): row for row in told["figures"]}
    turns = figures["calls", "mean"]
    assert turns["published"] == 10.9
    assert turns["here"] == pytest.approx(10.9, rel=0.05)
    assert figures["input_tokens", "p50"]["published"] is None
    assert told["assumed"]


def test_a_summary_says_what_is_assumed_and_which_objectives_there_are() -> None:
    shown = run("semipd-sharegpt", "--programs", "20")
    assert "Llama-3-8B tight" in shown
    assert "lognormal" in shown
    assert "published" in shown


def test_what_is_made_can_be_written_as_a_trace(tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    words = ["-p", "turns_scale=2", "--duration", "100", "--rate", "0.5", "-o", str(out)]
    result = CliRunner().invoke(app, ["workload", "continuum-swebench", *words])
    assert result.exit_code == 0
    assert "no column for the tool" in result.stderr
    trace = load(str(out))
    assert trace.provenance.source.startswith("continuum-swebench agent=swebench turns_scale=2.0")
    assert trace.collect()["arrival_s"].max() < 100.0


def test_what_is_not_one_program_s_worth_of_figures_is_left_empty() -> None:
    told = json.loads(run("sarathi-chat", "--programs", "1", "--json"))
    empty = [row for row in told["figures"] if row["here"] is None]
    assert {row["statistic"] for row in empty} == {"p50", "p90", "sd"}


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["sarathi"], "no workload 'sarathi'.*Near it: sarathi-chat"),
        (["sarathi-chat", "-p", "dataset"], "is no parameter"),
        (["sarathi-chat", "--rate", "0"], "--rate cannot be that"),
        (["--programs", "5"], "not said which workload"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(*words)
