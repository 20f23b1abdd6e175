import pytest

from servescope.engine.catalog import find_gpu, find_model
from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool, OutOfBlocks, blocks_for, kv_blocks
from servescope.traces.errors import InputError


def test_free_and_used_are_always_the_total() -> None:
    pool = BlockPool(1000)
    pool.take(300)
    pool.release(100)
    assert (pool.free, pool.used, pool.total) == (800, 200, 1000)
    assert pool.usage == pytest.approx(0.2)


def test_nobody_takes_more_than_is_free() -> None:
    pool = BlockPool(10)
    with pytest.raises(OutOfBlocks, match=r"11 KV blocks, 10 are free"):
        pool.take(11)
    assert pool.free == 10


def test_the_watermark_is_one_percent() -> None:
    assert BlockPool(2500).watermark == 25


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (160, 10)])
def test_a_started_block_is_a_whole_block(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks


def test_an_h200_holds_the_kv_tokens_that_vllm_found_room_for() -> None:
    """vLLM 0.26 at utilisation 0.92 found 914,304 tokens; activations make the difference."""
    blocks = kv_blocks(find_model("Llama-3.1-8B"), find_gpu("H200"), tp=1, utilisation=0.92)
    assert blocks * BLOCK_TOKENS == pytest.approx(914_304, rel=0.03)


def test_two_gpus_hold_more_than_twice_the_kv_of_one() -> None:
    model, gpu = find_model("Llama-3.1-8B"), find_gpu("H100")
    assert kv_blocks(model, gpu, tp=2) > 2 * kv_blocks(model, gpu, tp=1)


def test_two_stages_keep_what_two_halves_of_the_layers_need() -> None:
    """Half the weights and half the layers a GPU: as with tp 2 where KV heads divide evenly."""
    model, gpu = find_model("Llama-3.1-70B"), find_gpu("A100-80G")
    assert kv_blocks(model, gpu, tp=2, pp=2) == kv_blocks(model, gpu, tp=4)


def test_a_model_that_does_not_fit_says_what_would() -> None:
    with pytest.raises(InputError, match=r"141 GB .* Use more GPUs"):
        kv_blocks(find_model("Llama-3.1-70B"), find_gpu("H100"), tp=1)
