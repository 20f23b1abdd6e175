"""What follows from the number of steps is what counting token by token would have found."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.engine import decoding as module
from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import blocks_for
from servescope.engine.request import Request, Status


@dataclass
class Counted:
    """A request that is counted token by token."""

    computed: int
    left: int
    blocks: int
    token_s: list[float] = field(default_factory=list)
    in_step: bool = False


def prompted(name: str, computed: int, output: int) -> Request:
    request = Request(name, computed, output + 1, 0.0)
    request.status, request._computed, request._generated = Status.RUNNING, computed, 1
    request._blocks, request._token_s = blocks_for(computed), [0.0]
    return request


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "begin", "end", "remove"]), st.integers(1, 40), st.integers(1, 30)
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_every_request_is_where_counting_would_have_it(events: list[tuple[str, int, int]]) -> None:
    decoding, now = Decoding(), 0.0
    naive: dict[Request, Counted] = {}
    for kind, a, b in events:
        if kind == "add":
            request = prompted(str(len(naive)), a, b)
            assert decoding.add(request) == 0
            naive[request] = Counted(a, b, blocks_for(a), [0.0])
        elif kind == "begin" and decoding.begun == decoding.count and len(decoding):
            members = [naive[each] for each in decoding]
            needing = [each for each in members if each.computed == each.blocks * 16]
            assert decoding.growth == len(needing)
            assert decoding.steps_left() == min(each.left for each in members)
            assert decoding.begin() == len(needing)
            for each in members:
                each.in_step = True
            for each in needing:
                each.blocks += 1
        elif kind == "end" and decoding.begun > decoding.count:
            now += a
            took_part = [each for each in decoding if naive[each].in_step]
            assert decoding.end(now) == len(took_part)
            for request in took_part:
                one = naive[request]
                one.computed, one.left, one.in_step = one.computed + 1, one.left - 1, False
                one.token_s.append(now)
                assert request.gap_s == one.token_s[-1] - one.token_s[-2]
            done = {each for each in decoding if naive[each].left == 0}
            assert set(decoding.finished()) == done
            for request in done:
                decoding.remove(request)
        elif kind == "remove" and len(decoding):
            request = list(decoding)[a % len(decoding)]
            naive[request].in_step = False
            decoding.remove(request)
        for request, one in naive.items():
            assert request.computed == one.computed
            assert request.token_s == one.token_s
            assert request.generated == len(one.token_s)
            if request in decoding:
                assert request.blocks == one.blocks
        assert decoding.kv_tokens == sum(naive[each].computed for each in decoding)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=8), st.integers(0, 40))
def test_so_many_steps_fit_into_so_many_blocks(computed: list[int], blocks: int) -> None:
    decoding = Decoding()
    for tokens in computed:
        decoding.add(prompted("r", tokens, 1000))
    fit = decoding.steps_within(blocks, 100)
    taken = [decoding.begin() + 0 * decoding.end(float(step)) for step in range(101)]
    assert sum(taken[:fit]) <= blocks
    assert fit == 100 or sum(taken[: fit + 1]) > blocks


def test_blocks_for_the_whole_answer_are_kept_and_others_given_back() -> None:
    decoding, whole, some = Decoding(), prompted("whole", 10, 30), prompted("some", 10, 30)
    whole._blocks, some._blocks = 3, 2
    assert (decoding.add(whole), decoding.add(some)) == (0, 1)
    assert (whole.blocks, some.blocks) == (3, 1)
    assert not decoding.grows(whole)


def test_ends_that_nobody_needs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FORGET_STEPS", 8)
    decoding = Decoding()
    decoding._forget_at = 8
    old, young = prompted("old", 5, 10_000), prompted("young", 5, 10_000)
    decoding.add(old)
    for step in range(100):
        if step == 20:
            decoding.remove(old)
            decoding.add(young)
        decoding.begin()
        decoding.end(float(step))
    assert old.token_s == [0.0, *map(float, range(20))]
    assert young.token_s == [0.0, *map(float, range(20, 100))]
    assert len(decoding._ends) < 100
