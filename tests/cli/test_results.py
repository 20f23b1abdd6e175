"""Importing what other tools measured, as a user would, and what report and compare make of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import Run

Cli = Callable[..., Any]
DATA = Path(__file__).parents[1] / "data" / "results"
AIPERF = DATA / "aiperf"
RECORDED = ("vllm/detailed.json", "vllm/closed.json", "aiperf/faults/profile_export.jsonl.gz")


@pytest.mark.parametrize("name", RECORDED)
def test_an_imported_run_has_a_report(name: str, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = cli("results", "import", DATA / name, "--out", out)
    assert ended.code == 0
    assert "doubt: Nobody checked the client" in ended.err
    assert f"Next: servescope report {out}" in ended.err
    page = tmp_path / "report.html"
    markdown = tmp_path / "report.md"
    assert cli("report", out, "-o", page, "--markdown", markdown).code == 0
    assert "Nobody checked the client" in page.read_text()
    told = markdown.read_text()
    assert f"servescope results import {Path(name).name}" in told
    assert "Of an imported run nobody measured them." in told


def test_every_benchmark_of_a_file_becomes_a_run(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    ended = cli("results", "import", DATA / "guidellm/benchmarks.json.gz", "--out", out)
    assert ended.code == 0
    assert sorted(path.name for path in out.iterdir()) == ["constant-4", "constant-8"]
    assert Run.open(out / "constant-8").info.name == "guidellm-constant-8"
    assert cli("report", out / "constant-4", "-o", tmp_path / "report.html").code == 0
    refused = cli("compare", out / "constant-4", out / "constant-8")
    assert refused.code == 2
    assert "not sent the same load: rate 4.0 against 8.0" in refused.err


def test_two_benchmarks_of_the_same_requests_are_compared(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "appended"
    ended = cli("results", "import", DATA / "vllm/appended.json", "-o", out, "--name", "engine")
    assert f"servescope compare {out / '1'} {out / '3'}" in ended.err  # 2 had another rate
    compared = cli("compare", out / "1", out / "3", "--json")
    assert compared.code == 0
    told = json.loads(compared.out)
    assert told["pairs"] == 20
    assert "too few programs to say how sure" in told["challenges"][0]["verdict"]
    assert any("is concluded from their lengths" in doubt for doubt in told["doubts"])
    assert cli("report", out / "1", out / "3", "-o", tmp_path / "both.html").code == 0


def test_a_run_is_no_better_than_itself(cli: Cli, tmp_path: Path) -> None:
    records = AIPERF / "clean/profile_export.jsonl.gz"
    for name in ("a", "b"):
        cli("results", "import", records, "-o", tmp_path / name, "--name", name)
    told = json.loads(cli("compare", tmp_path / "a", tmp_path / "b", "--json").out)
    (challenge,) = told["challenges"]
    assert challenge["decided"] in ("equivalent", "cannot tell", "unknown")
    assert all(row["a"] == row["b"] for row in challenge["differences"])


def test_what_failed_in_one_run_is_paired_by_what_the_other_shows(cli: Cli, tmp_path: Path) -> None:
    for name in ("faults", "clean"):
        cli("results", "import", AIPERF / name / "profile_export.jsonl.gz", "-o", tmp_path / name)
    told = json.loads(cli("compare", tmp_path / "faults", tmp_path / "clean", "--json").out)
    assert told["pairs"] == 43
    assert told["challenges"][0]["failures"]["a"] == 6 / 16  # programs with a failed call
    assert any("not the same timetable" in doubt for doubt in told["doubts"])


def test_runs_of_two_tools_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    cli("results", "import", DATA / "vllm/closed.json", "-o", tmp_path / "a")
    cli("results", "import", AIPERF / "closed/profile_export.jsonl.gz", "-o", tmp_path / "b")
    refused = cli("compare", tmp_path / "a", tmp_path / "b")
    assert refused.code == 2
    assert "is a run of vllm" in refused.err
    assert "nothing shows that they were sent the same" in refused.err


def test_the_answer_comes_as_json_too(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = cli("results", "import", DATA / "vllm/detailed.json", "--out", out, "--json")
    (told,) = json.loads(ended.out)
    assert (told["run"], told["tool"], told["calls"], told["failed"]) == (str(out), "vLLM", 30, 4)
    assert (told["known_by"], told["validity"]) == ("lengths", "suspect")
    assert len(told["doubts"]) == 3


def test_without_a_place_a_run_goes_below_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("results", "import", AIPERF / "closed/profile_export.jsonl.gz").code == 0
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.endswith("-closed")  # all its files have one name: their folder tells
    assert Run.open(path).info.name == "closed"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no result that servescope knows. It is empty."),
        ("hello", "is no result that servescope knows. It begins with 'hello'."),
        ('{"model_id":"m","tokenizer_id":"t","num_prompts":1,"ttfts":[0.1', "is not whole JSON"),
        ((DATA / "vllm/summary.json").read_text(), "--save-detailed"),
    ],
)
def test_what_is_no_result_is_refused_with_the_mend(
    content: str, says: str, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    ended = cli("results", "import", path, "--out", tmp_path / "run")
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten_nor_written_in_part(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli("results", "import", DATA / "vllm/closed.json", "--out", out).code == 0
    before = (out / "run.json").read_bytes()
    again = cli("results", "import", DATA / "vllm/appended.json", "--out", out)
    assert again.code == 2
    assert "exists already" in again.err
    assert (out / "run.json").read_bytes() == before
    torn = tmp_path / "torn.json"
    torn.write_bytes((DATA / "vllm/appended.json").read_bytes()[:-100])
    ended = cli("results", "import", torn, "--out", tmp_path / "torn")
    assert (ended.code, "torn.json, line 3, is not whole JSON" in ended.err) == (2, True)
    assert not (tmp_path / "torn").exists()


def test_the_tool_can_be_named(cli: Cli, tmp_path: Path) -> None:
    refused = cli("results", "import", DATA / "vllm/closed.json", "--format", "guidellm")
    assert (refused.code, "is not what it seems" in refused.err) == (2, True)
    refused = cli("results", "import", DATA / "vllm/closed.json", "--format", "sglang")
    assert (refused.code, "no tool 'sglang'" in refused.err) == (2, True)


def test_an_imported_run_cannot_go_on(cli: Cli, tmp_path: Path) -> None:
    cli("results", "import", DATA / "vllm/closed.json", "--out", tmp_path / "run")
    refused = cli("replay", "--resume", tmp_path / "run")
    assert refused.code == 2
    assert "was imported from closed.json, and cannot go on" in refused.err


def test_names_that_are_no_names_of_folders_are_not_used() -> None:
    from dataclasses import replace

    from servescope.cli.results import _folders
    from servescope.traces.results import read

    (result,) = read(DATA / "vllm/closed.json")
    parts = ["..", "", "a/b", "a b", None, "fine"]
    found = [replace(result, part=part) for part in parts]
    assert _folders(found) == ["1", "2", "a-b-3", "a-b-4", "5", "fine"]
