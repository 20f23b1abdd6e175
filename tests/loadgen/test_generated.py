from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from servescope.loadgen import papers
from servescope.loadgen.experiment import ArrivalSpec, WorkloadSpec
from servescope.loadgen.generated import trace_of
from servescope.loadgen.papers.generator import About, Generator, Turn, chain, names
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.study import Load, NamedWorkload
from servescope.loadgen.workload import Workload, digest, workload_of
from servescope.traces import load
from servescope.traces.errors import InputError


def made(name: str, seed: int = 0, **asked: object) -> Workload:
    return workload_of(msgspec.convert({"generator": name, **asked}, WorkloadSpec), seed)


def test_without_more_there_are_a_thousand_calls_by_the_workload_s_own_process() -> None:
    workload = made("sarathi-chat")
    assert len(workload.programs) == 1000
    starts = np.array([program.start_s for program in workload.programs])
    # 1 a second in the paper: a thousand exponential gaps, within five standard errors
    assert np.diff(starts).mean() == pytest.approx(1.0, rel=5 / 1000**0.5)


def test_the_last_program_is_cut_where_the_calls_end() -> None:
    workload = made("continuum-swebench", calls=25)
    calls = list(workload.calls())
    assert len(calls) == 25
    assert [call.number for call in calls] == list(range(25))
    assert [program.calls[-1].last for program in workload.programs] == [True] * 3
    assert sum(call.last for call in calls) == 3


def test_calls_that_nobody_waits_for_are_last_and_no_others() -> None:
    (program,) = made("hexgen-text2sql", programs=[0, 1]).programs
    assert [call.last for call in program.calls] == [False] * (len(program.calls) - 1) + [True]


@pytest.mark.parametrize("name", ["continuum-bfcl", "llumnix-s-s", "burstgpt-conv"])
def test_a_plan_depends_on_the_seed_alone_and_longer_ones_begin_with_it(name: str) -> None:
    few, many = (made(name, 7, programs=[0, count]) for count in (20, 60))
    plan = few.plan()
    assert many.plan()[: len(plan)].equals(plan)
    assert digest(made(name, 7, programs=[0, 20]).plan(), 7, None) == digest(plan, 7, None)
    assert digest(made(name, 8, programs=[0, 20]).plan(), 7, None) != digest(plan, 7, None)


def test_all_that_start_in_a_time_are_made() -> None:
    workload = made("autellix-bfcl", duration_s=200.0)
    assert len(workload.programs) == pytest.approx(200, abs=5 * 200**0.5)
    assert workload.programs[-1].start_s < 200.0
    bounded = made("autellix-bfcl", duration_s=200.0, programs=[0, 10])
    assert bounded.programs == workload.programs[:10]


def test_a_rate_keeps_the_process_and_arrivals_take_its_place() -> None:
    plain, fast = (made("burstgpt-api", **rate) for rate in ({}, {"rate_rps": 54.0}))
    ratio = plain.programs[-1].start_s / fast.programs[-1].start_s
    assert ratio == pytest.approx(54 / (5_110_404 / 9_503_873))
    assert [p.calls for p in plain.programs] == [p.calls for p in fast.programs]
    even = made("burstgpt-api", arrivals={"process": "constant", "rate_rps": 2.0})
    assert [program.start_s for program in even.programs[:3]] == [0.0, 0.5, 1.0]


def test_programs_from_a_place_on_begin_at_0_and_are_numbered_anew() -> None:
    whole, part = (made("continuum-bfcl", programs=each) for each in ([0, 6], [4, 6]))
    assert [program.id for program in part.programs] == ["program-4", "program-5"]
    assert part.programs[0].start_s == 0.0
    assert [call.number for call in part.calls()] == list(range(sum(1 for _ in part.calls())))
    assert part.programs[1].calls[0].input_tokens == whole.programs[5].calls[0].input_tokens


@pytest.mark.parametrize(("asked", "factor"), [({"delays": "none"}, 0), ({"delay_scale": 2.0}, 2)])
def test_pauses_are_scaled_as_those_of_a_trace(asked: dict[str, object], factor: int) -> None:
    plain, scaled = (made("infercept", calls=50, **each) for each in ({}, asked))
    pauses = [[call.delay_s for call in each.calls()] for each in (plain, scaled)]
    assert pauses[1] == pytest.approx([factor * pause for pause in pauses[0]])
    assert scaled.provenance.steps == (f"pauses x {factor}",)


