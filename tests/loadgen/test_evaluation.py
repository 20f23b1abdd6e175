"""One score for a policy, the same every time, and none for a run that is not what was asked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl
import pytest

from servescope.loadgen import candidate, evaluation
from servescope.loadgen.candidate import Job
from servescope.loadgen.evaluation import Evaluation, evaluate
from servescope.loadgen.simulate import jct_alone, simulate
from servescope.loadgen.suite import Suite
from servescope.loadgen.workload import workload_of
from servescope.traces import Run
from servescope.traces.errors import InputError, OutputExists

SUITE = msgspec.json.decode(
    """{"name": "small", "cases": [
  {"name": "chat", "slo": "ttft<1s", "workload": {"calls": 40, "arrivals": {"rate_rps": 5.0},
   "synthetic": {"input_tokens": 2000, "output_tokens": 60, "range_ratio": 0.9}}},
  {"name": "turns", "slo": "jct<10s", "engine": {"replicas": 2}, "workload": {"calls": 60,
   "arrivals": {"rate_rps": 2.0},
   "synthetic": {"input_tokens": 500, "output_tokens": 60, "turns": 3, "think_s": 1.0}}}]}""",
    type=Suite,
)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a candidate that is trusted run here."""

    def run(job: Job) -> None:
        for case in job.cases:
            experiment = case.experiment(job.system, job.params, job.seed)
            simulate(experiment, Path(job.folder) / case.name, check=True)

    monkeypatch.setattr(candidate, "run", run)


def test_a_score_is_the_mean_of_its_cases_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, second = (evaluate("sarathi", SUITE, out=tmp_path / name) for name in "ab")
    assert msgspec.json.encode(first.told()) == msgspec.json.encode(second.told())
    told = first.told()
    cases = told["cases"]
    assert list(cases) == ["chat", "turns"]
    assert told["score"] == pytest.approx(50 * sum(case["score"] for case in cases.values()))
    assert 0 < told["score"] < 100
    assert told["violations"] == 0
    assert told["policy"] == {"system": "sarathi", "params": {}}
    assert told["suite"]["sha256"] == SUITE.sha256
    assert cases["chat"]["calls"] == 40
    assert Run.open(tmp_path / "a" / "turns").info.system == "sarathi"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["chat", "turns"]


@pytest.mark.usefixtures("in_this_process")
def test_a_policy_that_wastes_time_scores_less(tmp_path: Path) -> None:
    one_by_one = evaluate("vllm_v0", SUITE, {"max_num_seqs": "1"})
    together = evaluate("vllm_v0", SUITE)
    assert one_by_one.score < together.score - 10


@pytest.mark.usefixtures("in_this_process")
def test_another_seed_is_another_score() -> None:
    assert evaluate("sarathi", SUITE).score != evaluate("sarathi", SUITE, seed=1).score


@pytest.mark.usefixtures("in_this_process")
def test_an_oracle_fails_unless_it_is_allowed() -> None:
    refused = evaluate("shortest_first", SUITE, {"by": "total"})
    assert refused.failure is not None
    assert refused.failure.kind == "violation"
    assert refused.told()["violations"] == 1
    assert evaluate("shortest_first", SUITE, {"by": "total"}, oracle=True).failure is None


@pytest.mark.parametrize("change", ["lost", "shortened", "twice"])
def test_a_run_that_is_not_what_was_asked_has_no_score(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(job: Job) -> None:
        for case in job.cases:
            path = Path(job.folder) / case.name
            simulate(case.experiment(job.system, job.params, job.seed), path)
            calls = pl.read_parquet(path / "calls.parquet")
            if change == "lost":
                calls = calls[1:]
            elif change == "twice":
                calls = pl.concat([calls[1:], calls[1:2]])
            else:
                calls = calls.with_columns(pl.col("output_tokens") - 1)
            calls.write_parquet(path / "calls.parquet")

    monkeypatch.setattr(candidate, "run", run)
    found = evaluate("sarathi", SUITE)
    assert found.failure is not None
    assert (found.failure.kind, found.failure.case) == ("violation", "chat")
    assert found.score == 0


def test_what_the_user_got_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        evaluate(str(tmp_path / "none.py"), SUITE)
    with pytest.raises(InputError, match=r"'x' is not a parameter of sarathi\. sarathi has: chunk"):
        evaluate("sarathi", SUITE, {"x": "1"})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    with pytest.raises(OutputExists):
        evaluate("sarathi", SUITE, out=tmp_path / "taken")


def test_a_failure_is_told_with_a_score_of_nothing() -> None:
    failure = candidate.Failure(kind="deadlock", error="It plans nothing.", case="chat")
    told = Evaluation("sarathi", {}, SUITE, 0, {}, failure).told()
    assert told["score"] == 0
    assert (told["kind"], told["error"], told["case"]) == ("deadlock", "It plans nothing.", "chat")
    assert "cases" not in told


def test_numbers_are_told_to_six_digits() -> None:
    assert evaluation._rounded(1 / 3) == 0.333333
    assert evaluation._rounded(12345678.9) == 12345700.0
    assert evaluation._rounded(7) == 7


@pytest.mark.parametrize("system", ["vllm_v0", "sarathi", "vllm_v1", "continuum"])
def test_no_program_is_served_sooner_than_alone(system: str, tmp_path: Path) -> None:
    for case in SUITE.cases:
        workload = workload_of(case.workload, case.seed)
        alone = jct_alone(workload, case.engine)
        run = simulate(case.experiment(system, {}), tmp_path / case.name)
        calls = run.trace.collect().group_by("program_id").agg(
            jct=pl.col("last_token_s").max() - pl.col("due_s").min()
        )  # fmt: skip
        assert calls.height == len(alone)
        for program, jct in calls.iter_rows():
            assert jct >= alone[program] * (1 - 1e-9)
