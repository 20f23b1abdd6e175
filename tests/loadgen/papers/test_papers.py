from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.analysis import SLO
from servescope.analysis.arrivals import process
from servescope.loadgen.papers import WORKLOADS, make_workload, parameters_of
from servescope.loadgen.papers.generator import Generator
from servescope.loadgen.papers.statistics import beside
from servescope.loadgen.program import Program
from servescope.traces.errors import InputError
from servescope.traces.schema import SCHEMA

HEXGEN = {f"hexgen-text2sql {trace}": make_workload("hexgen-text2sql", {"trace": trace})
          for trace in ("trace2", "trace3", "financial", "formula1")}  # fmt: skip
ALL = {**WORKLOADS, **HEXGEN}
PROGRAMS = {
    **dict.fromkeys(("burstgpt-conv", "continuum-swebench", "continuum-bfcl"), 20_000),
    **dict.fromkeys(("hexgen-text2sql", *HEXGEN), 4000),
    "autellix-lats": 1000,
    "infercept": 10_000,
}
TOLERANCE = 0.04
# What comes out less well, and how well: docs/reference/workloads.md says so too.
MISSES = {
    ("burstgpt-conv", "input_tokens"): 0.18,
    ("burstgpt-conv", "later_input_tokens"): 0.08,
    ("burstgpt-conv", "growth_tokens"): 0.20,
    ("burstgpt-conv", "calls"): 0.05,
    ("burstgpt-conv", "pause_s"): 0.08,  # two in a hundred pauses have most of the sum
    ("burstgpt-conv", "output_tokens"): 0.06,
    ("burstgpt-api", "output_tokens"): 0.20,  # of which the correlation; one call in 2,000 bends it
    # heavy tails: the deviation settles slowly, and by its formula is right (test_continuum.py)
    ("continuum-swebench", "pause_s"): 0.08,
    ("continuum-bfcl", "pause_s"): 0.08,
    # the paper's Short at P99 is 1464 and its own generator's 1682; the others less so
    ("llumnix-s-s", "input_tokens"): 0.20,
    ("llumnix-s-s", "output_tokens"): 0.20,
    ("llumnix-s-l", "input_tokens"): 0.20,
    ("llumnix-l-s", "output_tokens"): 0.20,
    ("llumnix-m-m", "input_tokens"): 0.12,
    ("llumnix-m-m", "output_tokens"): 0.12,
}


def drawn(generator: Generator, count: int, seed: int = 1) -> list[Program]:
    rng = np.random.default_rng(seed)
    return [Program(calls[0].program_id, 0.0, calls)
            for calls in islice(generator.programs(rng), count)]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_the_published_figures_come_out(name: str) -> None:
    generator = ALL[name]
    programs = drawn(generator, PROGRAMS.get(name, 40_000))
    wrong = []
    for quantity, statistic, paper, here in beside(programs, generator.about().published):
        assert here is not None
        if abs(here / paper - 1) > MISSES.get((name, quantity), TOLERANCE):
            wrong.append((quantity, statistic, paper, here))
    assert wrong == []


@pytest.mark.parametrize("name", ALL)
def test_programs_are_what_a_plan_can_be_made_of(name: str) -> None:
    seen: set[str] = set()
    for program in drawn(ALL[name], 200):
        before: set[str] = set()
        for turn, call in enumerate(program.calls):
            assert call.program_id == program.id
            assert call.turn == turn
            assert call.input_tokens > 0
            assert call.output_tokens > 0
            assert call.delay_s >= 0
            assert set(call.parents) <= before
            assert (call.pause is None) or call.parents
            before.add(call.id)
        assert not before & seen
        seen |= before


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_is_said_of_a_workload_can_be_used(name: str) -> None:
    generator = WORKLOADS[name]
    about, arrivals = generator.about(), generator.arrivals()
    assert about.says.endswith(".")
    assert "arXiv" in about.source
    for text in about.slos.values():
        SLO.parse(text)
    assert set(about.assumed) <= set(SCHEMA)
    assert arrivals.rate_rps
    process(arrivals.process, rate_rps=arrivals.rate_rps, **arrivals.params)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(WORKLOADS)), st.integers(0, 2**32), st.integers(1, 30))
def test_the_same_seed_makes_the_same_programs_and_more_begin_with_them(
    name: str, seed: int, count: int
) -> None:
    few, many = (drawn(WORKLOADS[name], n, seed) for n in (count, count + 5))
    assert many[:count] == few


@pytest.mark.parametrize("name", WORKLOADS)
def test_another_seed_makes_other_programs(name: str) -> None:
    # of a hundred: the commonest length of a power law is that of most single calls
    one, other = (drawn(WORKLOADS[name], 100, seed) for seed in (1, 2))
    assert one != other


def test_parameters_may_be_text_and_leave_the_others_alone() -> None:
    made = make_workload("llumnix-s-l", {"cv": "4", "high_priority": 0.1})
    assert {key: getattr(made, key) for key in parameters_of(made)} == {
        "inputs": "short", "outputs": "long", "cv": 4.0, "high_priority": 0.1,
    }  # fmt: skip
    assert make_workload("llumnix-s-l") == WORKLOADS["llumnix-s-l"]


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(InputError, match=r"no workload 'llumnix-mm'.*llumnix-m-m"):
        make_workload("llumnix-mm")
    with pytest.raises(InputError, match=r"'turns' is no parameter.*agent, turns_scale"):
        make_workload("continuum-bfcl", {"turns": 3})
    with pytest.raises(InputError, match=r"cannot take .*turns_scale"):
        make_workload("continuum-bfcl", {"turns_scale": "many"})
    with pytest.raises(InputError, match="cannot take"):
        make_workload("llumnix-m-m", {"cv": "0"})
    with pytest.raises(InputError, match="cannot take"):
        make_workload("hexgen-text2sql", {"trace": "trace9"})
