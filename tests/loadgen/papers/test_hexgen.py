from itertools import islice, pairwise

import numpy as np
import pytest

from servescope.loadgen.papers.hexgen import (
    BLOCK_TOKENS,
    CANDIDATE,
    EVALUATE,
    KEYWORDS,
    RETRIEVE,
    REVISE,
    STANDARD_WORKFLOW,
    TEMPLATES,
    TEST,
    TESTER,
    HexGen,
    slo_s,
    stage_s,
)
from servescope.loadgen.program import Call


def questions(count: int = 300, **parameters: float) -> list[tuple[Call, ...]]:
    made = HexGen(**parameters).programs(np.random.default_rng(0))  # type: ignore[arg-type]
    return list(islice(made, count))


def test_the_deadline_is_the_sum_over_the_standard_workflow() -> None:
    """By hand: IR .303425 x 4, keywords 1.45615, candidate 23.47985, revise 4.668825 x 4, unit
    tester .23705 x 3, generate unit test 3.222025, evaluate 1.15045."""
    assert len(STANDARD_WORKFLOW) == 15
    assert stage_s(RETRIEVE) == pytest.approx(0.303425)
    assert slo_s() == pytest.approx(49.908625)
    (call, *_), *_ = questions(slo_scale=3.0)
    assert call.deadline_s == pytest.approx(3 * 49.908625)


def test_stages_follow_each_other_and_candidates_and_evaluations_go_side_by_side() -> None:
    for calls in questions():
        by_id = {call.id: call for call in calls}
        stages = [call.call_class for call in calls]
        left = [stage for stage in stages if stage not in (KEYWORDS, REVISE, EVALUATE)]
        assert left == [RETRIEVE] * 4 + [CANDIDATE] * 2 + [TESTER, TEST, TESTER, TESTER]
        for before, call in pairwise(calls):
            together = call.call_class == before.call_class and call.call_class in (
                CANDIDATE, EVALUATE,
            )  # fmt: skip
            if together:
                assert call.parents == before.parents
            else:
                side_by_side = {each.id for each in calls if each.parents == before.parents}
                assert set(call.parents) == side_by_side
                assert {by_id[parent].call_class for parent in call.parents} == {before.call_class}


def test_there_are_at_most_nine_revisions_and_six_evaluations_as_in_trace1() -> None:
    counts = [
        tuple(sum(call.call_class == stage for call in calls) for stage in (REVISE, EVALUATE))
        for calls in questions(2000)
    ]
    assert max(revises for revises, _ in counts) in (8, 9)
    assert max(evaluates for _, evaluates in counts) == 6


def test_prompts_of_a_stage_begin_with_its_template() -> None:
    one, other = questions(2)
    for stage in (RETRIEVE, REVISE, TEST):
        blocks = {call.prefix_blocks for call in (*one, *other) if call.call_class == stage}
        (template,) = blocks
        assert len(template) == TEMPLATES[stage] // BLOCK_TOKENS
    candidates = [call for call in one if call.call_class == CANDIDATE]
    assert [len(call.prefix_blocks) * BLOCK_TOKENS for call in candidates] == [9152, 5280]
    every = [block for blocks in {call.prefix_blocks for call in one} for block in blocks]
    assert len(set(every)) == len(every)


def test_a_prompt_is_longer_than_its_template() -> None:
    for calls in questions():
        for call in calls:
            assert call.input_tokens > len(call.prefix_blocks) * BLOCK_TOKENS
