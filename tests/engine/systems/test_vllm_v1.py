from collections.abc import Callable

import pytest

from servescope.engine.decoding import Decoding
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import View, parts_of
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request, Status
from servescope.engine.systems.vllm_v1 import VllmV1

Decodes = Callable[..., Decoding]


def pool(free: int) -> BlockPool:
    pool = BlockPool(100)
    pool.take(100 - free)
    return pool


def unfinished(name: str, prompt: int, computed: int) -> Request:
    request = Request(name, prompt, 10, 0.0)
    request.status, request._computed, request._blocks = Status.RUNNING, computed, computed // 16
    return request


def test_decodes_then_what_runs_then_what_waits_share_one_budget(decoding: Decodes) -> None:
    """Of 80 tokens two decodes take 2, the unfinished prompt its 50, the next one 28."""
    begun, new = unfinished("begun", 82, 32), Request("new", 100, 10, 0.0)
    view = View([new, Request("last", 10, 10, 0.0)], [begun], decoding(20, 20), pool(50))
    batch = VllmV1(max_num_batched_tokens=80).plan(view)
    assert batch.decode
    assert batch.prefill == [(begun, 50), (new, 28)]
    assert batch.admit == [(new, 2)]  # blocks for what is computed now, not for the prompt


def test_a_prompt_may_be_larger_than_what_is_free(decoding: Decodes) -> None:
    new = Request("new", 1600, 10, 0.0)
    batch = VllmV1(max_num_batched_tokens=160).plan(View([new], [], decoding(), pool(10)))
    assert batch.admit == [(new, 10)]
    assert batch.steps == 1


def test_a_prompt_that_outgrows_the_cache_preempts_the_last(decoding: Decodes) -> None:
    """To 132 tokens it needs 9 blocks and has 2: the 6 free ones and one of the last make 7."""
    first, last = unfinished("first", 132, 32), unfinished("last", 100, 16)
    view = View([Request("new", 1, 1, 0.0)], [first, last], decoding(), pool(6))
    batch = VllmV1().plan(view)
    assert batch.preempt == [last]
    assert batch.prefill == [(first, 100)]
    assert not batch.admit


def test_one_that_is_last_preempts_itself(decoding: Decodes) -> None:
    first, last = unfinished("first", 64, 32), unfinished("last", 500, 16)
    batch = VllmV1().plan(View([], [first, last], decoding(20), pool(3)))
    assert batch.preempt == [last]
    assert batch.prefill == [(first, 32)]
    assert batch.decode


def test_a_decode_without_a_block_preempts_the_last_prompt(decoding: Decodes) -> None:
    """Its only block goes to the decode, and the other prompt, now the last, finds none either."""
    first, last = unfinished("first", 64, 32), unfinished("last", 500, 16)
    batch = VllmV1().plan(View([], [first, last], decoding(32), pool(0)))
    assert batch.preempt == [last, first]
    assert not batch.prefill
    assert batch.decode


def test_seats_are_limited(decoding: Decodes) -> None:
    queue = [Request(str(i), 10, 10, 0.0) for i in range(5)]
    batch = VllmV1(max_num_seqs=4).plan(
        View(queue, [unfinished("p", 50, 16)], decoding(20), pool(50))
    )
    assert [request.id for request, _ in batch.admit] == ["0", "1"]


def test_nothing_but_decodes_goes_on_by_itself(decoding: Decodes) -> None:
    batch = VllmV1().plan(View([], [], decoding(20, 20), pool(50)))
    assert batch.decode
    assert batch.steps > 1


@pytest.mark.parametrize(("prefix_cache", "computed"), [(True, 16), (False, 176)])
def test_a_known_prefix_is_not_computed_again(prefix_cache: bool, computed: int) -> None:
    system = VllmV1(prefix_cache=prefix_cache)
    assert parts_of(system).prefix_cache is prefix_cache
    cache = Prefixes() if prefix_cache else None
    engine = Engine(system, lambda load: 1.0, BlockPool(100, cache), 1000)
    for number in range(2):
        text = (Segment("system prompt", 160), Segment(f"question {number}", 16))
        engine.submit(Request(str(number), 176, 1, number * 1.0, prefix=text), number * 1.0)
        step = engine.begin(number * 1.0)
        assert step is not None
        engine.finish(step)
    assert step.load.tokens == computed
