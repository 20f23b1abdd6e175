"""When a pin pays: worked by hand, and against every time to live that there could be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.engine.systems.tool_pauses import Durations, Turns, best_ttl, cold_ttl


def test_the_best_time_to_live_is_where_what_it_catches_exceeds_what_it_costs_most() -> None:
    """Of pauses 1, 2 and 10 s, a benefit of 6 s: 6/3 - 1 = 1, 12/3 - 2 = 2, 18/3 - 10 = -4."""
    assert best_ttl([1.0, 2.0, 10.0], 6.0) == 2.0


def test_a_benefit_that_pays_for_no_pause_keeps_nothing() -> None:
    """2.9/3 - 1 < 0 and 5.8/3 - 2 < 0; from 3 s on the first two pay for themselves."""
    assert best_ttl([1.0, 2.0, 10.0], 2.9) == 0.0
    assert best_ttl([1.0, 2.0, 10.0], 3.1) == 2.0


def test_keeping_is_never_worth_less_than_nothing() -> None:
    assert best_ttl([1.0, 2.0], 0.0) == 0.0
    assert best_ttl([0.0, 0.0, 5.0], -3.0) == 0.0
    assert best_ttl([], 100.0) == 0.0


def test_equal_pauses_are_caught_together() -> None:
    """Three of four in a second: 3/4 2 - 1 = 0.5; the fourth in 3 s: 2 - 3 < 0."""
    assert best_ttl([1.0, 1.0, 1.0, 3.0], 2.0) == 1.0


def test_of_two_that_are_worth_the_same_the_shorter_is_kept() -> None:
    """4/2 - 1 = 1 = 4 - 3."""
    assert best_ttl([1.0, 3.0], 4.0) == 1.0


def test_pauses_of_no_time_need_no_pin() -> None:
    """What is back at once is caught by a time to live of 0: 2/3 6 - 0 = 4 > 6 - 3."""
    assert best_ttl([0.0, 0.0, 3.0], 6.0) == 0.0


@given(
    pauses=st.lists(st.integers(0, 400).map(lambda n: n / 8), min_size=1, max_size=30),
    benefit_s=st.integers(-80, 800).map(lambda n: n / 8),
)
def test_no_other_time_to_live_is_worth_more(pauses: list[float], benefit_s: float) -> None:
    def worth(ttl: float) -> float:
        return sum(pause <= ttl for pause in pauses) / len(pauses) * benefit_s - ttl

    chosen = best_ttl(sorted(pauses), benefit_s)
    assert chosen in {0.0, *pauses}
    if benefit_s > 0:
        others = [0.0, *pauses, *(pause - 0.01 for pause in pauses if pause > 0)]
        assert worth(chosen) >= max(map(worth, others)) - 1e-9


def test_while_too_few_pauses_are_known_they_are_taken_as_exponential() -> None:
    """d/dt (1 - e^-t) B - t = 0 at t = ln B."""
    assert cold_ttl(math.e**2) == pytest.approx(2.0)
    assert cold_ttl(1.0) == cold_ttl(0.3) == cold_ttl(-1.0) == 0.0


def test_pauses_are_kept_by_tool_and_all_together_the_shortest_first() -> None:
    seen = Durations()
    for tool, pause_s in (("ls", 3.0), ("cat", 2.0), ("ls", 1.0), (None, 0.5)):
        seen.add(tool, pause_s)
    assert list(seen.all) == [0.5, 1.0, 2.0, 3.0]
    assert list(seen.of("ls")) == [1.0, 3.0]
    assert list(seen.of("rm")) == []
    assert seen.mean_s("ls") == 2.0
    assert seen.mean_s("rm") is None


def test_eta_is_one_where_all_programs_have_as_many_turns() -> None:
    """Each turn done is one less to come."""
    turns = Turns()
    for _ in range(3):
        turns.ended(5)
    assert turns.eta == 1.0


def test_eta_is_negative_where_turns_done_promise_more() -> None:
    """Programs of few turns and of more, pooled: who has had many has more of them left.

    Ten of 2 turns give (1, 1) each, one of 4 gives (1, 3), (2, 2), (3, 1): thirteen pairs, means
    16/13, sum of products 20: covariance 20/13 - (16/13)^2 = 4/169 > 0, so that eta < 0.
    """
    turns = Turns()
    for count in [2] * 10 + [4]:
        turns.ended(count)
    spread = (10 + 1 + 4 + 9) / 13 - (16 / 13) ** 2
    assert turns.eta == pytest.approx(-(4 / 169) / spread)
    assert turns.eta < 0


def test_eta_is_none_where_nothing_varies() -> None:
    turns = Turns()
    assert turns.eta == 0.0
    for count in (1, 2, 2):  # no pair, or always (1, 1)
        turns.ended(count)
    assert turns.eta == 0.0


def test_eta_forgets_programs_that_are_long_gone() -> None:
    turns = Turns(programs=2)
    for count in (30, 5, 5):
        turns.ended(count)
    assert turns.eta == 1.0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_eta_is_minus_the_correlation_of_all_pairs(counts: list[int]) -> None:
    turns = Turns()
    pairs = []
    for count in counts:
        turns.ended(count)
        pairs += [(done, count - done) for done in range(1, count)]
    done, left = np.array(pairs or [(0, 0)]).T
    if len(set(done)) > 1:
        assert turns.eta == pytest.approx(-np.corrcoef(done, left)[0, 1])
    else:
        assert turns.eta == 0.0
