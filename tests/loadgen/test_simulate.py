"""The replay and the engine together in virtual time: answers that theory or a hand can give."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.analysis import Measured
from servescope.engine import (
    BlockPool,
    Cluster,
    Engine,
    PolicyFailed,
    Violation,
    make_system,
    virtual,
)
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.program import Call, Program
from servescope.loadgen.simulate import Simulation, simulate
from servescope.loadgen.workload import Workload
from servescope.traces.errors import InputError, OutputExists


def experiment(time_scale: float = 1.0, **engine: object) -> Experiment:
    return Experiment(
        name="test",
        workload=WorkloadSpec(trace="mooncake:sample", duration_s=20.0, time_scale=time_scale),
        engine=EngineSpec(**{"tp": 8, **engine}),  # type: ignore[arg-type]
        slo="ttft<2s",
    )


def test_an_md1_queue_waits_as_theory_says() -> None:
    """Poisson arrivals, one server, service D = 1 s, load rho: the wait is rho D / 2(1 - rho)."""
    rho, calls = 0.7, 40_000
    starts = np.cumsum(np.random.default_rng(1).exponential(1 / rho, calls))
    programs = tuple(
        Program(str(n), float(start), (Call(str(n), str(n), 0, 8, 1),))
        for n, start in enumerate(starts)
    )
    engine = Engine(
        make_system("vllm_v0", {"max_num_seqs": "1"}), lambda load: 1.0, BlockPool(1000), 4096
    )
    simulation = Simulation(Workload(programs))
    virtual.run(Cluster.of(engine), simulation)
    waits = [r.first_token_s - r.sent_s - 1.0 for r in simulation.records]  # type: ignore[operator]
    assert np.mean(waits) == pytest.approx(rho / (2 * (1 - rho)), rel=0.05)


def test_littles_law_holds_over_a_run(tmp_path: Path) -> None:
    """Mean number in the system is the arrival rate times the mean time in it."""
    run = simulate(experiment(), tmp_path / "run")
    calls = run.trace.collect()
    moments = np.sort(np.concatenate([calls["sent_s"].to_numpy(), calls["end_s"].to_numpy()]))
    steps = np.sort(calls["sent_s"].to_numpy()), np.sort(calls["end_s"].to_numpy())
    inside = np.searchsorted(steps[0], moments, "right") - np.searchsorted(
        steps[1], moments, "right"
    )
    span = moments[-1] - moments[0]
    mean_inside = float((inside[:-1] * np.diff(moments)).sum()) / span
    mean_time = float((calls["end_s"] - calls["sent_s"]).mean())  # type: ignore[arg-type]
    assert mean_inside == pytest.approx(calls.height / span * mean_time, rel=1e-9)


def test_arrivals_replayed_at_scale_one_keep_the_traces_gaps(tmp_path: Path) -> None:
    """A peer's refactor collapsed the trace into a burst: arrivals must equal the recorded ones."""
    from servescope.traces import load

    recorded = load("azure:sample").window(0, 60).collect()["arrival_s"]
    asked = Experiment(
        name="t",
        workload=WorkloadSpec(trace="azure:sample", duration_s=60.0),
        engine=EngineSpec(),
    )
    calls = simulate(asked, tmp_path / "run").trace.collect()
    assert calls["due_s"].to_list() == recorded.to_list()


def test_two_simulations_of_one_experiment_are_the_same_throughout(tmp_path: Path) -> None:
    a, b = (simulate(experiment(), tmp_path / name) for name in "ab")
    assert a.trace.collect().equals(b.trace.collect())
    assert a.info.plan_sha256 == b.info.plan_sha256


def test_every_planned_call_has_a_row_and_every_token_a_stamp(tmp_path: Path) -> None:
    run = simulate(experiment(), tmp_path / "run")
    calls = run.trace.collect()
    assert sorted(calls["call_id"]) == sorted(run.plan["call_id"])
    ok = calls.filter(pl.col("status") == "ok")
    assert (ok["chunk_s"].list.len() == ok["output_tokens"]).all()
    planned = run.plan.select("call_id", planned="output_tokens")
    assert (
        ok.join(planned, on="call_id")["output_tokens"] == ok.join(planned, on="call_id")["planned"]
    ).all()


def test_a_prompt_that_the_model_cannot_hold_is_a_failed_row(tmp_path: Path) -> None:
    run = simulate(experiment(model="Llama-2-70B"), tmp_path / "run")
    failed = run.trace.collect().filter(pl.col("status") == "http_400")
    assert failed.height > 0
    assert (failed["input_tokens"] + 0 > 4096 - 1000).all()
    assert any("calls failed" in doubt for doubt in run.info.doubts)
    said = f"{failed.height} calls can never be served: This model's maximum context length is 4096"
    assert any(doubt.startswith(said) for doubt in run.info.doubts)
    assert run.info.validity == "valid"


