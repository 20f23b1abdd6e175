from collections.abc import Callable

import numpy as np
import pytest

from servescope.engine.decoding import Decoding
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool, blocks_for
from servescope.engine.policy import System, View, parts_of
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.engine.systems.sarathi import (
    Sarathi,
    SarathiChunkedOnly,
    SarathiDynamic,
    SarathiHybridOnly,
)
from servescope.engine.systems.vllm_v0 import VllmV0

Decodes = Callable[..., Decoding]


def unfinished(name: str, prompt: int, computed: int) -> Request:
    request = Request(name, prompt, 10, 0.0)
    request.status, request._computed = Status.RUNNING, computed
    request._blocks = blocks_for(prompt)
    return request


def by_tokens(load: Load) -> float:
    return 0.01 + load.tokens * 1e-4


def stalls_and_budget(system: System, blocks: int = 10_000) -> tuple[int, int]:
    """Serve a mix; return how many steps left a decode out, and the most tokens in one."""
    rng = np.random.default_rng(3)
    engine = Engine(system, by_tokens, BlockPool(blocks), 10_000)
    due = [
        Request(str(i), int(rng.integers(50, 3000)), int(rng.integers(5, 80)), i * 0.2)
        for i in range(60)
    ]
    now, stalls, most = 0.0, 0, 0
    while due or engine.waiting or engine.running:
        while due and due[0].arrival_s <= now:
            engine.submit(due.pop(0), now)
        decoding = list(engine.view.decoding)
        step = engine.begin(now, until=now)
        if step is None:
            now = due[0].arrival_s
            continue
        left_out = 0 if step.batch.decode else len(decoding) - len(step.batch.preempt)
        stalls += left_out > 0
        most = max(most, step.load.tokens)
        engine.finish(step)
        now = step.ends_s
    return stalls, most


def test_no_decode_is_ever_left_out_where_whole_prompts_leave_many_out() -> None:
    assert stalls_and_budget(Sarathi())[0] == 0
    assert stalls_and_budget(VllmV0())[0] > 20


def test_no_step_exceeds_the_token_budget() -> None:
    assert stalls_and_budget(Sarathi(chunk_tokens=512))[1] == 512
    assert stalls_and_budget(Sarathi(chunk_tokens=512), blocks=300)[1] == 512
    # With fewer tokens than seats, seats are as few as tokens.
    assert stalls_and_budget(Sarathi(chunk_tokens=16, max_num_seqs=128))[1] == 16


def test_a_prompt_gets_all_its_blocks_with_its_first_chunk() -> None:
    engine = Engine(Sarathi(chunk_tokens=100), by_tokens, BlockPool(200), 10_000)
    engine.submit(Request("a", 1600, 10, 0.0), 0.0)
    step = engine.begin(0.0)
    assert step is not None
    assert step.load.tokens == 100
    assert engine.pool.used == 100


def test_a_chunk_attends_to_the_chunks_before_it() -> None:
    engine = Engine(Sarathi(chunk_tokens=100), by_tokens, BlockPool(200), 10_000)
    engine.submit(Request("a", 200, 10, 0.0), 0.0)
    pairs = 0.0
    for _ in range(2):
        step = engine.begin(engine.counters.steps * 1.0)
        assert step is not None
        pairs += step.load.pairs
        engine.finish(step)
    assert pairs == 200 * 201 / 2


def test_decodes_then_unfinished_prompts_then_the_queue_fill_the_budget(decoding: Decodes) -> None:
    """Of 100 tokens three decodes take 3, two unfinished prompts 30 and 40, the next one 27."""
    first, second = unfinished("first", 130, 100), unfinished("second", 140, 100)
    new = Request("new", 500, 10, 0.0)
    view = View([new], [first, second], decoding(20, 20, 20), BlockPool(100))
    batch = Sarathi(chunk_tokens=100).plan(view)
    assert batch.decode
    assert batch.prefill == [(first, 30), (second, 40), (new, 27)]
    assert batch.admit == [(new, 32)]


