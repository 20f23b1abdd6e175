from collections.abc import Callable

from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import View
from servescope.engine.request import Request
from servescope.engine.systems.preempt import preempt_last

Decodes = Callable[..., Decoding]
FULL = 32  # tokens of two full blocks: the next token needs a third


def pool(free: int) -> BlockPool:
    pool = BlockPool(100)
    pool.take(100 - free)
    return pool


def test_nobody_is_preempted_while_blocks_are_free(decoding: Decodes) -> None:
    kept = preempt_last(View([], [], decoding(FULL, 20, FULL), pool(2)))
    assert kept == ((), [], 3, 0)


def test_the_last_goes_first_and_its_blocks_serve_the_others(decoding: Decodes) -> None:
    three = decoding(FULL, FULL, FULL)
    kept = preempt_last(View([], [], three, pool(0)))
    assert kept.preempted == [list(three)[2]]
    assert (kept.decoding, kept.room) == (2, 0)


def test_one_that_needs_no_block_gives_its_own_and_takes_no_need_away(decoding: Decodes) -> None:
    kept = preempt_last(View([], [], decoding(FULL, FULL, 20), pool(1)))
    assert [request.id for request in kept.preempted] == ["d2"]
    assert (kept.decoding, kept.room) == (2, 1)


def test_an_unfinished_prompt_is_younger_than_any_decode(decoding: Decodes) -> None:
    prefilling = [Request("p", 100, 10, 0.0)]
    prefilling[0]._blocks = 7
    kept = preempt_last(View([], prefilling, decoding(FULL), pool(0)))
    assert kept.preempted == prefilling
    assert kept.room == 6
