"""What is put together by name has the parts that its system, model, GPU and overhead say."""

from __future__ import annotations

import pytest

from servescope.engine import BLOCK_TOKENS, deploy, emulate, kv_blocks, make_system
from servescope.engine.catalog import find_gpu, find_model
from servescope.traces.errors import InputError


def test_an_engine_is_made_from_names() -> None:
    engine = emulate(make_system("sarathi"), "llama-3.1-8b", "h200", context_tokens=16_384)
    assert engine.context_tokens == 16_384
    assert engine.pool.total * BLOCK_TOKENS > 800_000


def test_each_replica_has_its_own_card_and_number() -> None:
    cluster = deploy(make_system("infaas"), "Llama-3.1-8B", ["A100-80G", "A40"])
    assert [replica.gpu for replica in cluster.replicas] == ["A100-80G", "A40"]
    assert [replica.number for replica in cluster.replicas] == [0, 1]
    model = find_model("Llama-3.1-8B")
    for replica in cluster.replicas:
        assert replica.engine.pool.total == kv_blocks(model, find_gpu(replica.gpu), 1)
        assert replica.engine.context_tokens == model.context_tokens


@pytest.mark.parametrize(
    ("asked", "system", "cached"),
    [(None, "vllm_v1", True), (None, "vllm_v0", False), (True, "vllm_v0", True),
     (False, "vllm_v1", False)],
)  # fmt: skip
def test_the_prefix_cache_is_the_systems_unless_it_is_asked_for(
    asked: bool | None, system: str, cached: bool
) -> None:
    cluster = deploy(make_system(system), "Llama-3.1-8B", ["H100"], prefix_cache=asked)
    assert (cluster.engines[0].pool.prefixes is not None) is cached


def test_lanes_of_one_gpu_have_no_host() -> None:
    """The host launches one step at a time; of two lanes nobody has measured it."""
    lanes = emulate(make_system("semi_pd"), "Llama-3.1-8B", "H100", overhead="vllm-0.26")
    whole = emulate(make_system("vllm_v1"), "Llama-3.1-8B", "H100", overhead="vllm-0.26")
    assert (lanes.host is None, lanes.lanes) == (True, ("prefill", "decode"))
    assert whole.host is not None


def test_stages_of_a_pipeline_leave_more_room_for_keys_and_values() -> None:
    one = emulate(make_system("vllm_v1"), "Llama-3.1-8B", "A10")
    two = emulate(make_system("vllm_v1"), "Llama-3.1-8B", "A10", pp=2)
    assert two.pool.total > 2 * one.pool.total


def test_what_is_not_known_is_said_with_what_is_near() -> None:
    with pytest.raises(InputError, match="'H101' is not a GPU"):
        deploy(make_system("vllm_v1"), "Llama-3.1-8B", ["H100", "H101"])
    with pytest.raises(InputError, match="'fast' is not an overhead"):
        emulate(make_system("vllm_v1"), "Llama-3.1-8B", "H100", overhead="fast")
