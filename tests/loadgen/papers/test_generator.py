from itertools import islice

import numpy as np
import pytest

from servescope.loadgen.papers.generator import (
    PIECE,
    Turn,
    chain,
    coupled,
    normal_counts,
    single_calls,
)
from servescope.loadgen.papers.lengths import Lognormal

SOME = Lognormal.of(100, 50)


def test_a_chain_waits_turn_after_turn_and_shares_what_was_said() -> None:
    first, then, cut, after = chain(
        "p",
        [
            Turn(10, 5, 9.0, "user", "search"),
            Turn(20, 5, 2.0, "tool"),
            Turn(12, 5, 1.0, "user"),
            Turn(30, 5),
        ],
    )
    assert [call.id for call in (first, then, cut, after)] == ["p-0", "p-1", "p-2", "p-3"]
    assert (first.parents, first.delay_s, first.pause) == ((), 0.0, None)
    assert (then.parents, then.delay_s, then.pause) == (("p-0",), 2.0, "tool")
    assert (first.tool, then.tool) == ("search", None)
    # 12 tokens do not hold the 25 that were said
    streams = [call.prompt_stream for call in (first, then, cut, after)]
    assert streams == ["p", "p", "p#2", "p#2"]


def test_a_chain_of_one_call_has_its_program_s_name() -> None:
    (alone,) = chain("p", [Turn(10, 5)])
    assert alone.id == "p"


def test_single_calls_go_on_beyond_a_piece_with_names_of_their_own() -> None:
    calls = [call for (call,) in islice(single_calls(np.random.default_rng(0), SOME, SOME), 5000)]
    assert len({call.id for call in calls}) == 5000 > PIECE
    assert {call.priority for call in calls} == {None}


def test_a_share_of_calls_is_urgent() -> None:
    drawn = islice(single_calls(np.random.default_rng(0), SOME, SOME, urgent=0.1), 20_000)
    priorities = [call.priority for (call,) in drawn]
    assert set(priorities) == {-1, 0}
    assert priorities.count(-1) / 20_000 == pytest.approx(0.1, abs=0.01)


def test_lengths_are_correlated_as_asked_and_even_each() -> None:
    one, other = coupled(np.random.default_rng(0), 0.6, 200_000)
    # of two normals of correlation r, the ranks correlate by 6 / pi x asin(r / 2)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(6 / np.pi * np.arcsin(0.3), abs=0.01)
    for values in (one, other):
        assert (values.mean(), values.var()) == pytest.approx((1 / 2, 1 / 12), abs=0.005)


def test_whole_numbers_are_at_least_one() -> None:
    drawn = normal_counts(np.random.default_rng(0), 1.0, 5.0, 1000)
    assert drawn.min() == 1