def test_hybrid_only_computes_whole_prompts_beside_decodes(decoding: Decodes) -> None:
    queue = [Request(str(i), prompt, 10, 0.0) for i, prompt in enumerate((9000, 400))]
    batch = SarathiHybridOnly().plan(View(queue, [], decoding(20), BlockPool(1000)))
    assert batch.decode
    assert batch.prefill == [(queue[0], 9000), (queue[1], 400)]


def turns(system: System, *requests: tuple[int, int, float]) -> list[tuple[int, int]]:
    """Return the prompt tokens and the decodes of each step."""
    engine = Engine(parts_of(system).schedule, lambda load: 1.0, BlockPool(1000), 10_000)
    due = [Request(str(n), prompt, out, at) for n, (prompt, out, at) in enumerate(requests)]
    now, steps = 0.0, []
    while due or engine.waiting or engine.running:
        while due and due[0].arrival_s <= now:
            engine.submit(due.pop(0), now)
        step = engine.begin(now, until=now)
        assert step is not None
        prompts = sum(piece for _, piece in step.prefill)
        steps.append((prompts, step.load.tokens - prompts))
        engine.finish(step)
        now = step.ends_s
    return steps


def test_chunked_only_takes_turns() -> None:
    """A decodes from 1 s on; B comes then, with two chunks and a bit: A stands still three times.

    Its last bit is computed alone although C waits, and C's chunk follows in the next turn.
    """
    steps = turns(SarathiChunkedOnly(chunk_tokens=100), (50, 8, 0.0), (230, 2, 1.0), (80, 1, 1.5))
    assert steps == [
        (50, 0), (0, 1), (100, 0), (0, 1), (100, 0), (0, 1), (30, 0), (0, 2), (80, 0),
        (0, 1), (0, 1), (0, 1),
    ]  # fmt: skip


def test_combined_never_stands_still_on_the_same_load() -> None:
    """B's first chunk shares its step with a decode, and so on; C fills what B leaves."""
    steps = turns(Sarathi(chunk_tokens=100), (50, 8, 0.0), (230, 2, 1.0), (80, 1, 1.5))
    assert steps == [(50, 0), (99, 1), (99, 1), (99, 1), (13, 2), (0, 1), (0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("computed", "chunk"),
    [(0, 2048), (8191, 2048), (8192, 1920), (65_536, 1024), (122_880, 128), (200_000, 128)],
)
def test_dynamic_chunks_shrink_by_128_every_8192_tokens(computed: int, chunk: int) -> None:
    """16 stages from 2048 to 128, of a prompt of up to 131,072 tokens."""
    assert SarathiDynamic().chunk_at(computed) == chunk


def test_dynamic_chunks_are_multiples_of_32() -> None:
    """From 512 to 128 in four stages: 512, 384, 256, 128; in three of 400: 400 is not one."""
    system = SarathiDynamic(high_chunk_tokens=512, low_chunk_tokens=128, stages=4, max_tokens=400)
    assert [system.chunk_at(at) for at in (0, 100, 200, 300)] == [512, 384, 256, 128]
    system = SarathiDynamic(high_chunk_tokens=512, low_chunk_tokens=64, stages=4, max_tokens=400)
    assert [system.chunk_at(at) for at in (0, 100, 200, 300)] == [512, 352, 224, 64]


def test_each_prompt_has_the_chunk_of_its_own_stage(decoding: Decodes) -> None:
    """Ten decodes and a prompt at 65,536 tokens fill 1024; a new one may fill the rest of 2048."""
    late, new = unfinished("late", 80_000, 65_536), Request("new", 3000, 10, 0.0)
    view = View([new], [late], decoding(*[20] * 10), BlockPool(10_000))
    batch = SarathiDynamic().plan(view)
    assert batch.prefill == [(late, 1014), (new, 1024)]


def test_a_late_prompt_waits_where_decodes_fill_its_chunk(decoding: Decodes) -> None:
    late = unfinished("late", 130_000, 126_000)
    view = View([], [late], decoding(*[20] * 128), BlockPool(10_000))
    batch = SarathiDynamic(max_num_seqs=256).plan(view)
    assert batch.decode
    assert not batch.prefill
