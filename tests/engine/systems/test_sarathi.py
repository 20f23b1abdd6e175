import numpy as np

from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import System
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.systems.vllm_v0 import VllmV0


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
