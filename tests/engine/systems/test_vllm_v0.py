from collections.abc import Callable

from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import View
from servescope.engine.request import Request
from servescope.engine.systems.vllm_v0 import VllmV0

Decodes = Callable[..., Decoding]


def waiting(*prompts: int) -> list[Request]:
    return [Request(str(i), prompt, 10, 0.0) for i, prompt in enumerate(prompts)]


def test_prompts_go_before_decodes(decoding: Decodes) -> None:
    queue = waiting(100, 200)
    batch = VllmV0().plan(View(queue, [], decoding(20), BlockPool(100)))
    assert batch.prefill == [(queue[0], 100), (queue[1], 200)]
    assert batch.admit == [(queue[0], 7), (queue[1], 13)]
    assert not batch.decode


def test_everyone_decodes_when_nothing_waits(decoding: Decodes) -> None:
    batch = VllmV0().plan(View([], [], decoding(20, 20), BlockPool(100)))
    assert batch.decode
    assert not batch.prefill


def test_prompts_are_batched_up_to_the_token_limit(decoding: Decodes) -> None:
    queue = waiting(600, 300, 200)
    batch = VllmV0(max_num_batched_tokens=1000).plan(View(queue, [], decoding(), BlockPool(1000)))
    assert [request.id for request, _ in batch.prefill] == ["0", "1"]


def test_a_prompt_over_the_token_limit_goes_alone(decoding: Decodes) -> None:
    queue = waiting(5000, 10)
    batch = VllmV0(max_num_batched_tokens=1000).plan(View(queue, [], decoding(), BlockPool(1000)))
    assert batch.prefill == [(queue[0], 5000)]


def test_the_watermark_stays_free(decoding: Decodes) -> None:
    queue = waiting(16 * 199)
    pool = BlockPool(200)
    assert pool.watermark == 2
    assert not VllmV0().plan(View(queue, [], decoding(20), pool)).prefill
    queue = waiting(16 * 198)
    assert VllmV0().plan(View(queue, [], decoding(20), pool)).prefill


def test_a_head_that_does_not_fit_holds_back_who_would(decoding: Decodes) -> None:
    queue = waiting(16 * 50, 16)
    batch = VllmV0().plan(View(queue, [], decoding(20), BlockPool(40)))
    assert not batch.prefill
    assert batch.decode
