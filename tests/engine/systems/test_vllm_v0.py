from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import View
from servescope.engine.request import Request
from servescope.engine.systems.vllm_v0 import VllmV0


def waiting(*prompts: int) -> list[Request]:
    return [Request(str(i), prompt, 10, 0.0) for i, prompt in enumerate(prompts)]


def decoding() -> Request:
    request = Request("d", 20, 10, 0.0)
    request.computed, request.remaining, request.generated, request.blocks = 20, 1, 1, 2
    return request


def test_prompts_go_before_decodes() -> None:
    queue, running = waiting(100, 200), [decoding()]
    batch = VllmV0().plan(View(queue, [], running, BlockPool(100)))
    assert batch.prefill == [(queue[0], 100), (queue[1], 200)]
    assert batch.admit == [(queue[0], 7), (queue[1], 13)]
    assert not batch.decode


def test_everyone_decodes_when_nothing_waits() -> None:
    running = [decoding(), decoding()]
    batch = VllmV0().plan(View([], [], running, BlockPool(100)))
    assert batch.decode == running
    assert not batch.prefill


def test_prompts_are_batched_up_to_the_token_limit() -> None:
    queue = waiting(600, 300, 200)
    batch = VllmV0(max_num_batched_tokens=1000).plan(View(queue, [], [], BlockPool(1000)))
    assert [request.id for request, _ in batch.prefill] == ["0", "1"]


def test_a_prompt_over_the_token_limit_goes_alone() -> None:
    queue = waiting(5000, 10)
    batch = VllmV0(max_num_batched_tokens=1000).plan(View(queue, [], [], BlockPool(1000)))
    assert batch.prefill == [(queue[0], 5000)]


def test_the_watermark_stays_free() -> None:
    queue = waiting(16 * 199)
    pool = BlockPool(200)
    assert pool.watermark == 2
    assert not VllmV0().plan(View(queue, [], [decoding()], pool)).prefill
    queue = waiting(16 * 198)
    assert VllmV0().plan(View(queue, [], [decoding()], pool)).prefill


def test_a_head_that_does_not_fit_holds_back_who_would() -> None:
    queue, running = waiting(16 * 50, 16), [decoding()]
    batch = VllmV0().plan(View(queue, [], running, BlockPool(40)))
    assert not batch.prefill
    assert batch.decode == running
