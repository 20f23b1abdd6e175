import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from servescope.loadgen.experiment import ArrivalSpec, SyntheticSpec, WorkloadSpec
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.workload import Workload, digest, workload_of
from servescope.traces.errors import InputError


def made(seed: int = 0, **asked: object) -> Workload:
    spec = {"synthetic": {}, **asked}
    return workload_of(msgspec.convert(spec, WorkloadSpec), seed)


def test_without_more_a_thousand_calls_begin_at_once_as_with_vllm() -> None:
    workload = made()
    calls = list(workload.calls())
    assert len(calls) == len(workload.programs) == 1000
    assert {(call.input_tokens, call.output_tokens) for call in calls} == {(1024, 128)}
    assert {program.start_s for program in workload.programs} == {0.0}


def test_lengths_are_even_within_their_share_of_the_mean() -> None:
    lengths = made(calls=20_000, synthetic={"input_tokens": 100, "range_ratio": 0.5})
    drawn = np.array([call.input_tokens for call in lengths.calls()])
    assert (drawn.min(), drawn.max()) == (50, 150)
    # mean and variance of the even distribution on 50..150; 20,000 draws, five standard errors
    variance = (101**2 - 1) / 12
    assert abs(drawn.mean() - 100) < 5 * math.sqrt(variance / 20_000)
    assert abs(drawn.var() / variance - 1) < 0.05


def test_a_small_mean_is_never_drawn_down_to_nothing() -> None:
    calls = made(calls=500, synthetic={"output_tokens": 1, "range_ratio": 0.9}).calls()
    assert {call.output_tokens for call in calls} == {1, 2}


def test_a_plan_depends_on_the_seed_alone_and_lengths_not_on_arrivals() -> None:
    ramped = {"synthetic": {"range_ratio": 0.2}, "arrivals": {"process": "gamma", "rate_rps": 5.0}}
    ramped["arrivals"]["params"] = {"burstiness": 0.5}
    first, again, other = made(7, **ramped), made(7, **ramped), made(8, **ramped)
    assert digest(first.plan(), 7, None) == digest(again.plan(), 7, None)
    assert digest(first.plan(), 7, None) != digest(other.plan(), 7, None)
    at_once = made(7, synthetic={"range_ratio": 0.2})
    lengths = [[c.input_tokens for c in each.calls()] for each in (first, at_once, other)]
    assert lengths[0] == lengths[1] != lengths[2]


def test_more_programs_begin_with_the_same_ones() -> None:
    few, many = (
        made(3, calls=count, arrivals={"rate_rps": 2.0}, synthetic={"range_ratio": 0.4})
        for count in (50, 5000)
    )
    assert many.plan()[:50].equals(few.plan())


def test_the_duration_bounds_starts_that_are_drawn() -> None:
    workload = made(duration_s=10.0, arrivals={"process": "constant", "rate_rps": 4.0})
    assert [program.start_s for program in workload.programs] == [k / 4 for k in range(40)]


def test_a_ramp_without_a_duration_is_as_long_as_the_workload() -> None:
    ramp = {"process": "ramp", "params": {"start_rps": 0.0, "end_rps": 20.0}}
    timed = made(duration_s=100.0, arrivals=ramp)
    assert abs(len(timed.programs) - 1000) < 5 * math.sqrt(1000)  # Poisson, of mean 100 * 20 / 2
    counted = made(calls=1000, arrivals=ramp)  # 1,000 programs at 10/s on average
    assert abs(counted.programs[-1].start_s - 100) < 10


def test_turns_hold_all_that_was_said_and_follow_each_other() -> None:
    lengths = {"input_tokens": 30, "output_tokens": 10, "turns": 3, "think_s": 2.5}
    workload = made(calls=6, synthetic={**lengths, "prefix_tokens": 16})
    assert len(workload.programs) == 2
    calls = workload.programs[1].calls
    assert [call.input_tokens for call in calls] == [46, 86, 126]  # 16 + 30, + 10 + 30, + 10 + 30
    assert [call.parents for call in calls] == [(), (calls[0].id,), (calls[1].id,)]
    assert [call.delay_s for call in calls] == [0.0, 2.5, 2.5]
    assert [call.last for call in calls] == [False, False, True]
    assert [call.number for call in calls] == [3, 4, 5]


def test_the_last_program_is_cut_where_the_calls_end() -> None:
    workload = made(calls=5, synthetic={"turns": 3})
    assert [len(program.calls) for program in workload.programs] == [3, 2]
    assert [call.last for call in workload.programs[1].calls] == [False, True]


@pytest.mark.parametrize("turns", [1, 3])
def test_all_prompts_share_the_prefix_and_those_of_a_program_all_that_came_before(
    turns: int,
) -> None:
    asked = {"input_tokens": 50, "output_tokens": 20, "prefix_tokens": 24, "turns": turns}
    workload = made(calls=2 * turns, synthetic=asked)
    prompts = Prompts(0, workload.block_tokens)
    ours, theirs = (
        [prompts.token_ids(call).tolist() for call in program.calls]
        for program in workload.programs
    )
    assert ours[0][:24] == theirs[0][:24]
    assert ours[0][24:] != theirs[0][24:]
    assert sum(a == b for a, b in zip(ours[-1][24:], theirs[-1][24:], strict=True)) < 10
    for before, after in pairwise(ours):
        assert after[: len(before)] == before


def test_what_cannot_be_is_said_before_anything_is_sent() -> None:
    with pytest.raises(InputError, match="No program starts in that time"):
        made(duration_s=1e-9, arrivals={"rate_rps": 1.0})
    with pytest.raises(InputError, match="no arrival process 'often'"):
        made(arrivals={"process": "often"})
    with pytest.raises(InputError, match=r"arrivals end after \d programs of 10"):
        made(calls=10, arrivals={"process": "piecewise", "params": SOON_OVER})
    with pytest.raises(InputError, match="either a trace or synthetic"):
        WorkloadSpec()
    with pytest.raises(InputError, match="time_scale says what to do with a trace"):
        WorkloadSpec(synthetic=SyntheticSpec(), time_scale=0.5)
    with pytest.raises(InputError, match="each say when programs start"):
        WorkloadSpec(trace="azure:sample", rate_rps=2.0, arrivals=ArrivalSpec())
    with pytest.raises(InputError, match="delay scale scales pauses"):
        WorkloadSpec(trace="azure:sample", delays="none", delay_scale=2.0)


# it stays at its last rate, which is none: about half a program is ever expected
SOON_OVER = {"times_s": [0.0, 1.0], "rates_rps": [1.0, 0.0]}