def test_stages_share_their_templates_in_the_prompts_that_are_sent() -> None:
    workload = made("hexgen-text2sql", programs=[0, 2])
    prompts = Prompts(0, workload.block_tokens)
    one, other = (
        next(call for call in program.calls if call.call_class == "revise")
        for program in workload.programs
    )
    ids = [prompts.token_ids(call).tolist() for call in (one, other)]
    shared = 3059 // 16 * 16
    assert ids[0][:shared] == ids[1][:shared]
    assert sum(a == b for a, b in zip(ids[0][shared:], ids[1][shared:], strict=False)) < 50


@pytest.mark.parametrize(
    "name", ["burstgpt-conv", "continuum-swebench", "hexgen-text2sql", "llumnix-m-m"]
)
def test_a_workload_that_is_written_as_a_trace_makes_the_same_plan(
    name: str, tmp_path: Path
) -> None:
    workload = made(name, 3, calls=200, params={"high_priority": 0.5} if "llumnix" in name else {})
    path = tmp_path / "made.parquet"
    trace_of(workload.programs, workload.provenance).write(path)
    again = workload_of(WorkloadSpec(trace=str(path)), 3)
    # the table has no column for tools, and names no text of a call that has blocks
    left_out = [c for c in ("tool", "prompt_stream") if c in workload.plan().columns]
    if "hexgen" not in name:
        left_out.remove("prompt_stream")
    assert again.plan().drop(left_out, strict=False).equals(workload.plan().drop(left_out))
    assert again.block_tokens == workload.block_tokens
    assert load(str(path)).provenance.inferred == workload.provenance.inferred


def test_what_is_assumed_and_which_paper_it_is_stand_in_the_provenance() -> None:
    provenance = made("semipd-longbench", calls=1, params={"context_tokens": 8192}).provenance
    assert provenance.source == "semipd-longbench dataset=longbench context_tokens=8192"
    assert provenance.kind == "synthetic"
    assert provenance.inferred["input_tokens"].startswith("ASSUMED: a lognormal of mean 3200")
    assert "2504.19867" in (provenance.attribution or "")


def test_what_cannot_be_is_said_before_anything_is_sent() -> None:
    with pytest.raises(InputError, match="no workload 'llama'"):
        made("llama")
    with pytest.raises(InputError, match="No program starts in that time"):
        made("sarathi-chat", duration_s=1e-9)
    with pytest.raises(InputError, match="either a trace or synthetic"):
        WorkloadSpec(generator="infercept", trace="azure:sample")
    with pytest.raises(InputError, match="params are those of a generator"):
        WorkloadSpec(trace="azure:sample", params={"cv": 2})
    with pytest.raises(InputError, match="time_scale says what to do with a trace"):
        WorkloadSpec(generator="infercept", time_scale=0.5)
    with pytest.raises(InputError, match="each say when programs start"):
        WorkloadSpec(generator="infercept", rate_rps=2.0, arrivals=ArrivalSpec())


def test_a_study_brings_it_to_a_rate_and_refuses_to_speed_it_up() -> None:
    workload = NamedWorkload(name="agents", generator="continuum-swebench")
    assert Load(rate_rps=2.0).of(workload).rate_rps == 2.0
    drawn = NamedWorkload(name="agents", generator="infercept", arrivals=ArrivalSpec())
    assert Load(rate_rps=2.0).of(drawn).arrivals == ArrivalSpec(rate_rps=2.0)
    with pytest.raises(InputError, match="cannot be sped up"):
        Load(speed_up=2.0).of(workload)


@dataclass(frozen=True)
class Echo(Generator):
    """Two calls of a length."""

    tokens: int = 5

    def about(self) -> About:
        return About(says="Two calls.", source="nowhere")

    def arrivals(self) -> ArrivalSpec:
        return ArrivalSpec(process="constant", rate_rps=1.0)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        return (chain(name, [Turn(self.tokens, 1), Turn(self.tokens + 9, 1)]) for name in names())


def test_a_stranger_s_workload_is_known_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(group: str, built_in: dict[str, Generator]) -> dict[str, Generator]:
        assert group == "servescope.workloads"
        return {"echo": Echo(), **built_in}

    monkeypatch.setattr(papers, "installed", installed)
    calls = list(made("echo", calls=4, params={"tokens": "7"}).calls())
    assert [call.input_tokens for call in calls] == [7, 16, 7, 16]


def test_a_stranger_that_is_no_generator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "installed", lambda group, built_in: {"echo": Echo, **built_in})
    with pytest.raises(InputError, match="workload echo is no Generator but <class"):
        made("echo")
