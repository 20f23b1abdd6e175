"""Each verb used as a user would, with what it prints and what it writes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces import Run, load

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated demo, made once."""
    import sys
    from unittest.mock import patch

    from servescope.cli.main import main

    out = tmp_path_factory.mktemp("demo") / "demo"
    argv = ["servescope", "demo", "--simulate", "--out", str(out)]
    with patch.object(sys, "argv", argv), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return out


def test_traces_list_shows_what_is_bundled_and_what_can_be_read(cli: Cli) -> None:
    said = cli("traces", "list").out
    for name in ("burstgpt:sample", "azure:sample", "mooncake:sample", "canonical"):
        assert name in said
    assert "burstgpt:sample" in json.loads(cli("traces", "list", "--json").out)["bundled"]


def test_inspect_says_where_a_trace_is_from_and_what_to_doubt(cli: Cli) -> None:
    ended = cli("traces", "inspect", "burstgpt:sessions")
    assert "CC-BY-4.0" in ended.out
    assert "doubt: Arrivals are stamped in whole seconds" in ended.err
    told = json.loads(cli("traces", "inspect", "burstgpt:sessions", "--json").out)
    assert (told["calls"], told["programs"], told["failed"]) == (280, 106, 1)


def test_convert_writes_what_can_be_loaded_again(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    assert cli("traces", "convert", "mooncake:sample", "-o", out, "--infer-sessions").code == 0
    again = load(out)
    assert again.collect().height == load("mooncake:sample").collect().height
    assert again.provenance.licence == "Apache-2.0"
    assert "parents" in again.columns
    refused = cli("traces", "convert", "mooncake:sample", "-o", out)
    assert refused.code == 2
    assert "exists already" in refused.err
    assert cli("traces", "convert", "azure:sample", "-o", out, "--overwrite").code == 0
    assert cli("traces", "convert", "azure:sample", "-o", tmp_path / "a.xls").code == 2


def test_simulate_makes_a_run_with_a_report_and_numbers(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = cli("simulate", "azure:sample", "--duration", 30, "--out", out, "--slo", "ttft<1s")
    assert ended.code == 0
    assert "TTFT" in ended.out
    assert "times real time" in ended.err
    assert (out / "report.html").exists()
    assert Run.open(out).info.slo == "ttft<1s"
    printed = cli(
        "simulate", "azure:sample", "--duration", 30, "--out", tmp_path / "two", "--json"
    ).out
    assert set(json.loads(printed)["sections"]) >= {"verdict", "service", "latencies"}


def test_a_policy_of_a_file_is_a_system_like_any_other(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "shortest.py"
    policy.write_text(
        "from servescope.engine.systems.vllm_v0 import VllmV0\n\n"
        "class Mine:\n    def plan(self, view):\n        return VllmV0().plan(view)\n"
    )
    few = ("azure:sample", "--num-prompts", 40)
    ended = cli("simulate", *few, "--system", f"{policy}:Mine", "--out", tmp_path / "run")
    assert ended.code == 0
    assert Run.open(tmp_path / "run").info.name == "Mine"
    swept = cli(
        *("sweep", *few, "--rates", "2", "--system", policy, "--out", tmp_path / "sweep", "--json")
    )
    assert swept.code == 0
    assert json.loads(swept.out)["system"] == "shortest"
    checked = cli("simulate", *few, "--system", policy, "--check", "--out", tmp_path / "checked")
    assert checked.code == 0
    assert "no call was lost or came twice" in checked.err
    policy.write_text(policy.read_text().replace("return", "view.pool.free += 1; return"))
    caught = cli("simulate", *few, "--system", policy, "--check", "--out", tmp_path / "caught")
    assert caught.code == 1
    assert "this does not hold: every block is free" in caught.err
    policy.write_text("class Mine:\n    def plan(self, view):\n        return 1 / 0\n")
    broken = cli("simulate", *few, "--system", policy, "--out", tmp_path / "broken")
    assert broken.code == 2
    assert "shortest.py, line 3: ZeroDivisionError" in broken.err


def test_the_experiment_of_a_run_makes_the_same_run_again(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    experiment = demo / "sarathi" / "experiment.toml"
    assert cli("simulate", experiment, "--out", tmp_path / "again").code == 0
    runs = [Run.open(path) for path in (demo / "sarathi", tmp_path / "again")]
    assert runs[0].trace.collect().equals(runs[1].trace.collect())


def test_an_experiment_file_takes_no_second_word_beside_it(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    experiment = demo / "sarathi" / "experiment.toml"
    ended = cli("simulate", experiment, "--system", "vllm_v0", "--out", tmp_path / "x")
    assert ended.code == 2
    assert "--system stands beside an experiment file" in ended.err
    ended = cli("replay", experiment, "--out", tmp_path / "x")
    assert ended.code == 2
    assert "has no [endpoint] to replay against" in ended.err


def test_sessions_none_makes_every_call_a_program(cli: Cli, tmp_path: Path) -> None:
    for trace in ("burstgpt:sessions", "mooncake:sample"):
        out = tmp_path / trace
        arguments = ("--num-prompts", 100, "--sessions", "none", "--tp", 8, "--out", out)
        assert cli("simulate", trace, *arguments).code == 0
        run = Run.open(out)
        assert run.info.workload["multi_turn_programs"] == 0
        assert run.trace.collect()["program_id"].n_unique() == run.info.planned_calls


def test_a_taken_run_directory_is_refused(cli: Cli, demo: Path) -> None:
    before = (demo / "sarathi" / "run.json").read_bytes()
    ended = cli("simulate", "azure:sample", "--out", demo / "sarathi")
    assert ended.code == 2
    assert "never overwritten" in ended.err
    assert cli("demo", "--simulate", "--out", demo).code == 2
    assert (demo / "sarathi" / "run.json").read_bytes() == before


def test_the_demo_replays_at_least_300_calls_with_multi_turn_programs(demo: Path) -> None:
    for system in ("vllm_v0", "sarathi"):
        run = Run.open(demo / system)
        calls = run.trace.collect()
        assert calls.height >= 300
        assert run.info.workload["multi_turn_programs"] >= 50
        assert (calls["status"] == "ok").all()
        assert calls.filter(pl.col("parents").list.len() > 0).height >= 50


def test_the_demo_ends_in_a_verdict_and_a_page(demo: Path, cli: Cli) -> None:
    assert (demo / "report.html").stat().st_size > 1_000_000  # Plotly is inside
    ended = cli("compare", demo / "vllm_v0", demo / "sarathi")
    assert ended.code == 0
    assert "Verdict: sarathi served it better" in ended.out
    told = json.loads(cli("compare", demo / "vllm_v0", demo / "sarathi", "--json").out)
    (challenge,) = told["challenges"]
    assert challenge["slo"]["b"] > challenge["slo"]["a"]
    assert challenge["slo"]["difference"]["low"] > 0


def test_compare_takes_another_slo_and_can_change_its_mind(cli: Cli, demo: Path) -> None:
    """Prefill first starts answers sooner: asked only for that, it wins."""
    ended = cli("compare", demo / "vllm_v0", demo / "sarathi", "--slo", "ttft<500ms")
    assert "Verdict: vllm_v0 served it better" in ended.out


def test_runs_of_different_plans_are_not_compared(cli: Cli, demo: Path, tmp_path: Path) -> None:
    cli("simulate", "azure:sample", "--duration", 30, "--out", tmp_path / "other")
    ended = cli("compare", demo / "sarathi", tmp_path / "other")
    assert ended.code == 2
    assert "did not run the same plan" in ended.err


def test_report_writes_a_page_and_its_numbers_beside_it(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    assert cli("report", demo / "sarathi", "-o", out).code == 0
    assert json.loads(out.with_suffix(".json").read_text())["title"] == "sarathi"
    assert cli("report", demo / "sarathi", "-o", out).code == 2
    assert cli("report", demo / "sarathi", "-o", out, "--overwrite").code == 0


def test_report_tells_a_run_by_the_definitions_of_other_tools(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    asked = ["--metric-profile", "vllm", "--metric-profile", "guidellm"]
    assert cli("report", demo / "sarathi", "-o", out, *asked).code == 0
    told = json.loads(out.with_suffix(".json").read_text())["sections"]["profiles"]
    fields = {row["field"] for block in told if "rows" in block for row in block["rows"]}
    assert {"mean_ttft_ms", "request_totals.successful"} <= fields
    ended = cli("report", demo / "sarathi", "-o", tmp_path / "b.html", "--metric-profile", "wrk")
    assert ended.code == 2
    assert "There is no metric profile 'wrk'. Known: vllm, sglang, aiperf" in ended.err
    assert not (tmp_path / "b.html").exists()


def test_an_invalid_run_fails_the_gate(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from servescope.loadgen import simulate as virtual

    monkeypatch.setattr(virtual, "call_doubts", lambda *_, **__: ["planted"])
    real_seal = Run.seal

    def seal_invalid(run: Run, info: object) -> None:
        import msgspec

        real_seal(run, msgspec.structs.replace(info, validity="invalid"))  # type: ignore[type-var]

    monkeypatch.setattr(Run, "seal", seal_invalid)
    ended = cli("simulate", "azure:sample", "--duration", 30, "--out", tmp_path / "run")
    assert ended.code == 1
    assert "is invalid" in ended.err
    assert "doubt: planted" in ended.err
    assert (tmp_path / "run" / "report.html").exists()


def test_a_page_is_not_written_over_by_its_own_numbers(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    ended = cli("report", demo / "sarathi", "-o", tmp_path / "page.json")
    assert ended.code == 2
    assert "End it in .html" in ended.err


def test_calls_that_can_never_be_served_are_said(cli: Cli, tmp_path: Path) -> None:
    asked = ["simulate", "azure:sample", "--num-prompts", 20, "--out"]
    ended = cli(*asked, tmp_path / "few", "--context-tokens", 1000)
    assert ended.code == 0
    said = r"doubt: \d+ calls can never be served: This model's maximum context length is 1000 "
    assert re.search(said, ended.err)
    page = (tmp_path / "few" / "report.html").read_text()
    assert "can never be served: This model" in page
    ended = cli(*asked, tmp_path / "none", "--context-tokens", 2, "-q")
    assert ended.code == 1
    assert "20 calls can never be served" in ended.err
    assert "is invalid: no call of it was served" in ended.err


def test_a_name_cannot_lead_out_of_the_folder_of_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("../../escape", "a/b/../../../c", "x" * 300):
        assert cli("simulate", "azure:sample", "--num-prompts", 5, "--name", name).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list((tmp_path / "runs").iterdir())) == 3
    assert cli("simulate", "azure:sample", "--name", "bell\a").code == 2


def test_a_place_that_cannot_be_written_is_the_users_input(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = cli("simulate", "azure:sample", "--num-prompts", 5, "--out", tmp_path / "file" / "x")
    assert ended.code == 2
    assert "cannot be written: Not a directory" in ended.err


def test_an_invalid_run_fails_a_comparison_after_it_is_shown(
    cli: Cli, demo: Path, tmp_path: Path
) -> None:
    import shutil

    import msgspec

    bad = Run.open(Path(shutil.copytree(demo / "sarathi", tmp_path / "bad")))
    bad.write_info(msgspec.structs.replace(bad.info, validity="invalid"))
    ended = cli("compare", demo / "vllm_v0", bad.path)
    assert ended.code == 1
    assert "Verdict: No verdict: sarathi is invalid." in ended.out
    assert "is invalid: its numbers say more of the client" in ended.err
