from itertools import islice, pairwise

import numpy as np
import pytest

from servescope.loadgen.papers.continuum import AGENTS, Continuum
from servescope.loadgen.papers.statistics import figure
from servescope.loadgen.program import Program


def agents(count: int, **parameters: object) -> list[Program]:
    made = Continuum(**parameters).programs(np.random.default_rng(3))  # type: ignore[arg-type]
    return [Program(calls[0].program_id, 0.0, calls) for calls in islice(made, count)]


@pytest.mark.parametrize("agent", ["swebench", "bfcl"])
def test_every_prompt_holds_all_that_was_said_before(agent: str) -> None:
    for program in agents(300, agent=agent, turns_scale=2.0):
        for before, after in pairwise(program.calls):
            assert after.input_tokens > before.input_tokens + before.output_tokens
            assert after.parents == (before.id,)
        assert {call.prompt_stream for call in program.calls} == {program.id}


def test_a_tool_runs_between_any_two_turns_and_none_after_the_last() -> None:
    for program in agents(100):
        *others, last = program.calls
        assert all(call.tool for call in others)
        assert last.tool is None
        assert all(call.pause == "tool" and call.delay_s > 0 for call in program.calls[1:])


def test_more_turns_leave_the_growth_in_one_alone() -> None:
    """Turns are 1 to 5 times as many in the paper: 10.9 to about 50."""
    plain, scaled = agents(3000), agents(3000, turns_scale=5.0)
    assert figure(scaled, "calls", "mean") == pytest.approx(5 * 10.9, rel=0.02)
    growth = [figure(each, "growth_tokens", "mean") for each in (plain, scaled)]
    assert growth[1] == pytest.approx(growth[0], rel=0.1)


def test_tools_take_as_many_times_as_long_as_asked() -> None:
    plain, longer, none = (agents(50, tools_scale=scale) for scale in (1.0, 3.0, 0.0))
    pauses = [[call.delay_s for program in each for call in program.calls[1:]]
              for each in (plain, longer, none)]  # fmt: skip
    assert pauses[1] == pytest.approx([3 * pause for pause in pauses[0]])
    assert set(pauses[2]) == {0.0}


@pytest.mark.parametrize("agent", AGENTS)
def test_all_tools_together_have_the_published_mean_and_deviation(agent: str) -> None:
    known = AGENTS[agent]  # type: ignore[index]
    assert sum(tool.share for tool in known.tools) == pytest.approx(1.0)
    mean = sum(tool.share * tool.takes_s.mean for tool in known.tools)
    square = sum(tool.share * (tool.takes_s.mean**2 + tool.takes_s.sd**2) for tool in known.tools)
    assert (mean, np.sqrt(square - mean**2)) == pytest.approx(known.pause_s, rel=0.005)


def test_the_slowest_tenth_of_fetch_url_has_the_published_share_of_its_delay() -> None:
    """Of a lognormal, the largest tenth has Phi(sigma - 1.2816) of the sum."""
    (fetch,) = (tool for tool in AGENTS["bfcl"].tools if tool.name == "fetch_url")
    slowest = fetch.takes_s.quantile(0.9 + 0.1 * (np.arange(10**6) + 0.5) / 10**6).mean() / 10
    assert slowest / fetch.takes_s.mean == pytest.approx(0.525, abs=0.002)
