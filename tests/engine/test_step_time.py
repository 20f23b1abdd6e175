import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from servescope.engine.catalog import Overhead, find_gpu, find_model, find_overhead
from servescope.engine.step_time import Load, StepTime
from servescope.traces.errors import InputError

CALIBRATION = Path(__file__).parents[2] / ".." / "shared" / "calibration"

measured = pytest.mark.skipif(
    not CALIBRATION.exists(), reason="the H200 calibration is not beside this checkout"
)


def step_time(
    model: str = "Llama-3.1-8B", gpu: str = "H200", tp: int = 1, overhead: str = "plain"
) -> StepTime:
    return StepTime(find_model(model), find_gpu(gpu), tp, find_overhead(overhead))


def decode(batch: int, context: float) -> Load:
    return Load(tokens=batch, sequences=batch, kv_tokens=round(batch * context), pairs=0)


def prefill(tokens: int, before: int = 0) -> Load:
    return Load(tokens, 1, kv_tokens=0, pairs=tokens * before + tokens * (tokens + 1) / 2)


def rows(name: str) -> Iterator[dict[str, str]]:
    with (CALIBRATION / name).open() as file:
        yield from csv.DictReader(file)


@measured
def test_decode_steps_take_what_vllm_on_an_h200_took() -> None:
    """Mean absolute error 3.2 % over 40 batch sizes and contexts, worst 11 %: 255 short ones."""
    time = step_time(overhead="vllm-0.26")
    errors = [
        time(decode(int(row["batch"]), float(row["mean_context"])))
        / (float(row["median_ms"]) / 1e3)
        - 1
        for row in rows("main.decode_step.csv")
    ]
    assert np.mean(np.abs(errors)) < 0.05
    assert np.max(np.abs(errors)) < 0.12


@measured
def test_pipelined_prefill_steps_take_what_vllm_on_an_h200_took() -> None:
    """Mean absolute error 6.2 % over 19 steps: up to 24 % early in a prompt, under 7 % later."""
    time = step_time(overhead="vllm-0.26")
    errors = [
        time(prefill(int(row["new_tokens"]), int(row["context_before"])))
        / (float(row["median_ms"]) / 1e3)
        - 1
        for row in rows("main.prefill_step.csv")
        if row["pipelined"] == "1" and int(row["new_tokens"]) >= 512
    ]
    assert len(errors) == 19
    assert np.mean(np.abs(errors)) < 0.08


def test_a_decode_alone_reads_the_weights_once() -> None:
    """15 GB at 4.45 TB/s are 3.4 ms; operators and engine add about 1.4 ms."""
    assert step_time()(decode(1, 100)) == pytest.approx(4.8e-3, rel=0.03)


def test_thirty_two_decodes_take_little_longer_than_one() -> None:
    time = step_time()
    assert time(decode(32, 100)) < 1.2 * time(decode(1, 100))


def test_a_long_prompt_is_bound_by_flops() -> None:
    time = step_time()
    assert time(prefill(8192)) == pytest.approx(4 * time(prefill(2048)), rel=0.2)


def test_chunks_cost_more_than_the_whole_prompt() -> None:
    time = step_time()
    chunks = sum(time(prefill(512, before)) for before in range(0, 8192, 512))
    assert 1.0 < chunks / time(prefill(8192)) < 1.5


def test_more_gpus_are_faster_but_less_than_in_proportion() -> None:
    one, eight = step_time(gpu="H100"), step_time(gpu="H100", tp=8)
    load = prefill(8192)
    assert 1 < one(load) / eight(load) < 8


def test_a_number_of_gpus_without_an_all_reduce_time_lists_those_that_have_one() -> None:
    with pytest.raises(InputError, match="tp 1 or one of 2, 4, 8"):
        step_time(gpu="H100", tp=3)


def test_one_token_reads_the_experts_it_is_sent_to_and_many_read_all() -> None:
    """Mixtral: 2 of 8 experts for one token, 8 (1 - 0.75^4) = 5.47 for four, all for a thousand."""
    mixtral = find_model("Mixtral-8x7B")
    assert mixtral.idle_experts(1) == pytest.approx(6)
    assert mixtral.idle_experts(4) == pytest.approx(8 - 5.46875)
    time, gpu = step_time("Mixtral-8x7B", "H100", tp=2), find_gpu("H100")
    expert_s = 32 * 3 * 4096 * 14336 * 2 / 2 / (gpu.bandwidth * gpu.mbu)
    # what four tokens read beyond one is 3.47 experts; they hardly compute
    assert time(decode(4, 100)) - time(decode(1, 100)) == pytest.approx(3.46875 * expert_s, rel=0.1)


def test_a_prompt_computes_with_the_active_experts_only() -> None:
    """12.7 of 46.5 billion parameters in the layers: Mixtral's prefill costs as a 13B model's."""
    mixtral = step_time("Mixtral-8x7B", "H100", tp=2)(prefill(16_384))
    assert mixtral == pytest.approx(
        step_time("Llama-2-13B", "H100", tp=2)(prefill(16_384)), rel=0.2
    )


def test_weights_of_four_bits_are_read_in_a_quarter_of_the_time() -> None:
    full = step_time("Llama-3.1-70B", "A100-80G", tp=2)
    small = step_time("Llama-3.1-70B-4bit", "A100-80G", tp=2)
    gpu, layers = find_gpu("A100-80G"), 80 * find_model("Llama-3.1-70B").layer_weights
    read_s = layers * 2 / 2 / (gpu.bandwidth * gpu.mbu)
    saved = full(decode(1, 100)) - small(decode(1, 100))
    assert saved == pytest.approx(read_s * (1 - 4.16 / 16), rel=0.02)
    assert small(prefill(8192)) == pytest.approx(full(prefill(8192)), rel=0.05)


def test_a_pipeline_computes_a_part_of_the_batch_at_a_time() -> None:
    model, gpu = find_model("Llama-2-70B"), find_gpu("A40")
    whole = StepTime(model, gpu, 4)
    piped = StepTime(model, gpu, 4, pp=2)
    half, load = Load(32, 32, 40_000, 1e6), Load(64, 64, 80_000, 2e6)
    send_s = 28e-6 + 32 * 8192 * 2 / 7.8e9
    assert piped(load) == pytest.approx(whole(half) + send_s)
    assert piped(load) < whole(load)


def test_a_pipeline_does_not_make_one_decode_faster() -> None:
    model, gpu = find_model("Llama-2-70B"), find_gpu("A40")
    alone = Load(1, 1, 0, 0)
    assert StepTime(model, gpu, 4, pp=2)(alone) > StepTime(model, gpu, 4)(alone)


def test_the_engine_overhead_is_added_per_step_and_per_request() -> None:
    model, gpu = find_model("Mistral-7B"), find_gpu("A100-80G")
    free = StepTime(model, gpu, overhead=Overhead(0))
    slow = StepTime(model, gpu, overhead=Overhead(step_s=8e-3, sequence_s=1e-4))
    load = decode(10, 100)
    assert slow(load) - free(load) == pytest.approx(8e-3 + 10 * 1e-4)
