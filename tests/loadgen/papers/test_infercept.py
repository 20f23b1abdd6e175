from itertools import islice, pairwise

import numpy as np
import pytest

from servescope.loadgen.papers.infercept import RESULT_TOKENS, TOOLS, InferCept


def test_an_answer_goes_on_with_what_the_tool_returned() -> None:
    for calls in islice(InferCept().programs(np.random.default_rng(0)), 200):
        assert len(calls) > 1
        for before, after in pairwise(calls):
            said = before.input_tokens + before.output_tokens
            assert after.input_tokens == said + RESULT_TOKENS
            assert before.tool == before.call_class
        assert calls[-1].tool is None


@pytest.mark.parametrize("kind", TOOLS)
def test_one_kind_alone_can_be_had(kind: str) -> None:
    made = islice(InferCept(kind).programs(np.random.default_rng(0)), 20)  # type: ignore[arg-type]
    assert {call.call_class for calls in made for call in calls} == {kind}


def test_as_many_of_each_kind_are_mixed() -> None:
    made = islice(InferCept().programs(np.random.default_rng(0)), 6000)
    kinds = [calls[0].call_class for calls in made]
    assert all(abs(kinds.count(kind) - 1000) < 150 for kind in TOOLS)
