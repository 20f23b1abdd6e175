"""`servescope experiment`: what a user sees of it, and what lies in the folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
STUDY = """
slo = "ttft<2s,stall<100ms"
speed_ups = [1, 2]
repeats = 2

[[systems]]
name = "vllm_v0"
engine = { system = "vllm_v0" }

[[systems]]
name = "sarathi"
engine = { system = "sarathi" }

[[workloads]]
name = "azure"
trace = "azure:sample"
calls = 200
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_an_experiment_ends_with_rows_verdicts_reports_and_a_summary(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = cli("experiment", "run", file, "--out", out)
    assert ended.code == 0
    for condition in ("azure-x1", "azure-x2"):
        assert f"Verdict: {condition}: " in ended.out
        assert (out / "reports" / f"{condition}.html").stat().st_size > 1000
    assert "run 8 of 8" in ended.err
    summary = json.loads((out / "study-summary.json").read_text())
    assert [(r["speed_up"], r["repeat"], r["system"]) for r in summary["runs"]][:4] == [
        (1.0, 1, "vllm_v0"),
        (1.0, 1, "sarathi"),
        (1.0, 2, "vllm_v0"),
        (1.0, 2, "sarathi"),
    ]
    assert all(row["validity"] == "valid" for row in summary["runs"])
    assert summary["failed"] == []
    assert "Without the first" in ended.err  # what the report doubts is said here, too
    assert "doubt" in (out / "overview.html").read_text()
    for each in summary["comparisons"]:
        assert any("--trim auto" in doubt for doubt in each["doubts"])
        assert each["systems"] == ["vllm_v0", "sarathi"]  # the first one is the baseline
        assert each["repeats"] == 1  # the second one is the same, and would feign certainty
        assert each["verdict"]


def test_repeats_that_are_drawn_are_compared_together_and_of_three_systems(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    third = '[[systems]]\nname = "small"\nengine = { params = { chunk_tokens = "256" } }\n'
    drawn = 'arrivals = { process = "poisson", rate_rps = 2 }\n'
    text = STUDY.replace("speed_ups = [1, 2]\n", "")
    text = text.replace("[[workloads]]", third + "[[workloads]]")
    file.write_text(text + drawn)
    ended = cli("experiment", "run", file, "--out", tmp_path / "out", "--json")
    assert ended.code == 0
    assert "repeats add nothing" not in ended.err
    told = json.loads(ended.out)
    (compared,) = told["comparisons"]
    assert compared["condition"] == "azure"
    assert compared["systems"] == ["vllm_v0", "sarathi", "small"]
    assert compared["repeats"] == 2
    assert compared["verdict"]
    ttft = {(row["system"], row["repeat"]): row["ttft_p50_s"] for row in told["runs"]}
    assert ttft["sarathi", 1] != ttft["sarathi", 2]


def test_an_experiment_that_is_done_says_the_same_again_without_a_run(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    first = cli("experiment", "run", file, "--out", tmp_path / "out", "--json")
    again = cli("experiment", "run", file, "--out", tmp_path / "out", "--json")
    assert (first.code, again.code) == (0, 0)
    assert json.loads(first.out) == json.loads(again.out)
    assert "run 1 of 8" not in again.err


def test_a_plan_shows_the_order_and_runs_nothing(cli: Cli, file: Path, tmp_path: Path) -> None:
    ended = cli("experiment", "plan", file)
    assert ended.code == 0
    runs = [line.split()[1] for line in ended.out.splitlines()[1:]]
    assert runs == [
        "vllm_v0/azure-x1-1", "sarathi/azure-x1-1", "sarathi/azure-x2-1", "vllm_v0/azure-x2-1",
        "vllm_v0/azure-x2-2", "sarathi/azure-x2-2", "sarathi/azure-x1-2", "vllm_v0/azure-x1-2",
    ]  # fmt: skip
    assert "repeats add nothing" in ended.err
    told = json.loads(cli("experiment", "plan", file, "--json").out)
    assert [each["run"] for each in told["runs"]] == runs
    assert told["runs"][0]["calls"] == 200
    assert told["runs"][2]["starts_over_s"] == pytest.approx(told["runs"][0]["starts_over_s"] / 2)
    assert list(tmp_path.iterdir()) == [file]


def test_the_warm_up_is_left_out_of_rows_and_verdicts_alike(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    whole = json.loads(cli("experiment", "run", file, "--out", tmp_path / "out", "--json").out)
    again = ("experiment", "run", file, "--out", tmp_path / "out", "--json", "--trim")
    rest = json.loads(cli(*again, "auto").out)
    assert all(b["calls"] < a["calls"] for a, b in zip(whole["runs"], rest["runs"], strict=True))
    assert not any("Without the first" in d for each in rest["comparisons"] for d in each["doubts"])
    assert cli(*again, "soon").code == 2


def test_a_system_that_fails_is_a_doubt_and_a_reason_and_the_rest_is_reported(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    file.write_text(
        STUDY.replace("repeats = 2", "repeats = 1").replace(
            'engine = { system = "sarathi" }',
            'endpoint = { base_url = "http://127.0.0.1:{port}" }\n'
            'launch = { command = "echo no GPU here; exit 1" }',
        )
    )
    out = tmp_path / "out"
    ended = cli("experiment", "run", file, "--out", out)
    assert ended.code == 3
    assert "2 of 4 runs failed" in ended.err
    assert "no GPU here" in ended.err
    assert f"servescope experiment run {file} --out {out}" in ended.err
    summary = json.loads((out / "study-summary.json").read_text())
    assert [row["system"] for row in summary["runs"]] == ["vllm_v0"] * 2
    assert [each["run"] for each in summary["failed"]] == [
        "sarathi/azure-x1-1",
        "sarathi/azure-x2-1",
    ]
    assert [each["why"] for each in summary["comparisons"]] == [
        "Only vllm_v0 has a run that is done."
    ] * 2
    for page in (out / "overview.html", out / "reports" / "azure-x1.html"):
        assert "no GPU here" in page.read_text()
    shown = cli("experiment", "status", out)
    assert shown.code == 0
    assert "2 of 4 runs are done" in shown.err
    assert "Go on with:  servescope experiment run" in shown.err
    assert "no GPU here" in shown.out


def test_the_file_in_the_folder_goes_on_with_it(cli: Cli, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("experiment", "run", file, "--out", out, "--quiet").code == 0
    ended = cli("experiment", "run", out / "study.toml", "--out", out, "--quiet")
    assert ended.code == 0
    assert "run 1 of 8" not in ended.err
    told = json.loads(cli("experiment", "status", out, "--json").out)
    assert {each["state"] for each in told["runs"]} == {"done"}


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_mistake_in_the_file_ends_with_two(cli: Cli, tmp_path: Path, verb: str) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(STUDY + "colour = 1\n")
    ended = cli("experiment", verb, wrong)
    assert ended.code == 2
    assert "unknown field `colour` - at `$.workloads[0]`" in ended.err
    assert cli("experiment", verb, tmp_path / "none.toml").code == 2


def test_the_status_of_what_is_no_experiment_ends_with_two(cli: Cli, tmp_path: Path) -> None:
    ended = cli("experiment", "status", tmp_path)
    assert ended.code == 2
    assert "holds no study" in ended.err