def test_a_run_of_which_nothing_fits_is_invalid_and_says_why(tmp_path: Path) -> None:
    program = Program("a", 0.0, (Call("a", "a", 0, 60_000, 1),))
    simulation = Simulation(Workload((program,)))
    engine = Engine(make_system("sarathi"), lambda load: 1.0, BlockPool(1000), 100_000)
    virtual.run(Cluster.of(engine), simulation)
    ((count, first),) = simulation.refusals.values()
    assert (count, first.wrong) == (1, "The request needs 3751 KV blocks, the engine can give 990.")

    run = simulate(experiment(context_tokens=100), tmp_path / "run")
    assert run.info.validity == "invalid"
    none, why, failed = run.info.doubts[-3:]
    assert none == "No call was served: there is nothing to measure."
    first = int((run.trace.collect()["status"] == "http_400").sum())
    assert why.startswith(f"{first} calls can never be served: This model's max")
    assert f"calls failed ({first} http_400" in failed


def test_multi_turn_programs_run_turn_after_turn(tmp_path: Path) -> None:
    asked = Experiment(
        name="t",
        workload=WorkloadSpec(trace="burstgpt:sessions", time_scale=0.01),
        engine=EngineSpec(),
    )
    calls = simulate(asked, tmp_path / "run").trace.collect()
    ends = dict(calls.select("call_id", "end_s").iter_rows())
    turns = calls.filter(pl.col("parents").list.len() > 0)
    assert turns.height > 150
    for row in turns.iter_rows(named=True):
        assert row["due_s"] == pytest.approx(ends[row["parents"][0]] + row["delay_s"])


def test_chunked_prefill_stalls_less_and_starts_later_than_prefill_first(tmp_path: Path) -> None:
    """Table 4 and Figure 1 of Sarathi-Serve, as orderings."""
    runs = {
        name: simulate(experiment(0.4, system=name, model="Llama-3.2-1B", tp=2), tmp_path / name)
        for name in ("vllm_v0", "sarathi")
    }
    p99 = {n: Measured.of(r).sample("tbt").quantile(0.99) for n, r in runs.items()}
    ttft = {n: Measured.of(r).sample("ttft").quantile(0.5) for n, r in runs.items()}
    assert p99["sarathi"] < p99["vllm_v0"] / 3  # type: ignore[operator]
    assert ttft["vllm_v0"] <= ttft["sarathi"]  # type: ignore[operator]


def test_a_run_is_never_overwritten_and_an_unknown_engine_leaves_nothing(tmp_path: Path) -> None:
    simulate(experiment(), tmp_path / "run")
    with pytest.raises(OutputExists, match="never overwritten"):
        simulate(experiment(), tmp_path / "run")
    with pytest.raises(InputError):
        simulate(experiment(system="vllm_v9"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


POLICY = """
from servescope.engine.systems.vllm_v0 import VllmV0

class Mine:
    plans = 0

    def plan(self, view):
        self.plans += 1
        if self.plans > {most}:
            raise ZeroDivisionError("no more")
        return VllmV0().plan(view)
"""


def test_a_policy_from_a_file_serves_and_its_source_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text(POLICY.format(most=10**9))
    run = simulate(experiment(system=str(path)), tmp_path / "run")
    named = simulate(experiment(system="vllm_v0"), tmp_path / "named")
    assert run.trace.collect().equals(named.trace.collect())
    assert run.info.system_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert named.info.system_sha256 is None


def test_a_policy_that_raises_is_told_with_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text(POLICY.format(most=3))
    with pytest.raises(PolicyFailed, match=r"policy\.py, line 10: ZeroDivisionError: no more"):
        simulate(experiment(system=str(path)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_check_changes_nothing_and_says_how_often_it_looked(tmp_path: Path) -> None:
    plain = simulate(experiment(), tmp_path / "plain")
    checked = simulate(experiment(), tmp_path / "checked", check=True)
    assert checked.trace.collect().equals(plain.trace.collect())
    assert checked.info.client["checked_events"] > plain.info.planned_calls
    assert "checked_events" not in plain.info.client


def test_a_check_names_what_a_policy_breaks(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text(POLICY.format(most=10**9).replace("+= 1", "+= 1; view.pool.free += 1"))
    simulate(experiment(system=str(path)), tmp_path / "unseen")
    with pytest.raises(Violation, match="every block is free, held by one request, or cached"):
        simulate(experiment(system=str(path)), tmp_path / "run", check=True)
    assert not (tmp_path / "run").exists()
