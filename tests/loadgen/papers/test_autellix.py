from itertools import islice

import numpy as np

from servescope.loadgen.papers.autellix import BRANCHES, Autellix


def test_a_search_goes_in_rounds_that_wait_for_all_judgements_of_the_one_before() -> None:
    (calls,) = islice(Autellix("lats").programs(np.random.default_rng(0)), 1)
    made, judged = calls[:BRANCHES], calls[BRANCHES : 2 * BRANCHES]
    assert {call.parents for call in made} == {()}
    assert [call.parents for call in judged] == [(call.id,) for call in made]
    following = calls[2 * BRANCHES : 3 * BRANCHES]
    assert {call.parents for call in following} == {tuple(call.id for call in judged)}
    assert len(calls) % (2 * BRANCHES) == 0


def test_conversations_and_agents_pause_for_whom_they_should() -> None:
    for kind, pause in (("sharegpt", "user"), ("bfcl", "tool")):
        made = islice(Autellix(kind).programs(np.random.default_rng(0)), 50)  # type: ignore[arg-type]
        assert {call.pause for calls in made for call in calls[1:]} == {pause}
