from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool
from servescope.engine.policy import View
from servescope.engine.request import Request
from servescope.engine.systems.preempt import preempt_last


def running(name: str, computed: int, blocks: int) -> Request:
    request = Request(name, computed, 100, 0.0)
    request.computed, request.remaining, request.generated, request.blocks = computed, 1, 1, blocks
    return request


def full(blocks: int = 2) -> Request:
    """A decode whose next token needs a new block."""
    return running("full", blocks * BLOCK_TOKENS, blocks)


def pool(free: int) -> BlockPool:
    pool = BlockPool(100)
    pool.take(100 - free)
    return pool


def test_nobody_is_preempted_while_blocks_are_free() -> None:
    decoding = [full(), running("half", 20, 2), full()]
    kept = preempt_last(View([], [], decoding, pool(2)))
    assert kept.decoding == decoding
    assert not kept.preempted
    assert kept.free_blocks == 0


def test_the_last_goes_first_and_its_blocks_serve_the_others() -> None:
    decoding = [full(), full(), full()]
    kept = preempt_last(View([], [], decoding, pool(0)))
    assert kept.preempted == [decoding[2]]
    assert kept.decoding == decoding[:2]
    assert kept.free_blocks == 0


def test_an_unfinished_prompt_is_younger_than_any_decode() -> None:
    decoding, prefilling = [full()], [Request("p", 100, 10, 0.0)]
    prefilling[0].blocks = 7
    kept = preempt_last(View([], prefilling, decoding, pool(0)))
    assert kept.preempted == prefilling
    assert kept.free_blocks == 6
